"""Hedging: a tier that has said nothing for a while is raced by a larger one. A generator; see `types.Flow`.

The first that can stand is the answer, the other stops generating at once; what it wrote until then is paid for like any
call. Nothing is looked at but what a hard trigger sees, so nothing is promised.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from router.cascade import checks
from router.types import Call, Commit, End, Fail, Flow, Outcomes, Reply, Role, Step


@dataclass(slots=True)
class Race:
    """Asks a tier and, when its answer is late, a larger one too."""

    body: Mapping[str, Any]
    tiers: tuple[str, str]
    """the one decided on, and the larger one that is asked when it is late"""
    after_s: float
    """seconds since the request; a stream is late without a first token, a whole answer without its end"""
    waiting: list[str] = field(default_factory=list)
    """ids of calls that run"""
    failed: list[Reply] = field(default_factory=list)
    outcomes: Outcomes = field(default_factory=Outcomes)
    hedged: bool = False
    """the larger tier was asked"""

    def run(self) -> Flow:
        """Ask, wait, ask the other one too."""
        first, second = self.tiers
        replies = yield self.asking(first, "attempt", self.after_s)
        end = self.taken(replies)
        if end is None:
            self.hedged = True
            replies = yield self.asking(second, "final")
            end = self.taken(replies)
        while end is None and self.waiting:
            end = self.taken((yield Step(outcomes=self.outcomes.new())))
        return end or self.nothing()

    def asking(self, tier: str, role: Role, until_s: float | None = None) -> Step:
        call = Call(f"{role}-{tier}", tier, role, self.body, hold=1)
        self.waiting.append(call.id)
        return Step((call,), until_s=until_s, outcomes=self.outcomes.new(), phase=f"asking {tier}")

    def taken(self, replies: Sequence[Reply]) -> End | None:
        """The end, if one of them can stand; of two at once the smaller tier's."""
        good = []
        for reply in sorted(replies, key=lambda reply: self.tiers.index(reply.call.tier)):
            self.waiting.remove(reply.call.id)
            wrong = checks.wrong(reply, self.body)
            if wrong is None or checks.is_final(reply):
                good.append(reply)
                continue
            self.failed.append(reply)
            self.outcomes.set(reply.call.id, wrong)
            if reply.error is not None and 400 <= reply.error.status < 500:
                self.lost()
                return Fail(reply.error, self.outcomes.new(), self.told())  # the request is wrong, for any tier
        return self.commit(good[0], [reply.call.id for reply in good[1:]]) if good else None

    def commit(self, reply: Reply, others: Sequence[str] = ()) -> Commit:
        self.lost(others)
        self.outcomes.set(reply.call.id, "accepted")
        return Commit(reply.call.id, outcomes=self.outcomes.new(), told=self.told())

    def lost(self, others: Sequence[str] = ()) -> None:
        """Note that these calls and those that still run came too late."""
        for call in (*others, *self.waiting):
            self.outcomes.set(call, "outrun")

    def nothing(self) -> End:
        """Neither can stand: the larger one's answer in a wrong form, or the failure of both."""
        there = [reply for reply in self.failed if reply.error is None]
        if there:
            return self.commit(max(there, key=lambda reply: self.tiers.index(reply.call.tier)))
        last = next(reply.error for reply in reversed(self.failed) if reply.error is not None)
        return Fail(last, self.outcomes.new(), self.told())

    def told(self) -> dict[str, Any]:
        return {"hedged": self.hedged}
