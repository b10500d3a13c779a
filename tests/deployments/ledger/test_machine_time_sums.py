"""Closed books say what counting anew says, late rows open them, and merged windows hold what they held."""

import asyncio
import random
import time
from typing import Any

import pytest
from made import assert_sums, call, count, opened, rows_of, until
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from deployments.ledger import held_time, machine_time_sums
from deployments.ledger.database import connect, migrate, writing
from deployments.ledger.rows import Rows, from_call, from_window
from deployments.ledger.schema import closed_days, daily_machines, windows
from deployments.ledger.store import Store
from deployments.ledger.upkeep import Upkeep
from deployments.ledger.writes import write
from router import config
from router.trace import Window

DAY = int(time.time() // 86400 - 5) * 86400  # a day that is over
EVERY_S = 60


@pytest.fixture
def engine(url: str) -> Any:
    engine = connect(config.Ledger(url=url))
    migrate(engine)
    yield engine
    engine.dispose()


def put(engine: Engine, **rows: Any) -> None:
    with writing(engine) as connection:
        write(connection, Rows(**rows))


def held(since: int, until: int, replicas: float = 2.0, tier: str = "small", **other: Any) -> list[dict[str, Any]]:
    given = {"accelerators": 4, "usd_per_accelerator_hour": 3.0, **other}
    return [from_window(Window(tier, at, EVERY_S, replicas, **given)) for at in range(since, until, EVERY_S)]


def used(n: int, began_s: float, busy_s: float = 100.0, key: str = "a", **other: Any) -> dict[str, Any]:
    return from_call(call(f"t{n}", began_s=began_s, busy_s=busy_s, gpu_usd=0.1, **{"key_id": key, **other}))


def a_day(engine: Engine) -> None:
    """Two keys on one tier, hours in which nobody came, one hour that was used beyond what was held, another tier."""
    dice = random.Random(4)
    some = [used(n, DAY + dice.randrange(0, 20) * 3600, 700 * dice.random(), dice.choice("ab")) for n in range(60)]
    put(
        engine,
        windows=held(DAY, DAY + 86400) + held(DAY, DAY + 7200, tier="large", accelerators=8, usd_per_accelerator_hour=None),
    )
    put(engine, calls=[*some, used(99, DAY + 3600, 50_000)])


def shown(engine: Engine) -> list[dict[str, Any]]:
    return sorted(rows_of(engine, daily_machines), key=lambda row: (row["day"], row["tier"], row["key_id"]))


def anew(engine: Engine, day: int = DAY) -> dict[tuple[str, str], list[float]]:
    sums: dict[tuple[str, str], list[float]] = {}
    with engine.connect() as connection:
        for line in machine_time_sums.lines(connection, day, day + 86400):
            total = sums.setdefault((line.tier, line.group), [0.0] * len(machine_time_sums.MACHINE))
            for n, value in enumerate(machine_time_sums.parts(line).values()):
                total[n] += value
    return sums


def close(engine: Engine, day: int = DAY) -> None:
    with writing(engine) as connection:
        machine_time_sums.close_day(connection, day)


def test_closed_books_are_what_counting_anew_gives_and_add_up_to_what_was_held(engine: Engine) -> None:
    a_day(engine)
    for _ in range(2):
        close(engine)
    rows, wanted = shown(engine), anew(engine)
    assert [(row["tier"], row["key_id"]) for row in rows] == sorted(wanted)
    for row in rows:
        assert [row[name] for name in machine_time_sums.MACHINE] == pytest.approx(wanted[row["tier"], row["key_id"]])
    seconds = sum(row[name] for row in rows for name in ("busy_s", "idle_s", "nobody_s", "over_s"))
    assert seconds == pytest.approx(86400 * 2 * 4 + 7200 * 2 * 8)
    assert sum(row[name] for row in rows for name in ("busy_usd", "idle_usd", "nobody_usd", "over_usd")) == pytest.approx(24 * 24)
    assert {row["key_id"] for row in rows} >= {"a", "b", "", "(beyond what was held)"}


@pytest.mark.parametrize(
    "late",
    [
        {"calls": [used(200, DAY + 60)]},
        {"windows": held(DAY + 7200, DAY + 7260, tier="large")},
        {"readings": {"bare/0": (9.0, 1.0)}},
    ],
    ids=["a call", "a window", "a reading"],
)
def test_what_comes_late_opens_its_day_again(engine: Engine, late: dict[str, Any]) -> None:
    a_day(engine)
    put(engine, calls=[from_call(call("bare", began_s=DAY + 5.0))])
    for day in (DAY - 86400, DAY):
        close(engine, day)
    put(engine, **late)
    assert [row["day"] for row in rows_of(engine, closed_days)] == [DAY - 86400] and not shown(engine)
    with engine.connect() as connection:
        assert machine_time_sums.closable(connection, time.time()) == [DAY]


def test_a_row_that_is_there_already_opens_nothing(engine: Engine) -> None:
    a_day(engine)
    close(engine)
    put(engine, calls=[used(99, DAY + 3600, 50_000)], windows=held(DAY, DAY + 60))
    assert count(engine, closed_days) == 1 and shown(engine)


def test_a_day_is_not_closed_before_it_is_over(engine: Engine) -> None:
    put(engine, calls=[used(1, DAY + 60)])
    with engine.connect() as connection:
        assert machine_time_sums.closable(connection, DAY + 86400 + 3599) == []
        assert machine_time_sums.closable(connection, DAY + 86400 + 3600) == [DAY]


def test_merged_windows_hold_what_they_held_to_the_second(engine: Engine) -> None:
    """A gap, a change of price and one of size stay: each is a row of its own."""
    dice = random.Random(2)
    some = [row | {"replicas": dice.choice([0.5, 1.0, 3.0])} for row in held(DAY, DAY + 7200)]
    gap = [row for row in some if not DAY + 600 <= row["began_s"] < DAY + 1200]
    dear = held(DAY + 7200, DAY + 9000) + held(DAY + 9000, DAY + 10800, usd_per_accelerator_hour=5.0)
    free = held(DAY, DAY + 3600, tier="large", usd_per_accelerator_hour=None)
    put(engine, windows=gap + dear + free)
    before = anew(engine)
    merge_all(engine)
    merged = sorted((row["tier"], row["began_s"] - DAY, row["seconds"]) for row in rows_of(engine, windows))
    small = [(0, 600), (1200, 2400), (3600, 3600), (7200, 1800), (9000, 1800)]
    assert merged == [("large", 0, 3600), *(("small", *run) for run in small)]
    assert_sums(engine)
    assert anew(engine) == before
    merge_all(engine)
    assert count(engine, windows) == len(merged)


def merge_all(engine: Engine) -> None:
    hours: list[int] = []
    since: int | None = 0
    while since is not None:
        with engine.connect() as connection:
            more, since = machine_time_sums.mergeable(connection, since, time.time())
        hours += more
    for hour in hours:
        with writing(engine) as connection:
            machine_time_sums.merge(connection, hour)


def test_a_window_that_is_told_again_after_it_was_merged_counts_once(engine: Engine) -> None:
    rows = held(DAY, DAY + 3600)
    put(engine, windows=rows[:10] + rows[20:])
    merge_all(engine)
    put(engine, windows=rows[:30])  # ten of them are news
    assert_sums(engine)
    assert sum(row["seconds"] for row in rows_of(engine, windows)) == 3600
    merge_all(engine)
    assert [row["seconds"] for row in rows_of(engine, windows)] == [3600]


def test_windows_of_the_last_day_are_left_as_they_are(engine: Engine) -> None:
    now = int(time.time() // 3600 * 3600)
    put(engine, windows=held(now - 7200, now))
    merge_all(engine)
    assert count(engine, windows) == 120


@pytest.mark.slow
def test_the_bookkeeper_closes_merges_and_then_rests(url: str) -> None:
    store = Store(config.Ledger(url=url))
    store.start()
    a_day(store.engine)
    keeper = Upkeep(store)
    steps = 0
    while keeper.step():
        steps += 1
    assert steps < 40
    assert count(store.engine, windows) == 26 and count(store.engine, closed_days) == 1
    assert_sums(store.engine)
    put(store.engine, calls=[used(300, DAY + 60)])
    assert keeper.step() and not keeper.step()
    store.engine.dispose()


@pytest.mark.slow
def test_a_running_ledger_keeps_its_books(url: str, engine: Engine) -> None:
    a_day(engine)

    async def go() -> None:
        async with opened(url):
            await until(lambda: count(engine, windows) == 26 and count(engine, closed_days) == 1)

    asyncio.run(go())


def test_calls_of_an_hour_without_windows_are_counted_by_the_tiers_usual_accelerators(engine: Engine) -> None:
    put(engine, windows=held(DAY, DAY + 3600), calls=[used(1, DAY + 7200, 10.0)])
    assert anew(engine)["small", "a"][0] == 40.0


def test_a_rungs_calls_use_their_hosts_time_which_is_held_once(engine):
    put(engine, windows=held(DAY, DAY + 3600))
    calls = [used(1, DAY, 600, "a"), used(2, DAY, 300, "a", tier="mail"), used(3, DAY, 100, "b", tier="sql")]
    put(engine, calls=[*calls, used(4, DAY + 3600, 50, "a", tier="mail")])
    assert held_time.note_hosts(engine, {"small": "small", "mail": "small", "sql": "small"})
    with engine.connect() as connection:
        lines = machine_time_sums.lines(connection, DAY, DAY + 3600)
    assert {(line.tier, line.group, line.busy_s) for line in lines} == {("small", "a", 3600.0), ("small", "b", 400.0)}
    assert sum(line.seconds for line in lines) == pytest.approx(2 * 4 * 3600)
    assert sum(line.usd for line in lines) == pytest.approx(2 * 4 * 3.0)
    with engine.connect() as connection:  # an hour in which nothing was held: the host's accelerators, the calls' own price
        (later,) = machine_time_sums.lines(connection, DAY + 3600, DAY + 7200)[:1]
    assert (later.tier, later.busy_s) == ("small", 200.0)


def test_hours_in_which_it_had_replicas_of_its_own_stay_its_own(engine):
    put(engine, windows=held(DAY, DAY + 3600) + held(DAY, DAY + 3600, tier="mail"), calls=[used(1, DAY, 10, tier="mail")])
    assert held_time.note_hosts(engine, {"small": "small", "mail": "small"})
    with engine.connect() as connection:
        lines = machine_time_sums.lines(connection, DAY, DAY + 3600)
    assert {(line.tier, line.group) for line in lines} == {("small", ""), ("mail", "a")}


def test_the_hosts_are_those_of_the_last_start(engine):
    def known() -> dict[str, str]:
        with engine.connect() as connection:
            return machine_time_sums.hosts(connection)

    assert held_time.note_hosts(engine, {"small": "small", "mail": "small"}) and known() == {"mail": "small"}
    assert held_time.note_hosts(engine, {"other": "other", "sql": "other"}) and known() == {"mail": "small", "sql": "other"}
    assert held_time.note_hosts(engine, {"small": "small", "mail": "mail"}) and known() == {"sql": "other"}


def test_a_ledger_that_does_not_answer_is_asked_again(engine, monkeypatch):
    def down(*_: Any) -> Any:
        raise OperationalError("select", {}, Exception("gone"))

    monkeypatch.setattr(held_time, "writing", down)
    assert not held_time.note_hosts(engine, {"small": "small", "mail": "small"})
