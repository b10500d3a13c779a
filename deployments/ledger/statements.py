"""The two statements by which the ledger grows; each keeps the same text however many rows it gets.

SQLAlchemy would make the text of an INSERT with ON CONFLICT anew each time, which takes longer than the database does. Here
PostgreSQL gets one array for each column. SQLite gets one row after the other, or a few fixed numbers of rows where the
statement must return what was new. Both databases keep such statements prepared.
"""

from collections.abc import Iterator, Sequence
from functools import cache

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql

from deployments.ledger.rows import Row

CHUNKS = (64, 16, 4, 1)  # rows in one INSERT; SQLite takes 32,766 values


def insert_new(connection: Connection, table: Table, rows: Sequence[Row]) -> list[Row]:
    """Insert rows and return those that were not there.

    They are inserted in order, so that processes that write the same rows wait for each other but never deadlock.
    """
    if not rows:
        return []
    names = [column.name for column in table.primary_key]
    found = {tuple(row[name] for name in names): row for row in reversed(rows)}
    ordered = [found[key] for key in sorted(found)]
    if connection.dialect.name == "postgresql":
        values = arrays_of(table, ordered)
        inserted: Sequence[Sequence[object]] = connection.exec_driver_sql(insert(table, arrays(table)), values).all()
    else:
        inserted = [key for part in chunks(ordered) for key in insert_chunk(connection, table, part)]
    return [found[tuple(key)] for key in inserted]


def add_up(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Add figures to existing sums, or insert them. rows: at least one, each key once, sorted."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(upsert(table, arrays(table)), arrays_of(table, rows))
    else:
        connection.exec_driver_sql(upsert(table, marks(table)), [values_of(table, row) for row in rows])


@cache
def insert(table: Table, source: str) -> str:
    """Skips rows that are there and returns the keys of the others."""
    return f"{into(table, source)} ON CONFLICT DO NOTHING RETURNING {key_of(table)}"


@cache
def upsert(table: Table, source: str) -> str:
    """Adds to the sums of rows that are there."""
    added = [f"{c.name} = {table.name}.{c.name} + excluded.{c.name}" for c in table.columns if not c.primary_key]
    return f"{into(table, source)} ON CONFLICT ({key_of(table)}) DO UPDATE SET {', '.join(added)}"


def into(table: Table, source: str) -> str:
    return f"INSERT INTO {table.name} ({', '.join(columns(table))}) {source}"


def key_of(table: Table) -> str:
    return ", ".join(column.name for column in table.primary_key)


@cache
def columns(table: Table) -> tuple[str, ...]:
    """The columns' names, cached because walking through a table's columns for each row is slow."""
    return tuple(column.name for column in table.columns)


# -- SQLite: rows of values ------------------------------------------------------------------------------------------------


def chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    at = 0
    while at < len(rows):
        size = next(size for size in CHUNKS if size <= len(rows) - at)
        yield rows[at : at + size]
        at += size


def insert_chunk(connection: Connection, table: Table, rows: Sequence[Row]) -> Sequence[Sequence[object]]:
    values = tuple(value for row in rows for value in values_of(table, row))
    return connection.exec_driver_sql(insert(table, marks(table, len(rows))), values).all()


def values_of(table: Table, row: Row) -> tuple[object, ...]:
    return tuple(map(row.__getitem__, columns(table)))


@cache
def marks(table: Table, rows: int = 1) -> str:
    one = f"({', '.join('?' for _ in table.columns)})"
    return f"VALUES {', '.join([one] * rows)}"


# -- PostgreSQL: an array for each column ----------------------------------------------------------------------------------


def arrays_of(table: Table, rows: Sequence[Row]) -> tuple[list[object], ...]:
    """An array has one type, so integers in a column of floats become floats."""
    return tuple(
        [float(row[name]) if kind is float and row[name] is not None else row[name] for row in rows]
        for name, kind in ((column.name, column.type.python_type) for column in table.columns)
    )


@cache
def arrays(table: Table) -> str:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy left it untyped
    return f"SELECT * FROM unnest({', '.join(f'%s::{column.type.compile(dialect)}[]' for column in table.columns)})"
