"""Answers of the Responses protocol in the ledger's database, for any ingress and after a restart."""

import asyncio
import time
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Engine, delete, select
from sqlalchemy.exc import SQLAlchemyError

from deployments.endpoint.spoken.response_states import Kept, unpacked
from deployments.ledger.budgets import writing_unsynced
from deployments.ledger.database import INSERT, driver_message
from deployments.ledger.schema import response_states as table
from router.costs.machine_time import DAY_S
from router.errors import LedgerDown

T = TypeVar("T")
FOR_EVER_S = 3_650 * DAY_S
BATCH = 100  # expired rows that each new one takes with it


class InLedger:
    """keep_days: None: for ever."""

    def __init__(self, engine: Engine, keep_days: float | None, clock: Callable[[], float] = time.time) -> None:
        self.engine, self.clock = engine, clock
        self.keep_s = FOR_EVER_S if keep_days is None else keep_days * DAY_S

    async def get(self, name: str, key_id: str) -> Kept | None:
        """Raises LedgerDown."""
        return await self.beside(self.read, name, key_id)

    async def put(self, name: str, key_id: str, kept: Kept) -> None:
        """Raises LedgerDown."""
        await self.beside(self.write, name, key_id, kept)

    async def delete(self, name: str, key_id: str) -> None:
        """Raises LedgerDown."""
        await self.beside(self.remove, name, key_id)

    async def beside(self, work: Callable[..., T], *given: Any) -> T:
        try:
            return await asyncio.to_thread(work, *given)
        except SQLAlchemyError as error:
            raise LedgerDown(f"answers to be continued: {driver_message(error)}") from None

    def read(self, name: str, key_id: str) -> Kept | None:
        with self.engine.connect() as connection:
            found = connection.execute(select(table.c.kept).where(*self.own(name, key_id), table.c.expires_s > self.clock()))
            raw = found.scalar()
        return None if raw is None else unpacked(zlib.decompress(raw))

    def write(self, name: str, key_id: str, kept: Kept) -> None:
        now_s = self.clock()
        row = {"id": name, "key_id": key_id, "kept": zlib.compress(kept.packed(), 1), "expires_s": now_s + self.keep_s}
        with writing_unsynced(self.engine) as connection:
            connection.execute(INSERT[self.engine.dialect.name](table).values(row).on_conflict_do_nothing())
            old = connection.execute(select(table.c.id, table.c.key_id).where(table.c.expires_s <= now_s).limit(BATCH)).all()
            for gone in old:
                connection.execute(delete(table).where(*self.own(*gone)))

    def remove(self, name: str, key_id: str) -> None:
        with writing_unsynced(self.engine) as connection:
            connection.execute(delete(table).where(*self.own(name, key_id)))

    @staticmethod
    def own(name: str, key_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        return table.c.id == name, table.c.key_id == key_id
