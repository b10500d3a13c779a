"""Counts what happened, as metrics. A request only adds to dicts here; once a second a thread of its own hands the sums to Ray.

A request's figures come from its trace alone, and each trace is recorded once, after the ledger has it. A killed process loses
its last second and whatever Ray had not yet collected; the `stepdown_ledger_*` gauges come from the ledger's sums and stay exact.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployments.monitoring.measures import METRICS, Measure
from router.config import Tier
from router.costs import counterfactual, prices
from router.decide.targets import TARGETS, as_chance
from router.trace import CallRow, Trace, Window

FLUSH_S = 1.0
# Ray gets observations one by one, and the thread that hands them over pauses in between.
PAUSE_S = 0.002
FEWEST_AT_ONCE = 25
MOST_PAUSES = 200
# Values that a tag may have; later ones become `other`.
MOST_VALUES = 32
MOST_KEYS = 50
NONE = "none"
OTHER = "other"
NO_ESCALATION = ("accepted", "answered", "not needed", "cancelled", "")  # outcomes of attempts that did not lead to a larger tier
CERTIFICATES = ("valid", "stale", "retired", "infeasible", NONE)
LEDGER_STATES = ("ok", "spooling", "down")
Series = tuple[str, tuple[str, ...]]
"""(metric, values of its tags in their order)"""
Pending = tuple[dict[Series, float], dict[Series, list[float]], dict[Series, float]]
"""what was added to counters, observed by histograms, and set on gauges"""


def ray_metric(name: str, measure: Measure) -> Any:
    """The metric as Ray Serve exports it. To be called on a replica, whose name Ray adds as a tag."""
    from ray.serve import metrics

    tags: Any = measure.tags  # Ray takes any number; its annotation says one
    if measure.kind == "histogram":
        return metrics.Histogram(name, measure.help, list(measure.buckets), tags)
    kinds = {"counter": metrics.Counter, "gauge": metrics.Gauge}
    return kinds[measure.kind](name, measure.help, tags)


LEDGER_FIGURES = (
    "calls",
    "requests",
    "cost_usd",
    "audit_usd",
    "learning_usd",
    "counterfactual_usd",
    "compared_usd",
    "saving_usd",
)


class Few:
    """Limits a tag's values: keeps the first `most` different ones, turns later ones into `other`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.seen: dict[str, str] = {"": NONE}

    def __call__(self, value: str) -> str:
        if value not in self.seen:
            if len(self.seen) > self.most:
                return OTHER
            self.seen[value] = value
        return self.seen[value]


@dataclass(frozen=True, slots=True)
class Total:
    """The ledger's sums for one tier.

    Calls are those to the tier, requests those it answered; requests that no tier answered belong to the tier named "".
    """

    tier: str
    calls: float = 0
    input_tokens: float = 0
    output_tokens: float = 0
    cached_tokens: float = 0
    cost_usd: float = 0.0
    audit_usd: float = 0.0
    learning_usd: float = 0.0
    requests: float = 0
    counterfactual_usd: float = 0.0
    compared_usd: float = 0.0

    @property
    def saving_usd(self) -> float:
        """As on the cost page. Audits and calls to learn from count for the tier that was called, so the largest tier's saving is
        mostly negative.
        """
        return counterfactual.saving(self.counterfactual_usd, self.compared_usd, self.audit_usd, self.learning_usd)


class Metrics:
    """Collects figures and hands them to Ray.

    tiers: cheapest first. make: builds one metric, an object with inc, observe or set.
    """

    def __init__(self, tiers: Sequence[Tier], make: Callable[[str, Measure], Any] = ray_metric) -> None:
        self.tiers = {tier.name: tier for tier in tiers}
        self.made = {name: make(name, measure) for name, measure in METRICS.items()}
        self.few = {tag: Few(MOST_KEYS if tag == "key" else MOST_VALUES) for measure in METRICS.values() for tag in measure.tags}
        self.added: dict[Series, float] = {}
        self.observed: dict[Series, list[float]] = {}
        self.levels: dict[Series, float] = {}
        self.chances: dict[str, tuple[float, int]] = {}
        """target -> sum and number of the chances of its requests"""
        self.learned: Counter[str] = Counter()
        """what was counted of requests that are kept to learn from; empty: kept; else why they were not"""
        self.timer: asyncio.TimerHandle | None = None
        self.pushing: asyncio.Future[None] | None = None

    # -- what is reported ------------------------------------------------------------------------------------------

    def record(self, trace: Trace) -> None:
        """Count a finished request. To be called once for each."""
        target, flow, tier = target_class(trace.target), self.few["flow"](trace.flow), self.few["tier"](trace.tier)
        self.add("stepdown_requests", 1, tier, self.few["reason"](trace.reason), status_class(trace.status))
        self.add("stepdown_routed", 1, target, flow, self.few["certificate"](trace.certificate))
        if trace.flow != "service":  # nothing was decided
            self.observe("stepdown_decision_seconds", trace.decision_ms / 1e3)
        self.observe("stepdown_overhead_seconds", overhead_s(trace), flow)
        self.observe("stepdown_request_seconds", trace.took_s, tier)
        if trace.first_byte_s is not None:
            self.observe("stepdown_first_byte_seconds", trace.first_byte_s, tier)
        if trace.confidence is not None:
            self.observe("stepdown_confidence", trace.confidence, tier)
            total, n = self.chances.get(target, (0.0, 0))
            self.chances[target] = (total + trace.confidence, n + 1)
        if trace.flow in ("delegation", "tools"):
            handed = any(call.role == "subtask" for call in trace.calls)
            self.add("stepdown_delegations", 1, flow, "handed down" if handed else "not worth it")
        if trace.counterfactual_usd is not None:
            estimated = "yes" if trace.counterfactual_estimated else "no"
            self.add("stepdown_counterfactual_usd", trace.counterfactual_usd, estimated)
            self.add("stepdown_compared_usd", trace.cost_usd, estimated)
        for call in trace.calls:
            self.called(call)

    def called(self, call: CallRow) -> None:
        """Count one call: of a trace, from `record`, or an audit, which comes after the answer."""
        tier, role, outcome = self.few["tier"](call.tier), self.few["role"](call.role), self.few["outcome"](call.outcome)
        self.add("stepdown_calls", 1, tier, role, outcome)
        self.add("stepdown_input_tokens", call.input_tokens, tier, role)
        self.add("stepdown_output_tokens", call.output_tokens, tier, role)
        self.add("stepdown_cached_tokens", call.cached_tokens, tier, role)
        self.add("stepdown_cost_usd", call.cost_usd, tier, role)
        self.observe("stepdown_call_seconds", call.took_s, tier)
        if call.first_token_s is not None:
            self.observe("stepdown_first_token_seconds", call.first_token_s, tier)
        if call.role == "attempt" and call.outcome not in NO_ESCALATION:
            self.add("stepdown_escalations", 1, tier, outcome)
        if call.busy_s is not None:
            self.busy(call.tier, call.busy_s)

    def late(self, tier: str, busy: Mapping[str, float]) -> None:
        """Add measurements of calls that were counted without one. busy: call id -> seconds of the replica's time."""
        for busy_s in busy.values():
            self.busy(tier, busy_s)

    def busy(self, tier: str, busy_s: float) -> None:
        known, tag = self.tiers.get(tier), self.few["tier"](tier)
        self.add("stepdown_accelerator_busy_seconds", busy_s * max(1, known.accelerators if known else 1), tag)
        self.add("stepdown_accelerator_busy_usd", (prices.gpu_usd(busy_s, known) if known else None) or 0.0, tag)

    def held(self, windows: Iterable[Window]) -> None:
        """Add accelerator time held. Every replica of the ingress may report all of it, so queries take the largest."""
        for window in windows:
            tier = self.few["tier"](window.tier)
            price = (window.usd_per_accelerator_hour or 0.0) / 3600
            self.add("stepdown_accelerator_held_seconds", window.accelerator_s, tier)
            self.add("stepdown_accelerator_held_usd", window.accelerator_s * price, tier)
            self.set_level("stepdown_replicas", window.replicas, tier)

    def audited(self, target: str, differs: bool, chance: float | None = None) -> None:
        """Count an accepted answer that was compared with the top tier's.

        chance: the one given to that answer; None: the mean over its target's requests so far stands for it.
        """
        target = target_class(target)
        if chance is None:
            total, n = self.chances.get(target, (0.0, 0))
            chance = total / n if n else 0.0
        self.add("stepdown_audits", 1, target, "differs" if differs else "agrees")
        self.add("stepdown_audited_chance", chance, target)

    def certificates(self, states: Mapping[str, str]) -> None:
        """states: target -> the state of its certificate."""
        for target, state in states.items():
            self.set_state("stepdown_certificate", CERTIFICATES, state, target_class(target))

    def budget(self, key_id: str, share: float) -> None:
        """share: spent of the key's tightest budget, 0 and up."""
        self.set_level("stepdown_budget_used", share, self.few["key"](key_id))

    def ledger(self, state: str, spooled: int) -> None:
        """state: one of LEDGER_STATES. spooled: rows that wait in the spool."""
        self.set_state("stepdown_ledger", LEDGER_STATES, state)
        self.set_level("stepdown_ledger_spooled", spooled)

    def learning(self, kept: int, dropped: Mapping[str, int]) -> None:
        """Totals since the start of requests that were kept to learn from, and of those that were not, by why."""
        found = Counter({"": kept, **dropped})
        self.add("stepdown_learning_kept", kept - self.learned[""])
        for why, count in dropped.items():
            self.add("stepdown_learning_dropped", count - self.learned[why], self.few["why"](why))
        self.learned = found

    def totals(self, totals: Iterable[Total]) -> None:
        for total in totals:
            tier = self.few["tier"](total.tier)
            for kind in ("input", "output", "cached"):
                self.set_level("stepdown_ledger_tokens", getattr(total, f"{kind}_tokens"), tier, kind)
            for name in LEDGER_FIGURES:
                self.set_level(f"stepdown_ledger_{name}", getattr(total, name), tier)

    # -- what waits to be handed to Ray ----------------------------------------------------------------------------

    def add(self, name: str, value: float, *tags: str) -> None:
        if value > 0:  # Ray refuses other values
            series = (name, tags)
            self.added[series] = self.added.get(series, 0) + value
            self.schedule()

    def observe(self, name: str, value: float, *tags: str) -> None:
        self.observed.setdefault((name, tags), []).append(max(0.0, value))
        self.schedule()

    def set_level(self, name: str, value: float, *tags: str) -> None:
        self.levels[name, tags] = value
        self.schedule()

    def set_state(self, name: str, states: Sequence[str], state: str, *tags: str) -> None:
        for known in states:
            self.set_level(name, float(known == (state or NONE)), *tags, known)

    def schedule(self) -> None:
        """Hand the figures over within a second. Without an event loop, `flush` does."""
        if self.timer is None:
            try:
                self.timer = asyncio.get_running_loop().call_later(FLUSH_S, self.send)
            except RuntimeError:
                return

    def send(self) -> None:
        """Hand the figures over in a thread: a busy second has thousands of observations, a few microseconds each.

        The thread pauses in between, because it holds Python's lock, which requests need.
        """
        self.timer = None
        self.pushing = asyncio.get_running_loop().run_in_executor(None, self.push, self.take(), PAUSE_S)

    def take(self) -> Pending:
        taken = self.added, self.observed, self.levels
        self.added, self.observed, self.levels = {}, {}, {}
        return taken

    def push(self, pending: Pending, pause_s: float = 0.0) -> None:
        added, observed, levels = pending
        for (name, tags), value in added.items():
            self.made[name].inc(value, tag_values(name, tags))
        for (name, tags), value in levels.items():
            self.made[name].set(value, tag_values(name, tags))
        at_once = max(FEWEST_AT_ONCE, sum(map(len, observed.values())) // MOST_PAUSES)
        for (name, tags), values in observed.items():
            named, metric = tag_values(name, tags), self.made[name]
            for n, value in enumerate(values, 1):
                metric.observe(value, named)
                if pause_s and n % at_once == 0:
                    time.sleep(pause_s)

    def flush(self) -> None:
        """Hand everything over now."""
        self.push(self.take())

    async def close(self) -> None:
        """Hand over what is left before the process ends."""
        if self.timer:
            self.timer.cancel()
            self.timer = None
        if self.pushing:
            await self.pushing
        self.flush()


# -- figures and tags of a trace ---------------------------------------------------------------------------------------------


def tag_values(name: str, tags: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(METRICS[name].tags, tags, strict=True))


def status_class(status: int) -> str:
    """`2xx`, ...; 499 is `left`: the client closed its connection."""
    return "left" if status == 499 else f"{status // 100}xx"


def target_class(target: str) -> str:
    """A target with a name of its own as it is; any number is `a chance`, any tier asked for by name `a tier`."""
    if target in TARGETS:
        return target
    if as_chance(target) is not None:
        return "a chance"
    return "a tier" if target else NONE


def overhead_s(trace: Trace) -> float:
    """Time to decide, and every moment after it at which no call of the request was under way.

    Parallel calls count once. Reading the body and the ledger's commit are not part of a trace, so they are not counted here.
    """
    end, covered = trace.began_s, 0.0
    for began, ended in sorted((call.began_s, call.began_s + call.took_s) for call in trace.calls):
        covered += max(0.0, ended - max(began, end))
        end = max(end, ended)
    return max(0.0, trace.decision_ms / 1e3 + trace.took_s - covered)
