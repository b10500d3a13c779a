"""Old rows go, sums stay."""

import asyncio

import pytest
from made import BEGAN_S, count, opened, rows_of, trace, until

from deployments.ledger import retention
from deployments.ledger.database import connect, migrate, writing
from deployments.ledger.retention import Retention, size_bytes
from deployments.ledger.rows import from_trace, together
from deployments.ledger.schema import calls, hourly, hourly_traces, traces
from deployments.ledger.writes import write
from router import config


def filled(url: str, n: int, size: int = 10) -> config.Ledger:
    settings = config.Ledger(url=url)
    engine = connect(settings)
    migrate(engine)
    with writing(engine) as connection:
        write(connection, together(from_trace(trace(f"t{i:04d}", began_s=BEGAN_S + i, prompt="x" * size)) for i in range(n)))
    engine.dispose()
    return settings


def test_old_rows_go_in_small_batches_and_sums_stay(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 7)
    settings = filled(url, 40).model_copy(update={"keep_days": 1.0})
    engine, keeper = connect(settings), Retention(settings, lambda: BEGAN_S + 86400 + 25)
    sums = rows_of(engine, hourly), rows_of(engine, hourly_traces)
    keeper.look(engine)
    left = [count(engine, traces)]
    while keeper.step(engine):
        left.append(count(engine, traces))
    assert left[:5] == [40, 33, 26, 19, 15]
    assert count(engine, traces) == 15
    assert min(row["id"] for row in rows_of(engine, traces)) == "t0025"
    assert (rows_of(engine, hourly), rows_of(engine, hourly_traces)) == sums
    engine.dispose()


def test_the_oldest_go_when_rows_take_too_much(url: str) -> None:
    settings = filled(url, 400, size=4000)
    engine = connect(settings)
    with engine.connect() as connection:
        size = size_bytes(connection)
    keeper = Retention(settings.model_copy(update={"keep_days": None, "keep_bytes": int(size / 2)}))
    for _ in range(2):
        keeper.look(engine)
        while keeper.step(engine):
            pass
    left = sorted(row["id"] for row in rows_of(engine, traces))
    assert 120 < len(left) < 280
    assert left[-1] == "t0399" and left[0] == f"t{400 - len(left):04d}"
    engine.dispose()


def test_the_writer_deletes_while_it_writes(url: str) -> None:
    async def go() -> None:
        async with opened(url, keep_days=0.001) as ledger:
            await ledger.record(trace("t1"))
            ledger.look_for_old_rows()
            await until(lambda: count(ledger.engine, traces) == count(ledger.engine, calls) == 0)
            await ledger.record(trace("t2"))
            assert [row["requests"] for row in rows_of(ledger.engine, hourly_traces)] == [2]

    asyncio.run(go())
