"""What is written, and that it is written and summed once."""

import asyncio
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from made import BEGAN_S, assert_sums, call, count, opened, rows_of, trace

from deployments.ledger.database import connect, migrate, writing
from deployments.ledger.rows import Rows, from_call, from_line, from_trace, together
from deployments.ledger.schema import calls, hourly, hourly_traces, metadata, traces, windows
from deployments.ledger.writes import write
from router import config
from router.trace import Window


def test_a_trace_and_its_calls_are_kept_whole(url: str) -> None:
    async def go() -> None:
        async with opened(url) as ledger:
            await ledger.record(trace("t1", n_calls=2, tier="large", p={"small": 0.5, "large": 0.99}))
            (row,) = rows_of(ledger.engine, traces)
            assert (row["id"], row["tier"], row["p"], row["stream"]) == ("t1", "large", '{"small": 0.5, "large": 0.99}', False)
            assert row["cost_usd"] == 0.5
            assert [row["id"] for row in rows_of(ledger.engine, calls)] == ["t1/0", "t1/1"]
            assert_sums(ledger.engine)

    asyncio.run(go())


def test_rows_are_kept_and_summed_once(url: str) -> None:
    async def go() -> None:
        async with opened(url) as ledger:
            await asyncio.gather(*(ledger.record(trace("t1")) for _ in range(20)))
            await ledger.record(trace("t1", n_calls=1))
            (summed,) = rows_of(ledger.engine, hourly)
            assert (summed["calls"], summed["input_tokens"], summed["cost_usd"]) == (1, 100, 0.25)
            (summed,) = rows_of(ledger.engine, hourly_traces)
            assert (summed["requests"], summed["failed"], summed["confident"]) == (1, 0, 1)

    asyncio.run(go())


def test_audits_come_after_their_trace(url: str) -> None:
    async def go() -> None:
        async with opened(url) as ledger:
            await ledger.record(trace("t1"))
            for _ in range(2):
                await ledger.add([call("t1", 7, role="audit", tier="large")])
            assert sorted(row["role"] for row in rows_of(ledger.engine, hourly)) == ["answer", "audit"]
            assert rows_of(ledger.engine, traces)[0]["cost_usd"] == 0.25
            assert_sums(ledger.engine)

    asyncio.run(go())


def test_failed_requests_and_unknown_counterfactuals_are_told_apart(url: str) -> None:
    async def go() -> None:
        async with opened(url) as ledger:
            await ledger.record(trace("t1", status=499))
            await ledger.record(trace("t2", counterfactual_usd=None, confidence=None))
            (summed,) = rows_of(ledger.engine, hourly_traces)
            assert (summed["requests"], summed["failed"], summed["confident"]) == (2, 1, 1)
            assert (summed["cost_usd"], summed["cost_all_usd"], summed["counterfactual_usd"]) == (0.25, 0.5, 1.0)

    asyncio.run(go())


def test_a_reading_fills_in_what_was_not_measured_and_the_hour_follows(url: str) -> None:
    async def go() -> None:
        async with opened(url) as ledger:
            await ledger.record(trace("t1", calls=(call("t1", 0), call("t1", 1, busy_s=9.0, gpu_usd=9.0))))
            for busy in ((2.0, 0.5), (3.0, None)):
                await ledger.readings({"t1/0": busy, "t1/1": busy})
            assert sorted((row["busy_s"], row["gpu_usd"]) for row in rows_of(ledger.engine, calls)) == [(2.0, 0.5), (9.0, 9.0)]
            assert [(row["calls"], row["busy_s"], row["gpu_usd"]) for row in rows_of(ledger.engine, hourly)] == [(2, 11.0, 9.5)]

    asyncio.run(go())


def test_a_reading_waits_for_its_call(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.ledger.ledger.LATE_RETRY_S", 0.0)

    async def go() -> None:
        async with opened(url) as ledger, opened(url) as other:
            await ledger.readings({"t1/0": (2.0, 0.5), "t2/0": (3.0, None)})
            await ledger.record(trace("t1"))
            assert rows_of(ledger.engine, calls)[0]["busy_s"] == 2.0
            await other.record(trace("t2"))
            await ledger.record(trace("t3"))
            await ledger.record(trace("t4"))  # the writer tidies after each group
            assert {row["id"]: row["busy_s"] for row in rows_of(ledger.engine, calls)}["t2/0"] == 3.0
            assert not ledger.store.late.waiting
            assert_sums(ledger.engine)

    asyncio.run(go())


def test_a_reading_whose_call_never_comes_is_dropped_after_a_while(tmp_path: Any) -> None:
    from deployments.ledger.late_measurements import LATE_MAX, LATE_S, LateMeasurements

    now = [0.0]
    late = LateMeasurements(lambda: now[0])
    late.settle({"a": (1.0, None)}, {"a"})
    now[0] = LATE_S + 1
    late.settle({f"b{n}": (1.0, None) for n in range(LATE_MAX + 5)}, {f"b{n}" for n in range(LATE_MAX + 5)})
    assert "a" not in late.waiting and "b0" not in late.waiting
    assert (len(late.waiting), late.dropped) == (LATE_MAX, 6)


def test_the_first_report_of_a_window_is_kept(url: str) -> None:
    async def go() -> None:
        async with opened(url) as ledger:
            await ledger.held(
                [Window("small", 1_764_000_000.0, 60.0, 2.0, 1, 3.0), Window("large", 1_764_000_000.0, 60.0, 1.0, 8)]
            )
            await ledger.held([Window("small", 1_764_000_000.0, 60.0, 5.0, 1, 3.0)])
            assert sorted((row["tier"], row["replicas"]) for row in rows_of(ledger.engine, windows)) == [
                ("large", 1.0),
                ("small", 2.0),
            ]

    asyncio.run(go())


NASTY = st.sampled_from(["", "plain", "\0", "half \ud800", "\udfff\ud800", "\ud83d\ude00", "\U0001f600" * 200, "long " * 99])
FIGURE = st.one_of(st.none(), st.floats(0, 10), st.sampled_from([math.nan, math.inf, -math.inf]))
IDS = st.integers(0, 5).map(lambda n: f"t{n}")
# Of requests that are in no row: their calls count at their own time. Those of others: tests/deployments/ledger/test_midnight.py
LONE = st.integers(0, 5).map(lambda n: f"l{n}")
HOURS = st.sampled_from([BEGAN_S, BEGAN_S + 3599.9, BEGAN_S + 3600, 0.5])
CALLS = st.builds(
    call,
    LONE,
    st.integers(0, 2),
    tier=st.sampled_from(["small", "large"]),
    role=st.sampled_from(["answer", "audit"]),
    began_s=HOURS,
    input_tokens=st.integers(0, 2**40),
    cost_usd=st.floats(0, 10),
    busy_s=FIGURE,
    gpu_usd=FIGURE,
    outcome=NASTY,
)
TRACES = st.builds(
    trace,
    IDS,
    began_s=HOURS,
    status=st.sampled_from([200, 404, 499]),
    confidence=FIGURE,
    counterfactual_usd=FIGURE,
    wanted=NASTY,
    prompt=NASTY,
    error=NASTY,
    calls=st.lists(CALLS, max_size=3).map(tuple),
)
READINGS = st.dictionaries(
    st.tuples(LONE, st.integers(0, 2)).map("{0[0]}/{0[1]}".format),
    st.tuples(st.floats(0, 9), st.one_of(st.none(), st.floats(0, 9))),
)
PARTS = st.one_of(
    TRACES.map(from_trace), CALLS.map(lambda made: Rows(calls=[from_call(made)])), READINGS.map(lambda made: Rows(readings=made))
)


@pytest.mark.slow
def test_sums_are_the_sums_of_the_rows_whatever_is_written_in_whatever_order(url: str) -> None:
    engine = connect(config.Ledger(url=url))
    migrate(engine)

    @settings(max_examples=40, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.lists(st.lists(PARTS, min_size=1, max_size=4), min_size=1, max_size=4))
    def holds(groups: list[list[Rows]]) -> None:
        with writing(engine) as connection:
            for table in metadata.tables.values():
                connection.execute(table.delete())
        for group in groups:
            with writing(engine) as connection:
                write(connection, from_line(together(group).line()))
        assert count(engine, calls) == len({row["id"] for group in groups for part in group for row in part.calls})
        assert_sums(engine)

    holds()
    engine.dispose()
