"""Escalation: ask a smaller tier, judge its answer, accept it or ask a larger tier. A generator; see `types.Flow`.

Not one byte of a rejected answer reaches the client: its first content byte is the commit point.
"""

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from router.cascade import checks
from router.cascade.call_outcomes import CallOutcomes
from router.config import Escalation
from router.errors import WindowExceeded
from router.request import server_tools
from router.types import Accept, Call, Chosen, Commit, End, Fail, Flow, GoUp, Judge, Reply, Role, Step

WHOLE = 1 << 30  # tokens: hold a stream to its end


class AcceptAny:
    """Accepts the largest tier's answer: only obvious faults make a request escalate."""

    def next(self, answers: Mapping[str, Reply]) -> Accept | GoUp:
        return Accept(list(answers)[-1])


@dataclass(slots=True)
class Cascade:
    """Asks tiers one after the other, or some in parallel, until an answer is accepted."""

    body: Mapping[str, Any]
    names: Sequence[str]
    """tiers that may be asked, cheapest first"""
    judge: Judge
    settings: Escalation
    stream: bool
    escalate: set[str] = field(default_factory=set)
    """tiers that are offered the tool `stepdown_escalate`"""
    scored: bool = True
    """calls ask for log-probabilities"""
    top_flow: Callable[[Sequence[Reply]], Chosen] | None = None
    """makes the flow that replaces the top tier's plain call, given all replies so far"""
    tests: str = ""
    """what the code of a smaller tier's answer has to pass"""
    windows: Mapping[str, int] = field(default_factory=dict)
    """tier -> most tokens of prompt and answer together"""
    answers: dict[str, Reply] = field(default_factory=dict)
    failed: dict[str, Reply] = field(default_factory=dict)
    replies: list[Reply] = field(default_factory=list)
    """all of them, also an answer of the wrong form whose tier was asked again: it was paid for too"""
    outcomes: CallOutcomes = field(default_factory=CallOutcomes)
    retried: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    """tiers whose stream was cancelled after its first tokens: it was judged, but it can no longer be the answer"""
    steps: int = 0

    # -- calls -----------------------------------------------------------------------------------------------------------

    def hold(self, tier: str) -> int:
        """How many tokens of a stream are held back until it is accepted."""
        if tier == self.names[-1]:
            return 1
        if tier in self.escalate or self.tests:
            return WHOLE  # the tool call may follow some text, and code is run whole
        return self.settings.holdback_tokens if self.settings.mode == "holdback" else WHOLE

    def call(self, tier: str) -> Call:
        again = "-again" if tier in self.retried else ""
        role: Role = "final" if tier == self.names[-1] else "attempt"
        body = with_logprobs(self.body) if self.scored else self.body
        if tier in self.escalate and role == "attempt":
            body = server_tools.with_escalation(body)
        tests = self.tests if role == "attempt" else ""
        return Call(f"{role}-{tier}{again}", tier, role, body, self.hold(tier), tests=tests, committed=role == "final")

    # -- the flow --------------------------------------------------------------------------------------------------------

    def run(self, first: Sequence[str]) -> Flow:
        """first: the tiers to begin with; several are compared."""
        asked: Sequence[str] = first
        cancel: tuple[str, ...] = ()
        while True:
            self.steps += 1
            yield from self.ask(asked, cancel)
            following = self.decide()
            if not isinstance(following, Sequence):
                return following
            cancel = self.cancel_held()
            if self.top_flow and tuple(following) == (self.names[-1],):
                return (yield from self.hand_over(self.top_flow(self.replies), cancel))
            asked = following

    def ask(self, tiers: Sequence[str], cancel: tuple[str, ...]) -> Generator[Step, Sequence[Reply], None]:
        """Ask the tiers in parallel until each has answered, once more where an answer had the wrong form."""
        calls = tuple(map(self.call, tiers))
        running = {call.id for call in calls}
        replies = yield Step(calls, cancel, outcomes=self.outcomes.new(), phase="asking " + ", ".join(tiers))
        while True:
            again = [tier for reply in replies if (tier := self.record(reply))]
            running -= {reply.call.id for reply in replies}
            calls = tuple(map(self.call, again))
            running |= {call.id for call in calls}
            if not running:
                return
            replies = yield Step(calls, outcomes=self.outcomes.new())

    def record(self, reply: Reply) -> str | None:
        """Sort a reply into answers and failures. Returns its tier if that is to be asked once more."""
        tier, fault = reply.call.tier, checks.fault(reply, self.body)
        self.replies.append(reply)
        at_top = fault == checks.THOUGHT_TOO_LONG and tier == self.names[-1]  # nobody could do better
        if fault is None or at_top or checks.is_refusal(reply):
            self.answers[tier] = reply
            return None
        self.outcomes.set(reply.call.id, fault)
        tool_refused = tier in self.escalate and checks.refuses_field(reply)
        if (fault == "schema invalid" or tool_refused) and tier not in self.retried:
            self.escalate -= {tier} if tool_refused else set()
            self.retried.add(tier)
            return tier
        self.failed[tier] = reply
        return None

    def cancel_held(self) -> tuple[str, ...]:
        """The calls to cancel: streams that were judged by their first tokens and rejected."""
        held = {tier: reply for tier, reply in self.available().items() if reply.partial}
        self.cancelled |= set(held)
        return tuple(reply.call.id for reply in held.values())

    def hand_over(self, other: Chosen, cancel: tuple[str, ...]) -> Flow:
        """Let another flow give the answer, and report the escalations with its end."""
        assert other.steps is not None
        yield Step((), cancel, outcomes=self.outcomes.new(), kind=other.kind)
        end = yield from other.steps
        return replace(end, report={**end.report, "escalations": len(self.answers) + len(self.failed)})

    # -- decisions -------------------------------------------------------------------------------------------------------

    def decide(self) -> Sequence[str] | End:
        """The tiers to ask next, or the end."""
        refusal = next((reply for reply in self.answers.values() if checks.is_refusal(reply)), None)
        if refusal:
            return self.commit(refusal)
        error = next((reply.error for reply in self.failed.values() if checks.blames_client(reply)), None)
        if error:
            return Fail(error, self.outcomes.new())
        available = self.available()
        return self.judged(available) if available else self.after_failures()

    def judged(self, available: Mapping[str, Reply]) -> Sequence[str] | End:
        """Accept one of these answers, or ask larger tiers; the largest answer is the last resort."""
        final = available.get(self.names[-1]) or next((reply for reply in available.values() if reply.passed), None)
        if final:
            return self.commit(final)
        verdict = self.judge.next(available)
        if isinstance(verdict, Accept):
            return self.commit(available[verdict.tier])
        for reply in available.values():
            self.outcomes.set_if_none(reply.call.id, verdict.reason)
        larger = self.larger()
        if not larger:
            return self.commit(self.largest(available), degraded=True)
        wanted = [tier for tier in verdict.tiers if tier in larger]
        return wanted if wanted and self.steps < self.settings.max_steps else larger[-1:]

    def after_failures(self) -> Sequence[str] | End:
        """No tier has answered: ask the next larger tier, else the largest untried one; else end with what there is."""
        if larger := self.larger():
            return larger[:1] if self.steps < self.settings.max_steps else larger[-1:]
        left = [name for name in self.wide_enough(self.names) if name not in self.answers and name not in self.failed]
        if left and all(reply.error is not None for reply in self.failed.values()):
            return left[-1:]
        last = self.largest(self.failed)
        return self.commit(last) if last.error is None else Fail(last.error, self.outcomes.new())

    def available(self) -> dict[str, Reply]:
        """The answers that can still be given to the client, by tier."""
        return {tier: reply for tier, reply in self.answers.items() if tier not in self.cancelled}

    def larger(self) -> Sequence[str]:
        """The tiers above all that were tried and that may hold the request."""
        return self.wide_enough(self.names[max(self.names.index(tier) for tier in (*self.answers, *self.failed)) + 1 :])

    def wide_enough(self, names: Sequence[str]) -> Sequence[str]:
        """Those with a larger window than the tier that said that the request does not fit; none once a second said so too."""
        too_small = [tier for tier, reply in self.failed.items() if isinstance(reply.error, WindowExceeded)]
        if not too_small:
            return names
        least = max(self.windows.get(tier, 0) for tier in too_small)
        return [name for name in names if self.windows.get(name, 0) > least] if len(too_small) == 1 else ()

    def largest(self, replies: Mapping[str, Reply]) -> Reply:
        return replies[max(replies, key=self.names.index)]

    def commit(self, reply: Reply, degraded: bool = False) -> Commit:
        self.outcomes.set(reply.call.id, "accepted")
        for other in self.answers.values():
            self.outcomes.set_if_none(other.call.id, "not needed")
        report: dict[str, Any] = {"escalations": max(0, len(self.answers) + len(self.failed) - 1)}
        report |= {"degraded": True} if degraded else {}
        return Commit(reply.call.id, outcomes=self.outcomes.new(), report=report, departed=self.departed(reply))

    def departed(self, reply: Reply) -> bool:
        """Whether this answer came about in a way that no certificate knows of.

        A certificate is made of plain answers, each judged whole or by its first tokens, with nothing failing on the way.
        """
        fell_short = bool(self.failed or self.retried or self.tests or self.escalate)
        unjudged = checks.is_refusal(reply) or bool(reply.tool_calls) or reply.finish_reason == "length"
        unjudged = unjudged or (self.scored and bool(reply.thought) and not reply.logprobs)  # the answer's tokens were not found
        return fell_short or (unjudged and reply.call.tier != self.names[-1])


def with_logprobs(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body with the log-probabilities that judging needs, or more if the client asks for more."""
    return {**body, "logprobs": True, "top_logprobs": max(2, body.get("top_logprobs") or 0)}


def without_logprobs(flow: Flow, tiers: Collection[str]) -> Flow:
    """The same flow, whose calls to these tiers do not ask for log-probabilities: they would refuse the whole call."""
    try:
        step = next(flow)
        while True:
            calls = (unscored(call) if call.tier in tiers else call for call in step.start)
            step = flow.send((yield replace(step, start=tuple(calls))))
    except StopIteration as done:
        end: End = done.value
        return end
    finally:
        flow.close()


def unscored(call: Call) -> Call:
    return replace(call, body={name: value for name, value in call.body.items() if name not in ("logprobs", "top_logprobs")})
