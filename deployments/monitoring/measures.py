"""What is counted, as data. Ray exports each as `ray_<name>`, counters with `_total`, histograms with `_bucket`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
Unit = Literal["requests", "calls", "tokens", "usd", "s", "chance", "replicas", "rows", "state", "share"]


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric."""

    kind: Kind
    unit: Unit
    help: str
    tags: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """upper bounds, rising, each above 0; of histograms only"""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What Prometheus adds to the name."""
        return {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}[self.kind]


FAST_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0015, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
SLOW_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0)
CHANCES = tuple(round(n / 20, 2) for n in range(1, 21))


def counter(unit: Unit, help: str, *tags: str) -> Measure:
    return Measure("counter", unit, help, tags)


def gauge(unit: Unit, help: str, *tags: str) -> Measure:
    return Measure("gauge", unit, help, tags)


def histogram(unit: Unit, help: str, buckets: tuple[float, ...], *tags: str) -> Measure:
    return Measure("histogram", unit, help, tags, buckets)


REQUESTS: Mapping[str, Measure] = {
    "stepdown_requests": counter("requests", "Requests by answering tier, reason and status class", "tier", "reason", "status"),
    "stepdown_routed": counter("requests", "Requests by target, flow and certificate", "target", "flow", "certificate"),
    "stepdown_delegations": counter(
        "requests", "Requests that delegation or tools handled, by whether parts went down", "flow", "outcome"
    ),
    "stepdown_decision_seconds": histogram("s", "Time to decide", FAST_S),
    "stepdown_overhead_seconds": histogram("s", "Time of a request during which no tier worked on it", FAST_S, "flow"),
    "stepdown_first_byte_seconds": histogram("s", "Request to first content byte sent", SLOW_S, "tier"),
    "stepdown_request_seconds": histogram("s", "Whole request", SLOW_S, "tier"),
    "stepdown_confidence": histogram("chance", "Chance of the tier taken, as decided", CHANCES, "tier"),
}

CALLS: Mapping[str, Measure] = {
    "stepdown_calls": counter("calls", "Calls to tiers, rejected and cancelled ones too", "tier", "role", "outcome"),
    "stepdown_escalations": counter("calls", "Answers of a smaller tier that were not accepted", "tier", "reason"),
    "stepdown_first_token_seconds": histogram("s", "Call to the tier's first token", SLOW_S, "tier"),
    "stepdown_call_seconds": histogram("s", "Whole call", SLOW_S, "tier"),
    "stepdown_input_tokens": counter("tokens", "Prompt tokens, cached ones too", "tier", "role"),
    "stepdown_cached_tokens": counter("tokens", "Prompt tokens that were in the prefix cache", "tier", "role"),
    "stepdown_output_tokens": counter("tokens", "Tokens of answers", "tier", "role"),
}

MONEY: Mapping[str, Measure] = {
    "stepdown_cost_usd": counter("usd", "Calls by token price", "tier", "role"),
    "stepdown_counterfactual_usd": counter("usd", "The same requests on the top tier alone, where that can be told", "estimated"),
    "stepdown_compared_usd": counter("usd", "Token price of the requests whose counterfactual is known", "estimated"),
    "stepdown_budget_used": gauge(
        "share", "Share of a key's tightest budget that is spent; keys beyond the first are one", "key"
    ),
}

MACHINES: Mapping[str, Measure] = {
    "stepdown_replicas": gauge("replicas", "Replicas of a tier that run", "tier"),
    "stepdown_accelerator_busy_seconds": counter("s", "Accelerator-seconds that calls used", "tier"),
    "stepdown_accelerator_held_seconds": counter("s", "Accelerator-seconds that a tier held, used or not", "tier"),
    "stepdown_accelerator_busy_usd": counter("usd", "Used accelerator time at its hourly price", "tier"),
    "stepdown_accelerator_held_usd": counter("usd", "Held accelerator time at its hourly price", "tier"),
}

TRUST: Mapping[str, Measure] = {
    "stepdown_audits": counter("calls", "Accepted answers compared with the top tier's", "target", "outcome"),
    "stepdown_audited_chance": counter("chance", "Sum of the chances given to the audited answers", "target"),
    "stepdown_certificate": gauge("state", "1 for the state that a target's certificate is in, else 0", "target", "state"),
    "stepdown_ledger": gauge("state", "1 for the state that the ledger is in, else 0", "state"),
    "stepdown_ledger_spooled": gauge("rows", "Rows in the spool, not yet in the ledger's database"),
}

# Of the whole ledger, not of one process: read from its sums, so they outlive a process that is killed. All but
# the saving only grow. Every replica of the ingress tells the same, so queries take the largest.
LEDGER: Mapping[str, Measure] = {
    "stepdown_ledger_tokens": gauge(
        "tokens", "Tokens in the ledger since its beginning; cached ones are among input's", "tier", "kind"
    ),
    "stepdown_ledger_calls": gauge("calls", "Calls in the ledger", "tier"),
    "stepdown_ledger_requests": gauge("requests", "Requests in the ledger by answering tier", "tier"),
    "stepdown_ledger_cost_usd": gauge("usd", "Token price of all calls in the ledger", "tier"),
    "stepdown_ledger_audit_usd": gauge("usd", "That of audits alone", "tier"),
    "stepdown_ledger_counterfactual_usd": gauge(
        "usd", "Requests in the ledger on the top tier alone, where that can be told, by answering tier", "tier"
    ),
    "stepdown_ledger_compared_usd": gauge("usd", "Token price of the same requests as they were served", "tier"),
    "stepdown_ledger_saving_usd": gauge("usd", "Counterfactual less compared less audits: saved", "tier"),
}

METRICS: Mapping[str, Measure] = {**REQUESTS, **CALLS, **MONEY, **MACHINES, **TRUST, **LEDGER}


def exported() -> dict[str, Measure]:
    """Every name as Prometheus has it -> its metric."""
    return {f"ray_{name}{suffix}": measure for name, measure in METRICS.items() for suffix in measure.suffixes}
