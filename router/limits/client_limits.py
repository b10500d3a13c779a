"""Limits that a client sets on its own request, kept around any flow of calls: they can only tighten what the server allows.

A call that no longer fits is not made: the flow is told that its tier is not available, and does what it does then, such as
giving the best answer that is there. Where it comes to nothing, the client is told of its limit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from router.errors import BudgetExceeded, DeadlineExceeded, NoReplica, RequestFailed
from router.limits.delegation_budget import Budget, Rung, rung_of
from router.request.body import answer_limit, with_answer_limit
from router.types import Call, End, Fail, Flow, Limits, Reply, Step


def tightened(flow: Flow, limits: Limits, ladder: Sequence[Rung]) -> Flow:
    """The same flow within `max_cost_usd` and `deadline_s`."""
    return within(flow, Keeper(limits, ladder))


def within_usd(flow: Flow, max_usd: float | None, ladder: Sequence[Rung]) -> Flow:
    """The same flow within that limit; the flow itself where there is none."""
    return flow if max_usd is None else tightened(flow, Limits(max_cost_usd=max(0.0, max_usd)), ladder)


def within(flow: Flow, keeper: "Keeper") -> Flow:
    try:
        step = next(flow)
        while True:
            narrowed, refused = keeper.narrowed(step)
            if keeper.running or not refused:
                replies = yield narrowed
            else:
                replies = keeper.put_off(narrowed)
            step = flow.send([*keeper.seen(replies, step), *refused])
    except StopIteration as done:
        return keeper.ended(done.value)
    finally:
        flow.close()


@dataclass(slots=True)
class Keeper:
    """What one request has spent, and what runs."""

    limits: Limits
    ladder: Sequence[Rung]
    budget: Budget = field(init=False)
    running: dict[str, Call] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    """calls that ran when the deadline came, to be cancelled"""
    never: set[str] = field(default_factory=set)
    """calls that were asked for and not made: the driver does not know them"""
    owed: dict[str, str] = field(default_factory=dict)
    late: bool = False
    broken: RequestFailed | None = None
    why: str = ""

    def __post_init__(self) -> None:
        usd = self.limits.max_cost_usd
        self.budget = Budget(math.inf if usd is None else usd, 1 << 30)

    # -- what is asked ------------------------------------------------------------------------------------------------

    def narrowed(self, step: Step) -> tuple[Step, list[Reply]]:
        """The step with what may be done of it, and the replies to the rest."""
        for name in step.cancel:
            self.budget.forfeit(name)
            self.running.pop(name, None)
        made, refused = [], []
        for i, call in enumerate(step.start):
            fitting = None if self.late else self.fitting(call, len(step.start) - i)
            if fitting is None:
                self.never.add(call.id)
                refused.append(Reply(call, error=NoReplica(call.tier, self.why)))
            else:
                made.append(fitting)
                self.running[call.id] = call
        cancel, self.lost = (*step.cancel, *self.lost), []
        until, outcomes = self.soonest(step.until_s), self.known(step.outcomes)
        self.owed = {}
        return replace(step, start=tuple(made), cancel=cancel, until_s=until, outcomes=outcomes), refused

    def put_off(self, step: Step) -> Sequence[Reply]:
        """Nothing runs that could be waited for: what else the step says is said with the next."""
        self.lost += step.cancel
        self.owed |= step.outcomes
        return ()

    def soonest(self, until_s: float | None) -> float | None:
        """A deadline that has passed wakes nobody again: what ran then has been given up."""
        ends = [s for s in (until_s, None if self.late else self.limits.deadline_s) if s is not None]
        return min(ends, default=None)

    def fitting(self, call: Call, sharing: int) -> Call | None:
        """The call, its answer's length bounded by what may be spent; None where not even a token may.

        sharing: calls that start together and have not been served yet, this one included.
        """
        if self.limits.max_cost_usd is None:
            return call
        rung, left, wanted = rung_of(self.ladder, call.tier), self.budget.left_usd, answer_limit(call.body)
        prompt = rung.prompt_tokens(call.body)
        given = rung.price_in * prompt
        tokens = (left / sharing - given) / rung.price_out if rung.price_out else math.inf if given <= left / sharing else 0
        if tokens < 1:
            self.broken, self.why = BudgetExceeded(given + rung.price_out, left), "max_cost_usd"
            return None
        bound = length(tokens, wanted, prompt, rung.context)
        self.budget.reserve(call.id, min(given + rung.price_out * (rung.context if bound is None else bound), left))
        return call if bound is None or bound == wanted else replace(call, body=with_answer_limit(call.body, bound))

    # -- what comes back ----------------------------------------------------------------------------------------------

    def seen(self, replies: Sequence[Reply], step: Step) -> list[Reply]:
        """Count them; when the deadline came first, say for all that runs that nothing came."""
        for reply in replies:
            self.running.pop(reply.call.id, None)
            if reply.error is not None and reply.call.timeout_s is not None:  # it may have run until then
                self.budget.forfeit(reply.call.id)
            elif reply.error is not None:
                self.budget.refund(reply.call.id)
            elif not reply.partial:
                self.budget.commit(reply.call.id, rung_of(self.ladder, reply.call.tier).paid(reply.usage))
        deadline = self.limits.deadline_s
        if replies or not self.running or deadline is None or (step.until_s is not None and step.until_s < deadline):
            return list(replies)
        self.late, self.broken, self.why = True, DeadlineExceeded(deadline), "deadline_s"
        lost, self.running = list(self.running.values()), {}
        self.lost = [call.id for call in lost]
        return [Reply(call, error=NoReplica(call.tier, self.why), at_s=deadline) for call in lost]

    def ended(self, end: End) -> End:
        """The flow's own end; a failure that a limit caused is that limit's."""
        known = replace(end, outcomes=self.known(end.outcomes))
        if isinstance(known, Fail):
            return replace(known, error=self.broken or known.error)
        return replace(known, told={**known.told, "limited_by": self.why}) if self.broken else known

    def known(self, outcomes: Mapping[str, str]) -> dict[str, str]:
        """Those of calls that were made, and those that nobody was told of yet."""
        return {name: outcome for name, outcome in {**self.owed, **outcomes}.items() if name not in self.never}


def length(tokens: float, wanted: int | None, prompt: int, context: int) -> int | None:
    """The limit that an answer gets, of the `tokens` that can be paid; None: the window is its limit.

    A backend refuses a limit that does not fit into the window beside the prompt.
    """
    if wanted is not None:
        return int(min(tokens, wanted))
    return None if tokens >= context else max(1, int(min(tokens, context - prompt)))
