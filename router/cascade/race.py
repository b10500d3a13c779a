"""Hedging: a tier that is late is raced by a larger one. A generator; see `types.Flow`.

The first acceptable answer wins, and the other call is cancelled at once; the tokens it wrote until then cost what they cost in
any call. Answers are only checked for obvious faults, not judged, so no certificate covers them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from router.cascade import checks
from router.cascade.call_outcomes import CallOutcomes
from router.errors import WindowExceeded
from router.types import Call, Commit, End, Fail, Flow, Reply, Role, Step


@dataclass(slots=True)
class Race:
    """Asks a tier and, when its answer is late, a larger one too."""

    body: Mapping[str, Any]
    tiers: tuple[str, str]
    """the chosen tier, and the larger one that is asked when it is late"""
    after_s: float
    """seconds since the request; a stream is late without a first token, a whole answer without its end"""
    wider: str | None = None
    """asked instead of the larger one where the window of the first is too small for the request; None: none is wider"""
    running: list[str] = field(default_factory=list)
    """ids of the calls in flight"""
    failed: list[Reply] = field(default_factory=list)
    outcomes: CallOutcomes = field(default_factory=CallOutcomes)
    hedged: bool = False
    """the larger tier was asked"""

    def run(self) -> Flow:
        """Ask the first tier; ask the second when the first is late or has failed; wait for an acceptable answer."""
        first, second = self.tiers
        end = self.accept_one((yield self.ask(first, "attempt", self.after_s)))
        if end is None and any(isinstance(reply.error, WindowExceeded) for reply in self.failed):
            if self.wider is None:
                return self.best_failure()
            second, self.tiers = self.wider, (first, self.wider)
        if end is None:
            self.hedged = True
            end = self.accept_one((yield self.ask(second, "final")))
        while end is None and self.running:
            end = self.accept_one((yield Step(outcomes=self.outcomes.new())))
        return end or self.best_failure()

    def ask(self, tier: str, role: Role, until_s: float | None = None) -> Step:
        call = Call(f"{role}-{tier}", tier, role, self.body, hold=1, committed=True)  # the first to say anything wins
        self.running.append(call.id)
        return Step((call,), until_s=until_s, outcomes=self.outcomes.new(), phase=f"asking {tier}")

    def accept_one(self, replies: Sequence[Reply]) -> End | None:
        """The end, if one of the replies is acceptable. If both arrive at once, the smaller tier wins."""
        good = []
        for reply in sorted(replies, key=lambda reply: self.tiers.index(reply.call.tier)):
            self.running.remove(reply.call.id)
            fault = checks.fault(reply, self.body)
            if fault is None or checks.is_refusal(reply):
                good.append(reply)
                continue
            self.failed.append(reply)
            self.outcomes.set(reply.call.id, fault)
            if reply.error is not None and checks.blames_client(reply):
                self.outrun()
                return Fail(reply.error, self.outcomes.new(), {"hedged": self.hedged})
        return self.commit(good[0], [reply.call.id for reply in good[1:]]) if good else None

    def commit(self, reply: Reply, others: Sequence[str] = ()) -> Commit:
        self.outrun(others)
        self.outcomes.set(reply.call.id, "accepted")
        return Commit(reply.call.id, outcomes=self.outcomes.new(), report={"hedged": self.hedged})

    def outrun(self, others: Sequence[str] = ()) -> None:
        """Note that these calls and those in flight came too late."""
        for call in (*others, *self.running):
            self.outcomes.set(call, "outrun")

    def best_failure(self) -> End:
        """The end when neither is acceptable: the larger tier's faulty answer, else the last error."""
        answers = [reply for reply in self.failed if reply.error is None]
        if answers:
            return self.commit(max(answers, key=lambda reply: self.tiers.index(reply.call.tier)))
        last = next(reply.error for reply in reversed(self.failed) if reply.error is not None)
        return Fail(last, self.outcomes.new(), {"hedged": self.hedged})
