"""Leases in the ledger's database: one process of all machines does a thing, and another takes over when it dies.

A lease says who may begin. It cannot stop a process that slept through its own lease: what such a process writes must fail by
itself, as `runs.event` does.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from secrets import token_hex
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, delete, or_, select
from sqlalchemy.exc import SQLAlchemyError

from deployments.ledger.database import INSERT, writing
from deployments.ledger.schema import leases

T = TypeVar("T")
Transact = Callable[[Callable[[Connection], Any]], Any]
"""runs an action in a transaction that writes, and returns its result"""
RENEWALS = 3  # times that a lease is renewed before it would run out


class Lease:
    """through: an engine, or `Store.transact` where other threads of this process write to the ledger too.

    The clocks of machines that share a database must not differ by more than a lease lasts.
    """

    def __init__(self, through: Engine | Transact) -> None:
        self.transact: Transact = transactions(through) if isinstance(through, Engine) else through
        self.reading: Transact = looks(through) if isinstance(through, Engine) else through

    def take(self, name: str, holder: str, for_s: float, now_s: float) -> bool:
        """Take a lease, or renew it; take over one that has run out. False: somebody else holds it."""
        return bool(self.transact(lambda connection: take(connection, name, holder, now_s + for_s, now_s)))

    def release(self, name: str, holder: str) -> None:
        """Give it back; nothing happens where somebody else holds it."""
        mine = (leases.c.name == name) & (leases.c.holder == holder)
        self.transact(lambda connection: connection.execute(delete(leases).where(mine)))

    def holder(self, name: str) -> tuple[str, float] | None:
        """Who took it last and until when, in Unix time; None: nobody, or it was given back."""
        found: tuple[str, float] | None = self.reading(lambda connection: read(connection, name))
        return found

    @contextmanager
    def kept(self, name: str, holder: str, for_s: float, clock: Callable[[], float]) -> Iterator[None]:
        """Renew a lease that this process has, by a thread of its own, until the block ends."""
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(for_s / RENEWALS):
                try:
                    self.take(name, holder, for_s, clock())
                except SQLAlchemyError:
                    continue  # a database that stays away lets the lease run out

        thread = threading.Thread(target=renew, name=f"lease {name}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def take(connection: Connection, name: str, holder: str, until_s: float, now_s: float) -> bool:
    """One statement, so that of two processes one gets it."""
    adding = INSERT[connection.dialect.name](leases).values(name=name, holder=holder, until_s=until_s)
    statement = adding.on_conflict_do_update(
        index_elements=[leases.c.name],
        set_={"holder": adding.excluded.holder, "until_s": adding.excluded.until_s},
        where=or_(leases.c.holder == holder, leases.c.until_s <= now_s),
    )
    return connection.execute(statement.returning(leases.c.name)).first() is not None


def read(connection: Connection, name: str) -> tuple[str, float] | None:
    row = connection.execute(select(leases.c.holder, leases.c.until_s).where(leases.c.name == name)).first()
    return None if row is None else (row[0], row[1])


def transactions(engine: Engine) -> Transact:
    def transact(action: Callable[[Connection], T]) -> T:
        with writing(engine) as connection:
            return action(connection)

    return transact


def looks(engine: Engine) -> Transact:
    """As `transactions`, for what only reads: it waits for no writer."""

    def look(action: Callable[[Connection], T]) -> T:
        with engine.connect() as connection:
            return action(connection)

    return look


def this_process() -> str:
    """A name for this process that no other has had: numbers of processes come again."""
    return f"{socket.gethostname()[:64]}:{os.getpid()}:{token_hex(3)}"
