"""What the metrics are told without a request: the ledger's sums are the ledger's, a budget's share is of the tightest."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert

from deployments.ledger.ledger import Ledger
from deployments.ledger.schema import budgets, keys
from deployments.monitoring.metrics import Metrics
from deployments.monitoring.sampler import Sampler, totals, used_of_budgets
from router.config import Escalation
from router.config import Ledger as Settings
from router.decide.promises import Promises
from router.trace import CallRow, Trace


class Told:
    """A metric that keeps what it was set to."""

    def __init__(self, name, measure):
        self.values = {}

    def set(self, value, tags):
        self.values[tuple(tags.values())] = value

    def inc(self, value, tags):
        self.values[tuple(tags.values())] = self.values.get(tuple(tags.values()), 0) + value

    observe = set


def trace(name: str, tier: str, *roles: str) -> Trace:
    rows = tuple(
        CallRow(f"{name}/{i}", name, "k", role, tier, "answered", 1e9, 1.0, 10, 5, cost_usd=0.5) for i, role in enumerate(roles)
    )
    return Trace(name, "k", 1e9, 1.0, "chat/completions", "auto", 200, tier, counterfactual_usd=2.0, calls=rows)


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(Settings(journal_s=0, url=f"sqlite:///{tmp_path / 'ledger.db'}"))

    async def filled() -> None:
        await made.open()
        await made.record(trace("a", "small", "attempt", "audit"))
        await made.add([replace(trace("a", "small", "judge").calls[0], id="a/judge")])
        await made.record(trace("b", "large", "final"))
        await made.close()

    asyncio.run(filled())
    return made


def test_the_sums_are_those_of_the_rows(ledger):
    large, small = totals(ledger.engine)
    assert (small.calls, small.input_tokens, small.output_tokens, small.cost_usd, small.audit_usd) == (3, 30, 15, 1.5, 0.5)
    assert small.learning_usd == 0.5 and small.saving_usd == 2.0 - 1.0 - 0.5 - 0.5
    assert (large.requests, large.counterfactual_usd, large.compared_usd) == (1, 2.0, 0.5)


def test_a_sample_reports_certificates_ledger_and_sums(ledger):
    metrics, settings = Metrics([], Told), Escalation()
    asyncio.run(Sampler(metrics, lambda: Promises(None, settings, {}), ledger).sample())
    metrics.flush()
    assert metrics.made["stepdown_ledger_calls"].values == {("small",): 3, ("large",): 1}
    assert metrics.made["stepdown_ledger_tokens"].values["small", "input"] == 30
    assert sum(metrics.made["stepdown_ledger"].values.values()) == 1


def test_a_budget_is_used_as_far_as_its_tightest_period(ledger):
    now = datetime.now(UTC)
    limits = {"usd_per_day": 10.0, "usd_per_month": 20.0, "rights": "[]"}
    with ledger.engine.begin() as connection:
        connection.execute(insert(keys).values(id="k", name="k", hash="h", created_s=0.0, **limits))
        for period, spent in ((f"{now:%Y-%m-%d}", 1.0), (f"{now:%Y-%m}", 15.0)):
            connection.execute(insert(budgets).values(key_id="k", period=period, spent_usd=spent, reserved_usd=0.0))
    assert used_of_budgets(ledger.engine) == {"k": pytest.approx(0.75)}


def test_a_database_that_does_not_answer_stops_no_sample(ledger, tmp_path):
    for file in tmp_path.glob("ledger.db*"):
        file.unlink()
    metrics, settings = Metrics([], Told), Escalation()
    asyncio.run(Sampler(metrics, lambda: Promises(None, settings, {}), ledger).sample())
    metrics.flush()
    assert metrics.made["stepdown_ledger_calls"].values == {}
