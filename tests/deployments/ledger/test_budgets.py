"""Budgets on SQLite and on PostgreSQL: never overspent, by whatever number of tasks and processes, alive or dead."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from made import call, trace
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from deployments.keys import admission, key_store
from deployments.keys.admission import Keys
from deployments.ledger import budgets
from deployments.ledger.budgets import LEASE_S, settle_in
from deployments.ledger.database import connect, migrate, writing
from deployments.ledger.rows import Rows, from_call, from_trace
from deployments.ledger.schema import budgets as table
from deployments.ledger.schema import reservations
from deployments.ledger.writes import write
from router.config import Ledger
from router.errors import BudgetSpent, LedgerDown
from router.limits.key_limits import Key
from router.limits.reservation import Size

pytestmark = pytest.mark.anyio  # async tests run on asyncio
SIZE = Size(10, 10)
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()
SPENDER = Path(__file__).parent / "spender.py"


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def engine(url):
    made = connect(Ledger(url=url))
    migrate(made)
    yield made
    made.dispose()


def bob(engine, **limits) -> Key:
    return key_store.create(engine, Key("", "bob", **limits), NOON)[0]


class Clock:
    def __init__(self, now_s: float = NOON) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def door(engine, clock=None):
    made = Keys(engine, clock=clock or Clock())
    yield made
    if made.renewing:
        made.renewing.cancel()
    made.close()


def books(engine) -> dict[str, tuple[float, float]]:
    """Period -> (spent, set aside)."""
    with engine.connect() as connection:
        return {row.period: (round(row.spent_usd, 9), round(row.reserved_usd, 9)) for row in connection.execute(select(table))}


def held(engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(select(reservations.c.id).where(reservations.c.usd > 0)))


async def refused(admitting) -> BudgetSpent:
    with pytest.raises(BudgetSpent) as found:
        await admitting
    return found.value


# -- side by side ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("budget", [{"usd_per_day": 1.0}, {"usd_per_month": 1.0}, {"usd_per_day": 1.0, "usd_per_month": 50.0}])
async def test_of_64_side_by_side_ten_get_through_and_the_budget_holds(engine, budget):
    key = bob(engine, **budget)
    async with door(engine) as made:

        async def one(n):
            grant = await made.admit(key, f"t{n}", SIZE, 0.1)
            await asyncio.sleep(0.05)
            await made.settle(grant, 0.1, 20)

        done = await asyncio.gather(*map(one, range(64)), return_exceptions=True)
    assert sum(result is None for result in done) == 10
    assert {type(result) for result in done if result} == {BudgetSpent}
    assert set(books(engine).values()) == {(1.0, 0.0)} and not held(engine)


@pytest.mark.slow
async def test_what_was_not_spent_is_for_others(engine):
    key = bob(engine, usd_per_day=1.0)
    async with door(engine) as made:

        async def one(n):
            while True:
                try:
                    grant = await made.admit(key, f"t{n}", SIZE, 0.1)
                except BudgetSpent as full:
                    if full.retry_after_s > 60:  # not until tomorrow
                        return 0.0
                    await asyncio.sleep(0.02)
                    continue
                await made.settle(grant, 0.04, 20)
                return 0.04

        spent = sum(await asyncio.gather(*map(one, range(64))))
    assert spent == pytest.approx(books(engine)["2026-11-24"][0])
    assert 0.9 < spent <= 1.0


@contextmanager
def spenders(url, processes, requests, most_usd, spent_usd, how="settles"):
    """Processes of `spender.py`, at work. Killed at the end, as by `kill -9`."""
    numbers = map(str, (processes, requests, most_usd, spent_usd))
    command = [sys.executable, str(SPENDER), url, *numbers, how]
    group = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert group.stdout.readline() == "ready\n"
        group.stdin.write("go\n")
        group.stdin.flush()
        yield group
    finally:
        with suppress(ProcessLookupError):
            os.killpg(group.pid, signal.SIGKILL)
        group.communicate()


@pytest.mark.slow
def test_four_processes_of_sixteen_requests_share_one_budget(engine, url):
    bob(engine, usd_per_day=1.0, usd_per_month=1.0)
    with spenders(url, 4, 16, 0.1, 0.1) as group:
        passed = [name for _ in range(4) for name in json.loads(group.stdout.readline())]
        assert group.wait(60) == 0
    assert len(passed) == 10
    assert [spent for spent, _ in books(engine).values()] == [1.0, 1.0] and not held(engine)


@pytest.mark.slow
async def test_what_a_killed_process_held_is_given_back_and_what_it_wrote_down_is_counted(engine, url):
    key = bob(engine, usd_per_day=1.0)
    with spenders(url, 1, 16, 0.1, 0.1, "holds") as group:
        passed = json.loads(group.stdout.readline())
    assert len(passed) == 10
    began_s = datetime.now(UTC).timestamp()
    paid = trace(passed[0], key_id=key.id, calls=(call(passed[0], key_id=key.id, began_s=began_s, cost_usd=0.07),))
    with writing(engine) as connection:  # durable, but the process died before it settled
        write(connection, from_trace(paid))
    clock = Clock(began_s)
    async with door(engine, clock) as made:
        full = await refused(made.admit(key, "early", SIZE, 0.1))
        assert full.retry_after_s == budgets.IN_FLIGHT_S
        clock.now_s += LEASE_S + 10
        for n in range(9):
            await made.admit(key, f"late{n}", SIZE, 0.1)
        await refused(made.admit(key, "late9", SIZE, 0.1))
    day = datetime.fromtimestamp(began_s, UTC).strftime("%Y-%m-%d")
    assert books(engine)[day] == (0.07, 0.9)


# -- one after the other ---------------------------------------------------------------------------------------------------


async def test_an_error_says_how_much_is_left_and_until_when(engine):
    key = bob(engine, usd_per_day=1.0)
    async with door(engine) as made:
        grant = await made.admit(key, "a", SIZE, 0.8)
        in_flight = await refused(made.admit(key, "b", SIZE, 0.3))
        assert in_flight.retry_after_s == 5.0 and "in flight hold 0.8 USD" in str(in_flight)
        await made.settle(grant, 0.8, 20)
        spent = await refused(made.admit(key, "c", SIZE, 0.3))
        assert spent.retry_after_s == 12 * 3600 and "0.2 USD left" in str(spent)
        await made.admit(key, "d", SIZE, 0.2)


async def test_the_day_and_the_month_both_must_hold_it_or_neither_is_touched(engine):
    key = bob(engine, usd_per_day=5.0, usd_per_month=1.0)
    async with door(engine) as made:
        assert "a month" in str(await refused(made.admit(key, "a", SIZE, 2.0)))
        other = replace(key, usd_per_day=1.0, usd_per_month=5.0)
        assert "a day" in str(await refused(made.admit(other, "b", SIZE, 2.0)))
    assert all(place == (0.0, 0.0) for place in books(engine).values()) and not held(engine)


@pytest.mark.parametrize(
    "now, later, day, month",
    [("2026-11-24T23:59:59", 2.0, "2026-11-25", "2026-11"), ("2026-12-31T23:59:59", 2.0, "2027-01-01", "2027-01")],
)
async def test_a_new_day_is_a_new_budget_and_a_request_counts_where_it_began(engine, now, later, day, month):
    clock = Clock(datetime.fromisoformat(now).replace(tzinfo=UTC).timestamp())
    key = bob(engine, usd_per_day=1.0, usd_per_month=1.5)
    async with door(engine, clock) as made:
        grant = await made.admit(key, "a", SIZE, 1.0)
        full = await refused(made.admit(key, "b", SIZE, 0.5))
        assert full.retry_after_s == 5.0
        clock.now_s += later
        second = await made.admit(key, "c", SIZE, 0.5)
        await made.settle(grant, 0.9, 20)
        await made.settle(second, 0.5, 20)
        same_month = now[:7] == month
        assert books(engine)[now[:10]] == (0.9, 0.0)
        assert books(engine)[day] == (0.5, 0.0)
        assert books(engine)[month] == ((1.4 if same_month else 0.5), 0.0)
        if same_month:
            assert "a month" in str(await refused(made.admit(key, "d", SIZE, 0.2)))
        else:
            await made.admit(key, "d", SIZE, 0.2)


@pytest.mark.slow
async def test_a_period_begins_with_what_the_ledger_knows(engine):
    key = bob(engine, usd_per_month=1.0)
    calls = [call("old", n, key_id=key.id, began_s=NOON - n * 86_400, cost_usd=0.4) for n in (1, 2, 30)]  # the last in October
    with writing(engine) as connection:
        write(connection, Rows(calls=[from_call(c) for c in calls]))
    async with door(engine) as made:
        assert "0.2 USD left" in str(await refused(made.admit(key, "a", SIZE, 0.3)))
        await made.admit(key, "b", SIZE, 0.2)


async def test_settled_is_settled_once_whoever_does_it_and_how_often(engine):
    key = bob(engine, usd_per_day=1.0)
    async with door(engine) as made:
        grants = [await made.admit(key, f"t{n}", SIZE, 0.2) for n in range(3)]
        for _ in range(2):
            with writing(engine) as connection:
                settle_in(connection, {"t0": 0.1, "t1": 0.15, "unknown": 9.0})
        for grant in grants:
            await made.settle(grant, 0.1, 20)
            await made.settle(grant, 0.1, 20)
    assert books(engine)["2026-11-24"] == (0.35, 0.0)


async def test_rows_and_budget_are_written_together_or_not_at_all(engine):
    key = bob(engine, usd_per_day=1.0)
    async with door(engine) as made:
        await made.admit(key, "t", SIZE, 0.2)
        with pytest.raises(ZeroDivisionError), writing(engine) as connection:
            settle_in(connection, {"t": 0.1})
            raise ZeroDivisionError
    assert books(engine)["2026-11-24"] == (0.0, 0.2) and held(engine) == ["t"]


async def test_a_process_that_was_only_slow_still_pays(engine):
    clock, key = Clock(), bob(engine, usd_per_day=1.0)
    async with door(engine, clock) as made:
        grant = await made.admit(key, "slow", SIZE, 0.9)
        clock.now_s += LEASE_S + 1
        other = await made.admit(key, "other", SIZE, 0.5)
        await made.settle(grant, 0.9, 20)
        await made.settle(other, 0.1, 20)
    assert books(engine)["2026-11-24"] == (1.0, 0.0)


@pytest.mark.slow
async def test_a_request_that_takes_long_keeps_what_it_holds(engine, monkeypatch):
    monkeypatch.setattr(admission, "RENEW_S", 0.02)
    clock, key = Clock(), bob(engine, usd_per_day=1.0)
    async with door(engine, clock) as made:
        grant = await made.admit(key, "long", SIZE, 0.9)
        for _ in range(4):
            clock.now_s += LEASE_S / 2
            await asyncio.sleep(0.2)
        await refused(made.admit(key, "other", SIZE, 0.5))
        await made.settle(grant, 0.1, 20)
        await made.admit(key, "other", SIZE, 0.5)


async def test_a_client_that_leaves_while_it_waits_for_money_leaves_nothing_behind(engine, monkeypatch):
    key, settled, settle = bob(engine, usd_per_day=1.0, requests_per_minute=100), [], budgets.settle
    monkeypatch.setattr(budgets, "settle", lambda *given: settled.append(settle(*given)))
    async with door(engine) as made:
        asked = [asyncio.create_task(made.admit(key, f"t{n}", SIZE, 0.1)) for n in range(8)]
        await asyncio.sleep(0)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        async with asyncio.timeout(10):
            while len(settled) < 8:
                await asyncio.sleep(0.02)
        assert not made.rates.requests[key.id].used(0.0)
    assert books(engine)["2026-11-24"] == (0.0, 0.0)


async def test_a_client_that_leaves_while_more_is_set_aside_leaves_nothing_behind(engine, monkeypatch):
    key, reserve = bob(engine, usd_per_day=1.0), budgets.reserve
    began, over, ended = threading.Event(), threading.Event(), threading.Event()

    def slowly(*given):
        began.set()
        over.wait(10)  # its request is settled in another thread meanwhile
        reserve(*given)
        ended.set()

    async with door(engine) as made:
        grant = await made.admit(key, "t", SIZE, 0.1)
        monkeypatch.setattr(budgets, "reserve", slowly)
        moving = asyncio.create_task(made.exchange(grant, key, 0.5))
        await asyncio.to_thread(began.wait, 10)
        moving.cancel()
        await asyncio.gather(moving, return_exceptions=True)
        await made.settle(grant, 0.02, 20)
        over.set()
        assert await asyncio.to_thread(ended.wait, 10)
        async with asyncio.timeout(10):
            while held(engine):
                await asyncio.sleep(0.02)
    assert books(engine)["2026-11-24"][1] == 0.0


async def test_what_costs_nothing_asks_the_database_nothing(engine, monkeypatch):
    monkeypatch.setattr(budgets, "reserve", lambda *_: pytest.fail("asked"))
    async with door(engine) as made:
        for key, usd in ((bob(engine, usd_per_day=1.0), 0.0), (Key("k", "k", requests_per_minute=9), 5.0), (Key("n", "n"), 5.0)):
            await made.settle(await made.admit(key, "t", SIZE, usd), 0.0, 5)


async def test_a_budget_that_cannot_be_kept_is_not_spent_and_settling_never_fails(engine, monkeypatch):
    key = bob(engine, usd_per_day=1.0)

    def down(*_):
        raise OperationalError("select", {}, Exception("no route"))

    settle = budgets.settle
    monkeypatch.setattr(admission, "RENEW_S", 0.02)
    async with door(engine) as made:
        grant = await made.admit(key, "a", SIZE, 0.1)
        monkeypatch.setattr(budgets, "reserve", down)
        monkeypatch.setattr(budgets, "settle", down)
        with pytest.raises(LedgerDown, match="budgets cannot be kept"):
            await made.admit(key, "b", SIZE, 0.1)
        await made.settle(grant, 0.07, 20)
        await made.admit(Key("free", "free"), "c", SIZE, 0.1)
        assert books(engine)["2026-11-24"] == (0.0, 0.1)
        monkeypatch.setattr(budgets, "settle", settle)  # the database is back
        async with asyncio.timeout(10):
            while held(engine):
                await asyncio.sleep(0.02)
    assert books(engine)["2026-11-24"] == (0.07, 0.0)


@pytest.mark.slow
async def test_sums_of_many_small_parts_do_not_drift_over_the_budget(engine):
    key = bob(engine, usd_per_day=0.1)
    async with door(engine) as made:
        for n in range(100):
            await made.settle(await made.admit(key, f"t{n}", SIZE, 0.001), 0.001, 1)
        full = await refused(made.admit(key, "t", SIZE, 0.0001))
        assert "0 USD left" in str(full)
    assert books(engine)["2026-11-24"] == (0.1, 0.0)


async def test_a_process_that_starts_takes_from_the_ledger_what_a_power_cut_took_from_the_budget(engine):
    key = bob(engine, usd_per_day=1.0)
    async with door(engine) as made:
        await made.settle(await made.admit(key, "before", SIZE, 0.5), 0.1, 20)
    with writing(engine) as connection:
        write(connection, Rows(calls=[from_call(call("lost", key_id=key.id, began_s=NOON, cost_usd=0.8))]))
    async with door(engine) as made:
        assert "0.2 USD left" in str(await refused(made.admit(key, "after", SIZE, 0.3)))


async def test_only_budgets_do_not_wait_for_the_disk(engine):
    if engine.dialect.name == "sqlite":
        pragma = "PRAGMA synchronous"
        for each, mode in ((engine, 2), (budgets.unsynced(engine), 1)):  # FULL, NORMAL
            with each.connect() as connection:
                assert connection.exec_driver_sql(pragma).scalar() == mode
    else:
        for opened, mode in ((writing, "on"), (budgets.writing_unsynced, "off")):
            with opened(engine) as connection:
                assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == mode
