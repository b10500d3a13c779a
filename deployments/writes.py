"""Rows and the sums by the hour, in one transaction. A row that is there already is neither written nor summed again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, bindparam, select
from sqlalchemy.dialects import postgresql, sqlite

from deployments.budgets import settle_in
from deployments.rows import Busy, Row, Rows
from deployments.schema import calls, hourly, hourly_traces, traces, windows

HOUR_S = 3600
INSERT: Mapping[str, Callable[[Table], Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
Figures = Mapping[str, float]


def write(connection: Connection, rows: Rows) -> set[str]:
    """Returns the ids of calls whose readings found no call yet."""
    new = insert_new(connection, traces, rows.traces)
    count_traces(connection, new)
    # With the row, so that no budget forgets what a process that was killed had written down.
    settle_in(connection, {row["id"]: row["cost_usd"] for row in new})
    count_calls(connection, insert_new(connection, calls, rows.calls))
    if rows.windows:
        insert_new(connection, windows, rows.windows)
    return measure(connection, rows.readings) if rows.readings else set()


def insert_new(connection: Connection, table: Table, rows: Sequence[Row]) -> list[Row]:
    """Those that were not there. Sorted: processes that write the same rows wait for each other, never in a circle."""
    if not rows:
        return []
    names = [column.name for column in table.primary_key]
    found = {tuple(row[name] for name in names): row for row in reversed(rows)}
    statement = INSERT[connection.dialect.name](table).on_conflict_do_nothing().returning(*table.primary_key)
    result = connection.execute(statement, [found[key] for key in sorted(found)])
    return [found[tuple(key)] for key in result]


def count_traces(connection: Connection, new: Iterable[Row]) -> None:
    keys = ("key_id", "tier", "target", "reason", "flow")
    add(connection, hourly_traces, keys, ((row, figures_of_trace(row)) for row in new))


def figures_of_trace(row: Row) -> Figures:
    known, confidence = row["counterfactual_usd"] is not None, row["confidence"]
    return {
        "requests": 1,
        "failed": int(row["status"] >= 400),
        "cost_usd": row["cost_usd"] if known else 0.0,
        "counterfactual_usd": row["counterfactual_usd"] if known else 0.0,
        "cost_all_usd": row["cost_usd"],
        "confidence": confidence if confidence is not None else 0.0,
        "confident": int(confidence is not None),
    }


def count_calls(connection: Connection, new: Iterable[Row]) -> None:
    add(connection, hourly, ("key_id", "tier", "role"), ((row, figures_of_call(row)) for row in new))


def figures_of_call(row: Row) -> Figures:
    return {
        "calls": 1,
        **{name: row[name] for name in ("input_tokens", "output_tokens", "cached_tokens", "cost_usd")},
        "busy_s": row["busy_s"] or 0.0,
        "gpu_usd": row["gpu_usd"] or 0.0,
    }


def add(connection: Connection, table: Table, keys: Sequence[str], rows: Iterable[tuple[Row, Figures]]) -> None:
    """Add each row's figures to the sum of its hour and `keys`."""
    sums: dict[tuple[Any, ...], dict[str, float]] = {}
    for row, figures in rows:
        key = (int(row["began_s"] // HOUR_S) * HOUR_S, *(row[name] for name in keys))
        total = sums.setdefault(key, dict.fromkeys(figures, 0))
        for name, value in figures.items():
            total[name] += value
    if not sums:
        return
    statement = INSERT[connection.dialect.name](table)
    columns = [column.name for column in table.columns if not column.primary_key]
    changes = {name: table.c[name] + statement.excluded[name] for name in columns}
    statement = statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=changes)
    names = ("hour", *keys)
    connection.execute(statement, [dict(zip(names, key, strict=True)) | sums[key] for key in sorted(sums)])


def measure(connection: Connection, readings: Mapping[str, Busy]) -> set[str]:
    """Late measurements go to calls that have none; the hour's sums follow. Returns the ids of calls that are not there."""
    wanted = [calls.c[name] for name in ("id", "key_id", "tier", "role", "began_s", "busy_s", "gpu_usd")]
    asked = select(*wanted).where(calls.c.id.in_(readings)).order_by(calls.c.id).with_for_update()
    found = [row._asdict() for row in connection.execute(asked)]
    bare = [row for row in found if row["busy_s"] is None]
    if bare:
        connection.execute(MEASURE, [measured(row["id"], row, readings[row["id"]]) for row in bare])
        add(connection, hourly, ("key_id", "tier", "role"), ((row, gain(row, readings[row["id"]])) for row in bare))
    return readings.keys() - {row["id"] for row in found}


def measured(id: str, row: Row, busy: Busy) -> Row:
    return {"call": id, "busy": busy[0], "usd": row["gpu_usd"] if busy[1] is None else busy[1]}


def gain(row: Row, busy: Busy) -> Figures:
    """What a reading changes in the sums."""
    usd = 0.0 if busy[1] is None else busy[1] - (row["gpu_usd"] or 0.0)
    return dict.fromkeys(FIGURES, 0) | {"busy_s": busy[0], "gpu_usd": usd}


MEASURE = calls.update().where(calls.c.id == bindparam("call")).values(busy_s=bindparam("busy"), gpu_usd=bindparam("usd"))
FIGURES = [column.name for column in hourly.columns if not column.primary_key]
