"""Rows for the tests of the ledger, and what must be true of its tables at any time."""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Engine, Table, func, select

from deployments.ledger import sum_tables
from deployments.ledger.ledger import Ledger
from deployments.ledger.schema import calls, traces, windows
from deployments.ledger.sum_tables import SumTable
from deployments.ledger.writes import figures_of_call, figures_of_trace, figures_of_window
from router import config
from router.trace import CallRow, Trace

BEGAN_S = time.time() // 3600 * 3600 - 7200.0  # an hour's begin; old rows would be deleted


def call(trace_id: str, n: int = 0, **other: Any) -> CallRow:
    given = {
        "role": "answer",
        "tier": "small",
        "outcome": "answered",
        "began_s": BEGAN_S,
        "took_s": 0.5,
        "input_tokens": 100,
        "output_tokens": 20,
        "cached_tokens": 10,
        "cost_usd": 0.25,
    }
    return CallRow(**{"id": f"{trace_id}/{n}", "trace_id": trace_id, "key_id": "key", **given, **other})


def trace(id: str, n_calls: int = 1, **other: Any) -> Trace:
    given = {
        "key_id": "key",
        "began_s": BEGAN_S,
        "took_s": 1.0,
        "path": "/v1/chat/completions",
        "wanted": "auto",
        "status": 200,
        "tier": "small",
        "target": "balanced",
        "reason": "good enough",
        "confidence": 0.75,
        "p": {"small": 0.75},
        "counterfactual_usd": 1.0,
        "calls": tuple(call(id, n) for n in range(n_calls)),
    }
    return Trace(**{"id": id, **given, **other})


@asynccontextmanager
async def opened(url: str, **settings: Any) -> Any:
    ledger = Ledger(config.Ledger(url=url, **{"journal_s": 0, **settings}))
    await ledger.open()
    try:
        yield ledger
    finally:
        await ledger.close()


async def until(true: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait for what another thread or process will make true."""
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.01)


def rows_of(engine: Engine, table: Table) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(table)).mappings()]


def count(engine: Engine, table: Table) -> int:
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def assert_sums(engine: Engine) -> None:
    """The sums by the hour and by the day are the sums of the rows."""
    for tally in (sum_tables.CALLS, sum_tables.CALLS_BY_DAY):
        assert_sum(engine, calls, tally, figures_of_call)
    for tally in (sum_tables.TRACES, sum_tables.TRACES_BY_DAY, sum_tables.TOTALS_BY_DAY, sum_tables.KEYS_BY_DAY):
        assert_sum(engine, traces, tally, figures_of_trace)
    assert_sum(engine, windows, sum_tables.HELD, figures_of_window)


def assert_sum(engine: Engine, table: Table, tally: SumTable, figures: Callable[[dict[str, Any]], Sequence[float]]) -> None:
    expected: dict[tuple[Any, ...], list[Sequence[float]]] = defaultdict(list)
    for row in rows_of(engine, table):
        begin = int(row["began_s"] // tally.span_s) * tally.span_s
        expected[begin, *(row[name] for name in tally.groups)].append(figures(row))
    found = {tuple(row[name] for name in (tally.at, *tally.groups)): row for row in rows_of(engine, tally.table)}
    assert found.keys() == expected.keys(), tally.table.name
    for key, rows in expected.items():
        for name, parts in zip(tally.values, zip(*rows, strict=True), strict=True):
            assert math.isclose(found[key][name], math.fsum(parts), rel_tol=1e-9, abs_tol=1e-12), (tally.table.name, key, name)
