"""What made-up traces come to, to the last token, without Ray."""

import asyncio
from collections import defaultdict

import pytest

from deployments.ledger.database import connect, migrate
from deployments.ledger.rows import from_trace, together
from deployments.ledger.writes import write
from deployments.monitoring import sampler
from deployments.monitoring.measures import METRICS
from deployments.monitoring.metrics import MOST_VALUES, Few, Metrics, Total, overhead_s, status_class, target_class
from router.config import Config, Ledger
from router.trace import CallRow, Trace, Window

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 2, "usd_per_accelerator_hour": 3.6}
TIERS = Config.model_validate(
    {
        "tiers": [
            {"name": "small", "engine": "echo", "context": 200, "price": PRICE},
            {
                "name": "large",
                "engine": "vllm",
                "source": "x",
                "tensor_parallel": 2,
                "accelerator": "H100",
                "context": 900,
                "price": PRICE | {"usd_per_accelerator_hour": 7.2},
            },
        ]
    }
).tiers


class Fake:
    """A metric of Ray's that remembers, and refuses what Ray's refuses."""

    def __init__(self, name, measure):
        self.name, self.measure, self.values = name, measure, defaultdict(float)
        self.seen = defaultdict(list)

    def at(self, tags):
        assert tuple(tags) == self.measure.tags, self.name
        assert all(isinstance(value, str) and value for value in tags.values()), (self.name, tags)
        return tuple(tags.values())

    def inc(self, value, tags):
        assert self.measure.kind == "counter" and value > 0
        self.values[self.at(tags)] += value

    def set(self, value, tags):
        assert self.measure.kind == "gauge"
        self.values[self.at(tags)] = value

    def observe(self, value, tags):
        assert self.measure.kind == "histogram"
        self.seen[self.at(tags)].append(value)


def call(n=0, tier="small", **other):
    given = {
        "role": "attempt",
        "outcome": "accepted",
        "began_s": 100.0 + n,
        "took_s": 0.5,
        "input_tokens": 10,
        "output_tokens": 4,
        "cached_tokens": 3,
        "cost_usd": 0.25,
    }
    return CallRow(**{"id": f"t/{n}", "trace_id": "t", "key_id": "k", "tier": tier, **given, **other})


def trace(*calls, **other):
    given = {
        "id": "t",
        "key_id": "k",
        "began_s": 100.0,
        "took_s": 2.0,
        "path": "chat/completions",
        "wanted": "auto",
        "status": 200,
        "tier": "small",
        "target": "balanced",
        "reason": "good enough",
        "flow": "cascade",
        "confidence": 0.75,
        "decision_ms": 1.0,
        "counterfactual_usd": 3.0,
        "first_byte_s": 0.2,
    }
    return Trace(**{**given, "calls": calls or (call(),), **other})


@pytest.fixture
def metrics():
    return Metrics(TIERS, Fake)


def values(metrics, name):
    metrics.flush()
    return dict(metrics.made[f"stepdown_{name}"].values)


def test_a_request_counts_once_and_each_of_its_calls(metrics):
    rejected = call(0, outcome="low confidence", first_token_s=0.1)
    for _ in range(3):
        metrics.record(trace(rejected, call(1, "large", role="attempt", input_tokens=20, cost_usd=1.0), tier="large"))
    assert values(metrics, "requests") == {("large", "good enough", "2xx"): 3}
    assert values(metrics, "calls") == {("small", "attempt", "low confidence"): 3, ("large", "attempt", "accepted"): 3}
    assert values(metrics, "input_tokens") == {("small", "attempt"): 30, ("large", "attempt"): 60}
    assert values(metrics, "cached_tokens") == {("small", "attempt"): 9, ("large", "attempt"): 9}
    assert values(metrics, "output_tokens") == {("small", "attempt"): 12, ("large", "attempt"): 12}
    assert values(metrics, "cost_usd") == {("small", "attempt"): 0.75, ("large", "attempt"): 3.0}
    assert values(metrics, "escalations") == {("small", "low confidence"): 3}
    assert values(metrics, "counterfactual_usd") == {("yes",): 9.0}
    assert values(metrics, "compared_usd") == {("yes",): 3.75}
    assert metrics.made["stepdown_confidence"].seen == {("large",): [0.75] * 3}
    assert metrics.made["stepdown_first_byte_seconds"].seen == {("large",): [0.2] * 3}


def test_what_is_not_known_is_not_counted(metrics):
    metrics.record(trace(call(), confidence=None, counterfactual_usd=None, first_byte_s=None, status=499, tier=""))
    assert values(metrics, "requests") == {("none", "good enough", "left"): 1}
    assert not values(metrics, "counterfactual_usd") and not values(metrics, "accelerator_busy_seconds")
    assert not metrics.made["stepdown_confidence"].seen and not metrics.made["stepdown_first_byte_seconds"].seen


def test_accelerator_time_counts_every_accelerator_of_the_replica(metrics):
    metrics.record(trace(call(0, "large", busy_s=2.0), call(1, "small", busy_s=1.0)))
    metrics.late("large", {"x/0": 0.5})
    metrics.held([Window("large", 0, 10, 1.5, 2, 7.2), Window("small", 0, 10, 1, 1)])
    assert values(metrics, "accelerator_busy_seconds") == {("large",): 5.0, ("small",): 1.0}
    assert values(metrics, "accelerator_busy_usd") == pytest.approx({("large",): 0.01, ("small",): 0.001})
    assert values(metrics, "accelerator_held_seconds") == {("large",): 30.0, ("small",): 10.0}
    assert values(metrics, "accelerator_held_usd") == pytest.approx({("large",): 0.06})
    assert values(metrics, "replicas") == {("large",): 1.5, ("small",): 1.0}


@pytest.mark.parametrize(
    "calls, seconds",
    [
        ([(100.0, 0.0)], 2.001),
        ([(100.0, 1.0)], 1.001),
        ([(100.0, 1.0), (100.5, 1.0)], 0.501),  # side by side: once
        ([(100.0, 1.0), (100.2, 0.2)], 1.001),  # one within the other
        ([(100.0, 0.5), (101.0, 0.5)], 1.001),
        ([(100.0, 9.0)], 0.0),  # never below nothing
    ],
)
def test_overhead_is_the_time_no_tier_works(calls, seconds):
    found = trace(*(call(n, began_s=began, took_s=took) for n, (began, took) in enumerate(calls)))
    assert overhead_s(found) == pytest.approx(seconds)


def test_delegation_tells_whether_parts_went_down(metrics):
    metrics.record(trace(call(0, "large", role="plan"), call(1, role="subtask"), flow="delegation"))
    metrics.record(trace(call(0, "large", role="plan"), flow="delegation"))
    metrics.record(trace(flow="direct"))
    assert values(metrics, "delegations") == {("delegation", "handed down"): 1, ("delegation", "not worth it"): 1}


def test_what_was_kept_to_learn_from_counts_once(metrics):
    metrics.learning(2, {"full": 1})
    metrics.learning(5, {"full": 1, "redaction": 3})
    metrics.learning(5, {"full": 1, "redaction": 3})
    metrics.flush()
    assert metrics.made["stepdown_learning_kept"].values == {(): 5}
    assert metrics.made["stepdown_learning_dropped"].values == {("full",): 1, ("redaction",): 3}


def test_an_audit_is_weighed_by_its_own_chance_or_its_targets_mean(metrics):
    metrics.audited("quality", False, 0.9)
    metrics.record(trace(confidence=0.5))
    metrics.record(trace(confidence=1.0))
    metrics.audited("balanced", True)
    assert values(metrics, "audits") == {("quality", "agrees"): 1, ("balanced", "differs"): 1}
    assert values(metrics, "audited_chance") == {("quality",): 0.9, ("balanced",): 0.75}


def test_states_are_one_of_all(metrics):
    metrics.certificates({"balanced": "valid", "0.97": "none"})
    metrics.certificates({"balanced": "retired"})
    metrics.ledger("spooling", 7)
    held = {tags for tags, value in values(metrics, "certificate").items() if value}
    assert held == {("balanced", "retired"), ("a chance", "none")}
    assert values(metrics, "ledger") == {("ok",): 0, ("spooling",): 1, ("down",): 0}
    assert values(metrics, "ledger_spooled") == {(): 7}


def test_tags_stay_few(metrics):
    for n in range(500):
        metrics.record(trace(call(outcome=f"error {n}"), target=f"0.{n}", reason=f"r{n}"))
        metrics.budget(f"key{n}", n / 500)
    assert len(values(metrics, "calls")) <= MOST_VALUES + 1 and len(values(metrics, "requests")) <= MOST_VALUES + 1
    assert sum(values(metrics, "calls").values()) == 500
    assert len(values(metrics, "budget_used")) == 51
    assert {target for target, *_ in values(metrics, "routed")} == {"a chance"}


def test_few_keeps_the_first():
    few = Few(2)
    assert [few(v) for v in ("a", "b", "c", "a", "")] == ["a", "b", "other", "a", "none"]


@pytest.mark.parametrize("status, shown", [(200, "2xx"), (429, "4xx"), (503, "5xx"), (499, "left")])
def test_status_classes(status, shown):
    assert status_class(status) == shown


@pytest.mark.parametrize("target, shown", [("cheap", "cheap"), ("0.97", "a chance"), ("large", "a tier"), ("", "none")])
def test_target_classes(target, shown):
    assert target_class(target) == shown


def test_goes_out_within_a_second_and_at_the_end(monkeypatch):
    monkeypatch.setattr("deployments.monitoring.metrics.FLUSH_S", 0.01)

    async def run():
        metrics = Metrics(TIERS, Fake)
        metrics.record(trace())
        await asyncio.sleep(0.1)
        early = dict(metrics.made["stepdown_calls"].values)
        metrics.record(trace())
        await metrics.close()
        return early, dict(metrics.made["stepdown_calls"].values), metrics.timer

    early, late, timer = asyncio.run(run())
    assert (sum(early.values()), sum(late.values()), timer) == (1, 2, None)


def test_every_metric_is_well_formed():
    for name, measure in METRICS.items():
        assert name.startswith("stepdown_") and measure.help and not name.endswith("_total")
        assert bool(measure.buckets) == (measure.kind == "histogram")
        assert list(measure.buckets) == sorted(set(measure.buckets)) and all(b > 0 for b in measure.buckets)
        assert not {"deployment", "replica", "application", "route", "le"} & set(measure.tags)


def test_the_ledgers_totals_are_those_of_the_traces(tmp_path, metrics):
    engine = connect(Ledger(url=f"sqlite:///{tmp_path}/l.db"))
    migrate(engine)
    audit = {"role": "audit", "cost_usd": 0.5}
    told = [
        trace(call(0, id=f"{n}/0"), call(1, "large", id=f"{n}/1", **audit), id=f"{n}", counterfactual_usd=9.0) for n in range(3)
    ]
    with engine.begin() as connection:
        write(connection, together(map(from_trace, told)))
    found = sampler.totals(engine)
    compared = sum(t.cost_usd for t in told)
    assert found == [
        Total("large", 3, 30, 12, 9, 1.5, 1.5),
        Total("small", 3, 30, 12, 9, 0.75, 0.0, requests=3, counterfactual_usd=27.0, compared_usd=compared),
    ]
    metrics.totals(found)
    assert values(metrics, "ledger_tokens")["small", "input"] == 30
    assert values(metrics, "ledger_counterfactual_usd") == {("large",): 0.0, ("small",): 27.0}
