"""A request belongs to the hour, day and month in which it began, with all its calls, everywhere the same."""

from datetime import UTC, datetime

import pytest
from made import call, rows_of, trace

from deployments.costs.report import report
from deployments.keys import key_store
from deployments.keys.admission import Keys
from deployments.ledger import budgets
from deployments.ledger.database import connect, migrate, writing
from deployments.ledger.rows import Rows, from_call, from_trace
from deployments.ledger.schema import budgets as budgets_table
from deployments.ledger.schema import daily, daily_keys, hourly
from deployments.ledger.writes import write
from router.config import Ledger, load_config
from router.limits.key_limits import Key
from router.limits.reservation import Size
from router.trace import AUDITS

pytestmark = pytest.mark.anyio
DAY = 86_400
MIDNIGHT = datetime(2026, 12, 1, tzinfo=UTC).timestamp()  # also a month's
BEGAN = MIDNIGHT - 2.0
NOW = MIDNIGHT + 3600.0


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def engine(tmp_path):
    made = connect(Ledger(url=f"sqlite:///{tmp_path / 'ledger.db'}"))
    migrate(made)
    yield made
    made.dispose()


def put(engine, rows: Rows) -> None:
    with writing(engine) as connection:
        write(connection, rows)


def crossing(key_id="key", audit_key=AUDITS) -> tuple[Rows, Rows]:
    """A request of two seconds before midnight: its last call and its audit begin after it."""
    calls = (call("t", 0, key_id=key_id, began_s=BEGAN), call("t", 1, key_id=key_id, began_s=MIDNIGHT + 1))
    asked = from_trace(trace("t", key_id=key_id, began_s=BEGAN, calls=calls))
    audit = call("t", 2, key_id=audit_key, role="audit", tier="large", began_s=MIDNIGHT + 600, cost_usd=4.0)
    return asked, Rows(calls=[from_call(audit)])


@pytest.mark.parametrize("together", [True, False])
def test_all_calls_of_a_request_are_in_the_sums_of_its_hour_and_day(engine, together):
    asked, audit = crossing()
    for rows in [Rows(asked.traces, asked.calls + audit.calls)] if together else [asked, audit]:
        put(engine, rows)
    assert {row["hour"] for row in rows_of(engine, hourly)} == {MIDNIGHT - 3600}
    assert {row["day"] for row in rows_of(engine, daily)} == {MIDNIGHT - DAY} == {r["day"] for r in rows_of(engine, daily_keys)}


def test_a_measurement_that_comes_late_is_added_to_the_same_hour(engine):
    asked, _ = crossing()
    put(engine, asked)
    put(engine, Rows(readings={"t/1": (3.0, 0.01)}))
    found = [(row["hour"], row["busy_s"]) for row in rows_of(engine, hourly)]
    assert found == [(MIDNIGHT - 3600, 3.0)]


def test_a_call_whose_request_is_not_known_keeps_its_own_hour(engine):
    put(engine, Rows(calls=[from_call(call("lost", began_s=MIDNIGHT + 1))]))
    assert [row["hour"] for row in rows_of(engine, hourly)] == [MIDNIGHT]


def test_the_page_shows_a_request_and_its_cost_on_one_day(engine):
    for rows in crossing():
        put(engine, rows)
    ladder = load_config("echo")
    first, second = (report(engine, ladder, at, at + DAY)["totals"] for at in (MIDNIGHT - DAY, MIDNIGHT))
    assert (first["requests"], first["calls"], first["cost_usd"], first["audits"]) == (1, 3, 4.5, 1)
    assert (second["requests"], second["calls"], second["cost_usd"], second["audits"]) == (0, 0, 0, 0)


@pytest.mark.parametrize("audit_key", [AUDITS, "the key's own, as older versions wrote it"])
def test_key_list_budget_and_page_agree_on_what_a_key_spent(engine, audit_key):
    key = key_store.create(engine, Key("", "bob", usd_per_day=10.0, usd_per_month=10.0), BEGAN)[0]
    for rows in crossing(key.id, AUDITS if audit_key == AUDITS else key.id):
        put(engine, rows)
    budgets.reserve(engine, "other", key, 1.0, BEGAN)
    spent = key_store.spent(engine, BEGAN)[key.id]
    booked = {row["period"]: row["spent_usd"] for row in rows_of(engine, budgets_table)}
    assert booked == {"2026-11-30": 0.5, "2026-11": 0.5} and (spent.day, spent.month, spent.held) == (0.5, 0.5, 1.0)
    if audit_key == AUDITS:
        by_key = {row["key"]: row["cost_usd"] for row in report(engine, load_config("echo"), BEGAN - 60, NOW)["by"]["key"]}
        assert by_key == {key.id: 0.5, AUDITS: 4.0}
    assert key.id not in key_store.spent(engine, NOW) or key_store.spent(engine, NOW)[key.id].day == 0


async def test_a_budget_is_that_of_the_day_in_which_the_request_began(engine):
    key = key_store.create(engine, Key("", "bob", usd_per_day=1.0), BEGAN)[0]
    keys = Keys(engine, clock=lambda: MIDNIGHT + 5)
    try:
        grant = await keys.admit(key, "t", Size(10, 10), 0.2, BEGAN)
        grant = await keys.exchange(grant, key, 0.4)
        await keys.settle(grant, 0.3, 20)
    finally:
        keys.close()
    assert [(row["period"], row["spent_usd"], row["reserved_usd"]) for row in rows_of(engine, budgets_table)] == [
        ("2026-11-30", 0.3, 0.0)
    ]
