"""Deletes old rows by age and by size, in small batches so that no writer waits long. Sums and windows stay."""

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, Table, delete, func, select, text

from deployments.ledger.database import writing
from deployments.ledger.schema import calls, traces
from router import config
from router.costs.machine_time import DAY_S

BATCH = 500
ROW_BYTES = 28  # PostgreSQL: a row's header and its pointer in the page
FREE_PAGES = 2_000  # SQLite: pages of 4 KiB that are given back to the file system at a time
PRAGMAS = ("page_count", "freelist_count", "page_size")


class Retention:
    """`look` finds old rows and may take long; `step` deletes a few of them and is quick."""

    def __init__(self, settings: config.Ledger, clock: Callable[[], float] = time.time) -> None:
        self.settings, self.clock = settings, clock
        self.before_s: float | None = None
        """rows that began before this are deleted; None: nothing is left to do"""

    def look(self, engine: Engine) -> None:
        found = [self.too_old(), self.too_many(engine)]
        self.before_s = max((at for at in found if at is not None), default=None)

    def too_old(self) -> float | None:
        return self.clock() - self.settings.keep_days * DAY_S if self.settings.keep_days else None

    def too_many(self, engine: Engine) -> float | None:
        """When the oldest trace began that still fits into `keep_bytes`."""
        if self.settings.keep_bytes is None:
            return None
        with engine.connect() as connection:
            size = size_bytes(connection)
            count = connection.execute(select(func.count()).select_from(traces)).scalar_one()
            over = size - self.settings.keep_bytes
            if over <= 0 or not count:
                return None
            going = min(count, round(count * over / size) + 1)
            order = select(traces.c.began_s).order_by(traces.c.began_s).offset(going).limit(1)
            first = connection.execute(order).scalar()
            return self.clock() if first is None else float(first)

    def step(self, engine: Engine) -> bool:
        """Delete one batch. True: there is more to do."""
        if self.before_s is None:
            return False
        with writing(engine) as connection:
            gone = [delete_some(connection, table, self.before_s) for table in (calls, traces)]
        if max(gone) < BATCH:
            self.before_s = None
        if engine.dialect.name == "sqlite" and any(gone):
            shrink(engine)
        return self.before_s is not None


def delete_some(connection: Connection, table: Table, before_s: float) -> int:
    """Delete a batch; rows that another process is deleting are skipped."""
    old = select(table.c.id).where(table.c.began_s < before_s).order_by(table.c.began_s).limit(BATCH)
    return connection.execute(delete(table).where(table.c.id.in_(old.with_for_update(skip_locked=True)))).rowcount


def size_bytes(connection: Connection) -> float:
    """What the rows take. SQLite: the pages in use. PostgreSQL: rows times their mean size, and half of that for indexes.

    PostgreSQL's files do not shrink when rows are deleted, so their size says nothing.
    """
    if connection.dialect.name == "sqlite":
        pages, free, page = (connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in PRAGMAS)
        return float((pages - free) * page)
    return 1.5 * sum(rows_bytes(connection, table) for table in (calls, traces))


def rows_bytes(connection: Connection, table: Table) -> float:
    count = connection.execute(select(func.count()).select_from(table)).scalar_one()
    sizes = " + ".join(f"coalesce(pg_column_size({column.name}), 0)" for column in table.columns)  # as stored, compressed
    recent = f"SELECT avg({ROW_BYTES} + {sizes}) FROM (SELECT * FROM {table.name} ORDER BY began_s DESC LIMIT 1000) recent"
    return float(count * (connection.execute(text(recent)).scalar() or 0))


def shrink(engine: Engine) -> bool:
    """Shrink the file by some where it has many free pages; few are kept for reuse. Returns whether it did."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        many = bool(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one() > 2 * FREE_PAGES)
        if many:
            driver: Any = connection.connection.driver_connection
            driver.executescript(f"PRAGMA incremental_vacuum({FREE_PAGES})")  # `execute` would free one page only
        return many
