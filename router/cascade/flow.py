"""Escalation: ask a smaller tier, look at its answer, accept it or go up. A generator; see `types.Flow`.

Not one byte of an answer that is not accepted reaches the client: the first content byte is the commit point.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from router.cascade import checks
from router.config import Escalation
from router.request import server_tools
from router.types import Accept, Call, Chosen, Commit, End, Fail, Flow, GoUp, Judge, Outcomes, Reply, Role, Step

WHOLE = 1 << 30  # hold a stream to its end


class AcceptAny:
    """Accepts the largest tier's answer that could be given to the client: only what is plainly wrong sends a request up."""

    allowed: Sequence[int] = ()

    def next(self, answers: Mapping[str, Reply]) -> Accept | GoUp:
        return Accept(list(answers)[-1])


@dataclass(slots=True)
class Cascade:
    """One request on its way up."""

    body: Mapping[str, Any]
    names: Sequence[str]
    """tiers that may be asked, cheapest first"""
    judge: Judge
    settings: Escalation
    stream: bool
    escalate: set[str] = field(default_factory=set)
    """tiers that are shown `stepdown_escalate`"""
    scored: bool = True
    """log-probabilities are asked for"""
    finale: Callable[[Sequence[Reply]], Chosen] | None = None
    """answers in the place of the largest tier's plain call, given all replies before it"""
    tests: str = ""
    """what the code of a smaller tier's answer has to pass"""
    answers: dict[str, Reply] = field(default_factory=dict)
    failed: dict[str, Reply] = field(default_factory=dict)
    replies: list[Reply] = field(default_factory=list)
    """all of them: an answer of the wrong form was paid for too, and then asked for once more"""
    outcomes: Outcomes = field(default_factory=Outcomes)
    retried: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    """tiers whose stream was given up at its first tokens: seen, but no answer to fall back to"""
    steps: int = 0

    # -- calls -----------------------------------------------------------------------------------------------------------

    def hold(self, tier: str) -> int:
        """How much of a stream is looked at before it may go out."""
        if tier == self.names[-1]:
            return 1
        if tier in self.escalate or self.tests:
            return WHOLE  # the call may come after some text, and code is run whole
        return self.settings.holdback_tokens if self.settings.mode == "holdback" else WHOLE

    def call(self, tier: str) -> Call:
        again = "-again" if tier in self.retried else ""
        role: Role = "final" if tier == self.names[-1] else "attempt"
        body = with_logprobs(self.body) if self.scored else self.body
        body = server_tools.with_escalation(body) if tier in self.escalate and role == "attempt" else body
        tests = self.tests if role == "attempt" else ""
        return Call(f"{role}-{tier}{again}", tier, role, body, self.hold(tier), tests=tests)

    def tried(self, tier: str) -> bool:
        return tier in self.answers or tier in self.failed

    def standing(self) -> dict[str, Reply]:
        """The answers that can still be given out, by tier: a stream that was given up cannot."""
        return {tier: reply for tier, reply in self.answers.items() if tier not in self.gone}

    # -- the flow --------------------------------------------------------------------------------------------------------

    def run(self, first: Sequence[str]) -> Flow:
        """`first`: the tiers to begin with, several for a probe by agreement."""
        asked: Sequence[str] = first
        cancel: tuple[str, ...] = ()
        while True:
            self.steps += 1
            yield from self.gather(asked, cancel)
            refused = self.refusal()
            if refused:
                return self.commit(refused)
            fault = self.clients_fault()
            if fault and fault.error:
                return Fail(fault.error, self.outcomes.new())
            following = self.following()
            if not isinstance(following, Sequence):
                return following
            if self.finale and tuple(following) == (self.names[-1],):
                return (yield from self.handed(self.finale(self.replies)))
            asked, cancel = following, self.give_up()

    def handed(self, other: Chosen) -> Flow:
        """Leave the answer to another flow, and tell of both."""
        assert other.steps is not None
        yield Step((), self.give_up(), outcomes=self.outcomes.new(), kind=other.kind)
        end = yield from other.steps
        return replace(end, told={**end.told, "escalations": len(self.answers) + len(self.failed)})

    def give_up(self) -> tuple[str, ...]:
        """Let go of streams that were looked at and not taken."""
        held = {tier: reply for tier, reply in self.standing().items() if reply.partial}
        self.gone |= set(held)
        return tuple(reply.call.id for reply in held.values())

    def gather(self, tiers: Sequence[str], cancel: tuple[str, ...]) -> Generator[Step, Sequence[Reply], None]:
        """Ask them side by side until each has answered, once more where an answer had the wrong form."""
        calls = tuple(map(self.call, tiers))
        waiting = {call.id for call in calls}
        replies = yield Step(calls, cancel, outcomes=self.outcomes.new(), phase="asking " + ", ".join(tiers))
        while True:
            again = [tier for reply in replies if (tier := self.read(reply))]
            waiting -= {reply.call.id for reply in replies}
            calls = tuple(map(self.call, again))
            waiting |= {call.id for call in calls}
            if not waiting:
                return
            replies = yield Step(calls, outcomes=self.outcomes.new())

    def read(self, reply: Reply) -> str | None:
        """Sort a reply in; returns the tier if it is to be asked once more."""
        tier, reason = reply.call.tier, checks.wrong(reply, self.body)
        self.replies.append(reply)
        if reason is None or checks.is_final(reply):
            self.answers[tier] = reply
            return None
        self.outcomes.set(reply.call.id, reason)
        refused = reply.error is not None and reply.error.status in (400, 422) and tier in self.escalate
        if (reason == "schema invalid" or refused) and tier not in self.retried:
            self.escalate -= {tier} if refused else set()  # its backend may take no function
            self.retried.add(tier)
            return tier
        self.failed[tier] = reply
        return None

    def refusal(self) -> Reply | None:
        return next((reply for reply in self.answers.values() if checks.is_final(reply)), None)

    def clients_fault(self) -> Reply | None:
        """A tier that says the request itself is wrong: a larger one would say so too."""
        return next((r for r in self.failed.values() if r.error is not None and 400 <= r.error.status < 500), None)

    def following(self) -> Sequence[str] | End:
        """The tiers to ask next, or the end."""
        left = [name for name in self.names if not self.tried(name)]
        larger = [name for name in left if self.above_all_tried(name)]
        there = self.standing()
        if not there:
            return self.after_failures(larger, left)
        top = self.names[-1]
        if top in there:
            return self.commit(there[top])
        if passed := next((reply for reply in there.values() if reply.passed), None):
            return self.commit(passed)
        verdict = self.judge.next(there)
        if isinstance(verdict, Accept):
            return self.commit(there[verdict.tier])
        for reply in there.values():
            self.outcomes.set_if_none(reply.call.id, verdict.reason)
        if not larger:
            return self.second_best()
        wanted = [tier for tier in verdict.tiers if tier in larger] or larger[-1:]
        return wanted if self.steps < self.settings.max_steps else larger[-1:]

    def second_best(self) -> End:
        """Nothing larger is left to ask: the largest that answered stands in, and the answer says so."""
        there = self.standing()
        return self.commit(there[self.largest(there)], degraded=True)

    def after_failures(self, larger: Sequence[str], left: Sequence[str]) -> Sequence[str] | End:
        """No answer so far: the next larger tier, then the largest of those below, then the failure itself."""
        if larger:
            return larger[:1] if self.steps < self.settings.max_steps else larger[-1:]
        if left and all(reply.error is not None for reply in self.failed.values()):
            return left[-1:]
        last = self.failed[self.largest(self.failed)]
        if last.error is not None:
            return Fail(last.error, self.outcomes.new())
        return self.commit(last)  # the largest tier's answer is what there is, in the wrong form or cut short

    def above_all_tried(self, name: str) -> bool:
        places = [self.names.index(tier) for tier in (*self.answers, *self.failed)]
        return self.names.index(name) > max(places, default=-1)

    def largest(self, tiers: Mapping[str, Reply]) -> str:
        return max(tiers, key=self.names.index)

    def commit(self, reply: Reply, degraded: bool = False) -> Commit:
        self.outcomes.set(reply.call.id, "accepted")
        for other in self.answers.values():
            self.outcomes.set_if_none(other.call.id, "not needed")
        told: dict[str, Any] = {"escalations": max(0, len(self.answers) + len(self.failed) - 1)}
        return Commit(reply.call.id, outcomes=self.outcomes.new(), told=told | ({"degraded": True} if degraded else {}))


def with_logprobs(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of an attempt: with the log-probabilities that judging needs, unless the client asked for its own."""
    return {**body, "logprobs": True, "top_logprobs": max(2, body.get("top_logprobs") or 0)}
