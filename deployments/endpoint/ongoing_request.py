"""One request under way: a record of each call, and at its end, once, the trace that the ledger keeps."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployments.beside_loop import by_size
from deployments.endpoint.accounts import Accounts
from deployments.endpoint.draining import Draining
from deployments.endpoint.received import LONG, Received
from deployments.endpoint.spoken.writer import CHAT, Writer
from deployments.ids import current
from deployments.keys.admission import Grant
from deployments.learning.kept.collected import Collecting, Said
from deployments.traffic import hedged_call
from deployments.traffic.watched_tier import Watched
from router.cascade.other_tiers import another_may_answer
from router.config import Server, Tier
from router.costs import counterfactual
from router.costs.counterfactual import ANSWERED_WHOLE
from router.decide import coverage
from router.errors import DeadlineExceeded, RequestFailed, ServerStopping, WindowExceeded
from router.limits.key_limits import Key
from router.request import wire
from router.request.body import answer_limit
from router.request.thoughts import split
from router.request.token_bounds import Reader, text_length, text_tokens, within_window
from router.trace import AUDITS, CallRow, FlowKind, Reading, Trace
from router.types import Call, Decision, Request, Usage

LEFT = 499  # the client closed its connection before the answer was whole


@dataclass(slots=True)
class CallRecord:
    """One call to a tier, as `usage.stepdown` and the ledger report it."""

    call: Call
    began_s: float
    """seconds since the request"""
    usage: Usage = Usage()
    took_s: float = 0.0
    first_token_s: float | None = None
    """seconds since the call began"""
    outcome: str = ""
    estimated: bool = False
    """the tier gave no usage: tokens are counted with its tokenizer"""
    missed: str = ""
    """code of the error for which another tier, or a later call, had to answer; `outcome` may say it in the flow's own words"""
    reading: Reading = field(default_factory=Reading)
    received: Received = field(default_factory=Received)
    ended: bool = False
    """it ended, so that tokens which the tier did not report are counted"""
    said: Said | None = None
    """what it said, whole, if that is to be kept"""

    @property
    def uncounted(self) -> bool:
        """Whether its tokens have to be counted, because its tier reported none."""
        return self.ended and not self.estimated and self.usage == Usage()

    def failed(self, error: RequestFailed) -> None:
        self.outcome = error.outcome
        self.missed = error.code if another_may_answer(error) and not isinstance(error, WindowExceeded) else ""

    def cost_usd(self, prices: Sequence[float]) -> float:
        """Token price; of a call that was sent to two replicas, of both."""
        return hedged_call.cost_usd(self.usage, prices, self.reading)

    def as_json(self, prices: Sequence[float]) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "id": self.call.id,
            "role": self.call.role,
            "tier": self.call.tier,
            "prompt_tokens": self.usage.input_tokens,
            "completion_tokens": self.usage.output_tokens,
            "cost_usd": self.cost_usd(prices),
            "latency_ms": round(self.took_s * 1e3, 1),
            "outcome": self.outcome,
        }
        return shown | ({"estimated": True} if self.estimated else {})


@dataclass(slots=True)
class OngoingRequest:
    """One request from its decision to its end. Whoever makes its calls fills `records`."""

    accounts: Accounts
    key: Key
    asked: Request
    decided: Decision
    tiers: Mapping[str, Tier]
    prices: Mapping[str, Sequence[float]]
    counts: Mapping[str, Callable[[str], int]]
    decision_ms: float = 0.0
    id: str = field(default_factory=current)
    at_s: float = field(default_factory=time.time)
    began: float = field(default_factory=time.monotonic)
    records: dict[str, CallRecord] = field(default_factory=dict)
    flow: FlowKind = "direct"
    """the kind chosen, or what that has turned into"""
    grant: Grant | None = None
    first_byte_s: float | None = None
    tier: str = ""
    """the tier whose answer the client gets"""
    degraded: bool = False
    """a smaller tier's answer was given since no larger tier could answer"""
    departed: bool = False
    """see `Commit.departed`"""
    router: str = ""
    """digest of the artefact that decided; empty: none did"""
    handles: Mapping[str, Watched] = field(default_factory=dict)
    """the tiers that answer it, to its end"""
    models: Mapping[str, str] = field(default_factory=dict)
    """fingerprints of those that run on other weights than the main application's"""
    collecting: Collecting | None = None
    """what is gathered to be kept; None: it may not be"""
    server: Server = Server()
    draining: Draining = field(default_factory=Draining)
    writer: Writer = CHAT
    """writes the answer as the client's protocol has it"""
    spoken: str = ""
    """the client's protocol, where it is not OpenAI's chat or completions"""
    answer: list[str] = field(default_factory=list)
    """its text, as the tier has it: a thought may stand before it"""
    thought: str = ""
    """what the model thought before it, of a flow's answer"""
    done: bool = False

    def now(self) -> float:
        """Seconds since the request."""
        return time.monotonic() - self.began

    @property
    def limit_s(self) -> float:
        """Seconds that the whole request may take."""
        return self.server.request_timeout_s

    @property
    def wants_usage(self) -> bool:
        """Whether its stream ends in a chunk with the usage."""
        asked = (self.asked.body.get("stream_options") or {}).get("include_usage")
        return asked is True or (self.server.stream_usage == "always" and asked is not False)

    @property
    def left_s(self) -> float:
        """Seconds until its deadline, or until it is cut since the server stops."""
        return max(0.0, min(self.limit_s - self.now(), self.draining.left_s))

    def late(self) -> RequestFailed:
        """The error of a request for which no time is left."""
        cut = self.draining.left_s < self.limit_s - self.now()  # not by 0: timers are a little early
        return ServerStopping() if cut else DeadlineExceeded(self.limit_s)

    @property
    def certificate(self) -> str:
        """What is promised of the answer, by what has happened so far; see router/decide/coverage.py."""
        asked = [record.call.tier for record in self.records.values() if record.call.role != "audit"]
        return coverage.of_answer(self.decided, tuple(self.tiers), self.flow, asked, self.departed)

    def call_id(self, name: str) -> str:
        return f"{self.id}/{name}"

    def sent(self) -> None:
        """Note that the client gets its first content now."""
        if self.first_byte_s is None:
            self.first_byte_s = self.now()

    async def count(self) -> None:
        """Count the tokens of calls that ended without usage, beside the event loop where that takes long."""
        for record in [record for record in self.records.values() if record.uncounted]:
            await count_call(record, self.reader(record.call.tier))

    def model_of(self, tier: str) -> str:
        """Fingerprint of what answers it under a tier's name; empty: it is not known."""
        return self.models.get(tier) or self.accounts.models.get(tier, "")

    def reader(self, tier: str) -> Reader:
        return Reader.of(self.tiers[tier], self.counts[tier])

    async def within_window(self, body: Mapping[str, Any], tier: str) -> Mapping[str, Any]:
        """A call's body, its answer limited to the room that the tier's window has left."""
        return await by_size(within_window, body, self.reader(tier)) if answer_limit(body) else body

    def cost_usd(self) -> float:
        return sum(record.cost_usd(self.prices[record.call.tier]) for record in self.records.values())

    def degraded_by(self) -> str:
        """`TIER CODE` of a tier that failed or was passed over before another answered; empty: none."""
        worked = set[str]()
        for record in reversed(self.records.values()):
            if not record.missed:
                worked.add(record.call.tier)
            elif record.call.tier not in worked:  # asked once more, it would have made up for it
                tier = record.call.tier
                return next(f"{tier} {r.missed}" for r in self.records.values() if r.missed and r.call.tier == tier)
        return self.decided.degraded or self.passed_over()

    def passed_over(self) -> str:
        """The same for a tier that a flow would have asked on its way, but that rested when the request was decided."""
        names = list(self.tiers)
        asked = [names.index(record.call.tier) for record in self.records.values()]
        if not asked:
            return ""
        low, high = min(asked), max(asked)
        if self.flow in ("delegation", "tools"):  # its parts are for the smaller tiers
            low = -1 if any(record.call.role == "subtask" for record in self.records.values()) else high
        elif self.flow == "cascade" and names[high] == self.decided.allowed(names)[-1]:  # it went to its end
            high = len(names)
        missed = [name for name in names[low + 1 : high] if name in self.decided.resting]
        return f"{missed[-1]} {self.decided.resting[missed[-1]]}" if missed else ""

    @property
    def answer_text(self) -> str:
        """The answer without a thought."""
        return split("".join(self.answer)).text

    async def finish(self, status: int = 200, error: RequestFailed | None = None) -> None:
        """Write the request down, once. Raises LedgerDown."""
        if not self.done:
            self.done = True
            await self.count()
            await self.accounts.finish(await by_size(self.trace, status, error), self.grant)
            if status == 200 and self.accounts.collector:
                self.accounts.collector.answered(self)

    def left(self, status: int = LEFT) -> None:
        """Write down a request that ended without a whole answer, with what it cost."""
        if not self.done:
            self.accounts.later(self.finish(status))

    def trace(self, status: int, error: RequestFailed | None) -> Trace:
        decided = self.decided
        calls = tuple(row for record in self.records.values() for row in self.rows(record))
        alone = self.alone(calls) if status == 200 else None
        return Trace(
            id=self.id,
            key_id=self.key.id,
            began_s=self.at_s,
            took_s=self.now(),
            path=self.spoken or self.asked.path,
            wanted=str(self.asked.body["model"])[:128],
            status=status,
            tier=self.tier if status == 200 else "",
            target=decided.target[:64],
            reason=decided.reason,
            flow=self.flow,
            error=error.code if error else "",
            stream=self.asked.stream,
            confidence=decided.confidence,
            unfamiliar=decided.unfamiliar,
            p=decided.p,
            certificate=self.certificate,
            router=self.router,
            decision_ms=self.decision_ms,
            first_byte_s=self.first_byte_s,
            counterfactual_usd=alone.usd if alone else None,
            counterfactual_estimated=alone.estimated if alone else True,
            prompt=self.prompt(),
            answer=self.answer_text or None,
            calls=calls,
        )

    def prompt(self) -> str | None:
        return wire.facts(self.asked).text if self.accounts.keeps("prompts", "all") else None

    def alone(self, calls: Sequence[CallRow]) -> counterfactual.Alone:
        """What the largest tier alone would have cost."""
        top, lengths = list(self.tiers.values())[-1], self.accounts.lengths
        answered = next((c for c in reversed(calls) if c.tier == self.tier and c.outcome in ("answered", "accepted")), None)
        if answered and self.flow in ANSWERED_WHOLE:
            if self.flow == "cascade":
                learn(lengths, top.name, calls, answered)
            asked = Usage(answered.input_tokens, answered.output_tokens)
        else:
            answer = text_tokens(self.answer_text, self.counts[top.name])
            asked = Usage(self.reader(top.name).expected_total(self.asked.body), answer)
        most = answer_limit(self.asked.body)
        return counterfactual.counterfactual(top, calls, self.flow, asked, lengths, self.tier, most)

    def rows(self, record: CallRecord) -> list[CallRow]:
        """The call's rows: two where it was sent to a second replica too."""
        row, twin = self.row(record), record.reading.twin
        tier = record.call.tier
        return hedged_call.rows(row, record.reading, twin, self.prices[tier], self.tiers[tier]) if twin else [row]

    def row(self, record: CallRecord) -> CallRow:
        reading, tier = record.reading, record.call.tier
        return CallRow(
            id=self.call_id(record.call.id),
            trace_id=self.id,
            key_id=AUDITS if record.call.role == "audit" else self.key.id,
            role=record.call.role,
            tier=tier,
            outcome=(record.outcome or "answered")[:64],
            began_s=self.at_s + record.began_s,
            took_s=record.took_s,
            input_tokens=record.usage.input_tokens,
            output_tokens=record.usage.output_tokens,
            estimated=record.estimated,
            first_token_s=record.first_token_s,
            cost_usd=record.cost_usd(self.prices[tier]),
            model=self.model_of(tier),
            **hedged_call.measured(reading, self.tiers[tier]),
        )


async def count_call(record: CallRecord, reader: Reader) -> None:
    """The tokens that a call was sent and that came back, where its tier reported none."""
    long = record.received.size + text_length(record.call.body) > LONG
    record.usage = await asyncio.to_thread(counted, record, reader) if long else counted(record, reader)
    record.estimated = True  # only now: whoever is cancelled while it counts leaves it to the next


def counted(record: CallRecord, reader: Reader) -> Usage:
    return Usage(reader.expected_total(record.call.body), record.received.tokens(reader.count))


def learn(lengths: counterfactual.Lengths, top: str, calls: Sequence[CallRow], answered: CallRow) -> None:
    """An escalation shows how long the top tier's answer is beside the rejected one."""
    if answered.tier == top:
        for call in calls:
            if call.tier != top and call.role == "attempt" and not call.estimated and call.output_tokens:
                lengths.escalated(call.tier, call.output_tokens, answered.output_tokens)
