"""Everything that a request is checked against and written into: keys and budgets, ledger, metrics."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from deployments.endpoint.shared_audits import SharedAudits
from deployments.keys.admission import Grant, Keys
from deployments.learning.kept.collected import Collecting
from deployments.learning.kept.collector import Collector
from deployments.ledger.held_time import HeldTime, Running, last_windows, note_hosts
from deployments.ledger.ledger import Ledger
from deployments.monitoring.metrics import Metrics
from deployments.monitoring.sampler import Sampler
from deployments.monitoring.telemetry import Telemetry
from router.config import Tier
from router.costs import counterfactual, prices
from router.decide.promises import Promises
from router.limits.key_limits import Key
from router.trace import CallRow, Trace, Window
from router.types import Request

log = logging.getLogger("stepdown")
STORED = "x-stepdown-stored"  # header: whether an answer is kept


@dataclass
class Accounts:
    """Without a ledger nothing is written down, without metrics nothing is counted, as in tests and the echo demo."""

    keys: Keys
    ledger: Ledger | None = None
    metrics: Metrics | None = None
    telemetry: Telemetry | None = None
    """exports by OpenTelemetry; None: the environment asks for none"""
    tiers: Mapping[str, Tier] = field(default_factory=dict)
    """cheapest first"""
    lengths: counterfactual.Lengths = field(default_factory=counterfactual.Lengths)
    running: set["asyncio.Task[Any]"] = field(default_factory=set)

    replicas_of: Running | None = None
    """how many replicas of a tier run; None: no tier has accelerator time of its own"""
    sampler: Sampler | None = None
    held_time: HeldTime | None = None
    audits: SharedAudits | None = None
    collector: Collector | None = None
    """keeps what is served, where it may be kept"""
    models: dict[str, str] = field(default_factory=dict)
    """tier -> fingerprint of its model"""

    async def open(self, promises: Callable[[], Promises], others: Callable[[], Iterable[Promises]] = lambda: ()) -> None:
        """promises: of the router that decides; others: of further ones that may."""
        if self.ledger:
            await self.ledger.open()
            self.audits = SharedAudits(self.ledger, promises, others)
            await self.audits.open()
        if self.collector:
            await self.collector.open()
        if self.ledger and self.replicas_of:
            ours = [tier for tier in self.tiers.values() if tier.local and tier.runs_on == tier.name]
            last = await asyncio.to_thread(last_windows, self.ledger.engine)
            hosts = {tier.name: tier.runs_on for tier in self.tiers.values()}
            noted = partial(note_hosts, self.ledger.engine, hosts)
            self.held_time = HeldTime(ours, self.replicas_of, self.held, last=last, note_hosts=noted)
            self.held_time.start()
        if self.metrics:
            counts = self.collector.counts if self.collector else None
            self.sampler = Sampler(self.metrics, promises, self.ledger, learning=counts)
            self.sampler.start()

    async def close(self) -> None:
        """Finish what was begun, then close ledger, metrics and keys."""
        if self.running:
            await asyncio.wait(self.running, timeout=10)
        if self.held_time:
            await self.held_time.close()
        if self.audits:
            await self.audits.close()
        if self.metrics and self.sampler:
            await self.sampler.stop()
            await self.metrics.close()
        if self.telemetry:
            await asyncio.to_thread(self.telemetry.close)
        if self.collector:
            await self.collector.close()
        if self.ledger:
            await self.ledger.close()
        self.keys.close()

    def check(self) -> None:
        """Refuse a request that could not be written down. Raises LedgerDown."""
        if self.ledger:
            self.ledger.check()

    def keeps(self, *what: str) -> bool:
        """Whether the ledger stores one of these: `prompts`, `all`."""
        return self.ledger is not None and self.ledger.settings.store in what

    async def finish(self, trace: Trace, grant: Grant | None) -> None:
        """Write a request down durably and settle its budget. Raises LedgerDown; the budget is settled all the same."""
        try:
            if self.ledger:
                await self.ledger.record(trace, now=grant is not None)
            if self.metrics:
                self.metrics.record(trace)
            if self.telemetry:
                self.telemetry.record(trace)
        finally:
            if grant:
                tokens = sum(call.input_tokens + call.output_tokens for call in trace.calls)
                await self.keys.settle(grant, trace.cost_usd, tokens)

    async def add(self, call: CallRow) -> None:
        """Write down a call that was made after the answer: an audit."""
        if self.ledger:
            await self.ledger.add([call])
        if self.metrics:
            self.metrics.called(call)

    def collect(self, key: Key, trace_id: str, asked: Request, conversation: str) -> tuple[Collecting | None, dict[str, str]]:
        """Where to gather a request that is to be kept, and the header that says whether it is."""
        if self.collector is None:
            return None, {STORED: "no; operator"} if asked.store else {}
        collecting, stored = self.collector.begin(key, trace_id, asked, conversation)
        return collecting, {STORED: stored} if stored else {}

    def learning(self) -> dict[str, Any]:
        """What was kept since the start, for the status page."""
        if self.collector is None:
            return {"collect": "off", "kept": 0, "dropped": {}}
        counts = self.collector.counts
        return {"collect": self.collector.settings.collect, "kept": counts.kept, "dropped": dict(+counts.dropped)}

    async def share_audits(self) -> None:
        """Let the other ingresses and the next start know what an audit found. Without a ledger only this process knows."""
        if self.audits:
            await self.audits.share()

    def refresh(self, promises: Promises) -> None:
        """Let new promises, of a reload, know what audits have found. Blocks; for a thread."""
        if self.audits:
            self.audits.exchange(promises)

    def later(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run this although the request is over."""
        task = asyncio.get_running_loop().create_task(work)
        self.running.add(task)
        task.add_done_callback(self.ended)

    def ended(self, task: "asyncio.Task[Any]") -> None:
        self.running.discard(task)
        if not task.cancelled() and task.exception():
            log.error("work after a request failed", exc_info=task.exception())

    def late(self, tier: str, busy: Mapping[str, float]) -> None:
        """Book measurements of cancelled calls, which replicas send with a later call's. busy: call id -> seconds."""
        if self.ledger:
            found = {call: (busy_s, prices.gpu_usd(busy_s, self.tiers[tier])) for call, busy_s in busy.items()}
            self.later(self.ledger.readings(found))
        if self.metrics:
            self.metrics.late(tier, busy)

    async def held(self, windows: Sequence[Window]) -> None:
        if self.ledger:
            await self.ledger.held(windows)
        if self.metrics:
            self.metrics.held(windows)


def without_books(key_hash: str = "") -> Accounts:
    """Accounts that keep nothing. key_hash: of the only key; empty: every client is let in."""
    return Accounts(Keys(None, key_hash, insecure=not key_hash))
