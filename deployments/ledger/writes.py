"""Writes rows and their sums in one transaction. A row that is there already is neither written nor summed again."""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, bindparam, select

from deployments.ledger import machine_time_sums, sum_tables
from deployments.ledger.budgets import settle_in
from deployments.ledger.rows import Busy, Row, Rows
from deployments.ledger.schema import calls, traces, windows
from deployments.ledger.statements import insert_new
from deployments.ledger.sum_tables import Sums, coarser, summed

LOOKED_UP = 500  # requests in one query
SET_READING = calls.update().where(calls.c.id == bindparam("call")).values(busy_s=bindparam("busy"), gpu_usd=bindparam("usd"))


def write(connection: Connection, rows: Rows) -> set[str]:
    """Returns the ids of calls whose readings found no call yet."""
    new = insert_new(connection, traces, rows.traces)
    add_traces(connection, summed(((row, figures_of_trace(row)) for row in new), sum_tables.TRACES))
    # In the same transaction as the row, so that budgets count what a killed process had recorded.
    settle_in(connection, {row["id"]: row["cost_usd"] for row in new})
    made = insert_new(connection, calls, rows.calls)
    at = in_their_requests(connection, made, new)
    add_calls(connection, summed(((row, figures_of_call(row)) for row in at), sum_tables.CALLS))
    if rows.windows:
        write_windows(connection, rows.windows)
    return write_readings(connection, rows.readings) if rows.readings else set()


def in_their_requests(connection: Connection, made: Sequence[Row], known: Iterable[Row] = ()) -> list[Row]:
    """The calls, each with the time at which its request began: a request counts in one hour and day, with all its calls.

    known: requests that need not be looked up. A call whose request is not in the ledger keeps its own time.
    """
    begun = {row["id"]: row["began_s"] for row in known}
    unknown = sorted({row["trace_id"] for row in made} - begun.keys())
    for part in (unknown[i : i + LOOKED_UP] for i in range(0, len(unknown), LOOKED_UP)):
        found = connection.execute(select(traces.c.id, traces.c.began_s).where(traces.c.id.in_(part)))
        begun.update((row.id, row.began_s) for row in found)
    return [row | {"began_s": begun.get(row["trace_id"], row["began_s"])} for row in made]


def add_traces(connection: Connection, hours: Sums) -> None:
    days = coarser(hours, sum_tables.TRACES, sum_tables.TRACES_BY_DAY)
    sum_tables.add_sums(connection, sum_tables.TRACES, hours)
    sum_tables.add_sums(connection, sum_tables.TRACES_BY_DAY, days)
    for table in (sum_tables.TOTALS_BY_DAY, sum_tables.KEYS_BY_DAY):
        sum_tables.add_sums(connection, table, coarser(days, sum_tables.TRACES_BY_DAY, table))


def figures_of_trace(row: Row) -> Sequence[float]:
    """In the order of `hourly_traces`' columns."""
    known, confidence, usd = row["counterfactual_usd"] is not None, row["confidence"], row["cost_usd"]
    return (
        1,
        int(row["status"] >= 400),
        usd if known else 0.0,
        row["counterfactual_usd"] if known else 0.0,
        usd,
        0.0 if confidence is None else confidence,
        int(confidence is not None),
    )


def add_calls(connection: Connection, hours: Sums) -> None:
    machine_time_sums.reopen(connection, hours)
    sum_tables.add_sums(connection, sum_tables.CALLS, hours)
    sum_tables.add_sums(connection, sum_tables.CALLS_BY_DAY, coarser(hours, sum_tables.CALLS, sum_tables.CALLS_BY_DAY))


def figures_of_call(row: Row) -> Sequence[float]:
    """In the order of `hourly`'s columns."""
    tokens = (row["input_tokens"], row["output_tokens"], row["cached_tokens"])
    return (1, *tokens, row["cost_usd"], row["busy_s"] or 0.0, row["gpu_usd"] or 0.0)


def write_windows(connection: Connection, rows: Iterable[Row]) -> None:
    new = insert_new(connection, windows, machine_time_sums.not_merged(connection, list(rows)))
    hours = summed(((row, figures_of_window(row)) for row in new), sum_tables.HELD)
    machine_time_sums.reopen(connection, hours)
    sum_tables.add_sums(connection, sum_tables.HELD, hours)


def figures_of_window(row: Row) -> Sequence[float]:
    """In the order of `hourly_held`'s columns."""
    replica_s = row["seconds"] * row["replicas"]
    accelerator_s = replica_s * row["accelerators"]
    return replica_s, accelerator_s, accelerator_s * (row["usd_per_accelerator_hour"] or 0.0) / 3600


def write_readings(connection: Connection, readings: Mapping[str, Busy]) -> set[str]:
    """Give calls that have no measurement their reading, and add it to the sums. Returns the ids of calls that are missing."""
    wanted = [calls.c[name] for name in ("id", "trace_id", "key_id", "tier", "role", "began_s", "busy_s", "gpu_usd")]
    asked = select(*wanted).where(calls.c.id.in_(readings)).order_by(calls.c.id).with_for_update()
    found = [row._asdict() for row in connection.execute(asked)]
    unmeasured = [(row, readings[row["id"]]) for row in in_their_requests(connection, found) if row["busy_s"] is None]
    if unmeasured:
        connection.execute(SET_READING, [reading(row, busy) for row, busy in unmeasured])
        add_calls(connection, summed(((row, figures_of_reading(row, busy)) for row, busy in unmeasured), sum_tables.CALLS))
    return readings.keys() - {row["id"] for row in found}


def reading(row: Row, busy: Busy) -> Row:
    return {"call": row["id"], "busy": busy[0], "usd": row["gpu_usd"] if busy[1] is None else busy[1]}


def figures_of_reading(row: Row, busy: Busy) -> Sequence[float]:
    """What a reading adds to the sums."""
    return 0, 0, 0, 0, 0.0, busy[0], 0.0 if busy[1] is None else busy[1] - (row["gpu_usd"] or 0.0)
