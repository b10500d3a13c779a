"""The two statements by which the ledger grows; each keeps the same text however many rows it gets.

SQLAlchemy would make the text of an INSERT with ON CONFLICT anew each time, which takes longer than the database does. Here
PostgreSQL gets one array for each column. SQLite gets one row after the other, or a few fixed numbers of rows where the
statement must return what was new. Both databases keep such statements prepared.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

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
        values = columns_of(table, ordered)
        inserted: Sequence[Sequence[object]] = connection.exec_driver_sql(insert_arrays(table), values).all()
    else:
        inserted = [key for part in chunks(ordered) for key in insert_chunk(connection, table, part)]
    return [found[tuple(key)] for key in inserted]


def add_up(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Add figures to existing sums, or insert them. rows: at least one, each key once, sorted."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(add_arrays(table), columns_of(table, rows))
    else:
        connection.exec_driver_sql(add_row(table), [values_of(table, row) for row in rows])


# -- SQLite ----------------------------------------------------------------------------------------------------------------


def chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    at = 0
    while at < len(rows):
        size = next(size for size in CHUNKS if size <= len(rows) - at)
        yield rows[at : at + size]
        at += size


def insert_chunk(connection: Connection, table: Table, rows: Sequence[Row]) -> Sequence[Sequence[object]]:
    values = tuple(value for row in rows for value in values_of(table, row))
    return connection.exec_driver_sql(insert_rows(table, len(rows)), values).all()


def values_of(table: Table, row: Row) -> tuple[object, ...]:
    return tuple(map(row.__getitem__, columns(table)))


@cache
def columns(table: Table) -> tuple[str, ...]:
    """The columns' names, cached because walking through a table's columns for each row is slow."""
    return tuple(column.name for column in table.columns)


@cache
def insert_rows(table: Table, n: int) -> str:
    one = f"({', '.join('?' for _ in table.columns)})"
    return f"INSERT INTO {table.name} ({names_of(table)}) VALUES {', '.join([one] * n)} {new_only(table)}"


@cache
def add_row(table: Table) -> str:
    return f"INSERT INTO {table.name} ({names_of(table)}) VALUES ({', '.join('?' for _ in table.columns)}) {or_add(table)}"


# -- PostgreSQL ------------------------------------------------------------------------------------------------------------


def columns_of(table: Table, rows: Sequence[Row]) -> tuple[list[object], ...]:
    """An array for each column. It has one type, so integers in a column of floats become floats."""
    return tuple(
        [as_float(row[name]) if kind is float else row[name] for row in rows]
        for name, kind in ((column.name, column.type.python_type) for column in table.columns)
    )


def as_float(value: Any) -> float | None:
    return None if value is None else float(value)


@cache
def insert_arrays(table: Table) -> str:
    return f"INSERT INTO {table.name} ({names_of(table)}) {arrays(table)} {new_only(table)}"


@cache
def add_arrays(table: Table) -> str:
    return f"INSERT INTO {table.name} ({names_of(table)}) {arrays(table)} {or_add(table)}"


def arrays(table: Table) -> str:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    return f"SELECT * FROM unnest({', '.join(f'%s::{column.type.compile(dialect)}[]' for column in table.columns)})"


# -- both ------------------------------------------------------------------------------------------------------------------


def names_of(table: Table) -> str:
    return ", ".join(column.name for column in table.columns)


def key_of(table: Table) -> str:
    return ", ".join(column.name for column in table.primary_key)


def new_only(table: Table) -> str:
    return f"ON CONFLICT DO NOTHING RETURNING {key_of(table)}"


def or_add(table: Table) -> str:
    names = [column.name for column in table.columns if not column.primary_key]
    return f"ON CONFLICT ({key_of(table)}) DO UPDATE SET " + ", ".join(f"{n} = {table.name}.{n} + excluded.{n}" for n in names)
