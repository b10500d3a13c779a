"""Keeps the limits that a client sets on its own request, around any flow. They can only tighten what the server allows.

A call that does not fit the limits is not made. The flow is told that its tier is not available and reacts as to any such
failure, for example by giving the best answer so far. If it ends without an answer, the client is told which limit was the cause.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from router.client_options import ClientLimits
from router.errors import BudgetExceeded, DeadlineExceeded, NoReplica, RequestFailed
from router.limits.delegation_budget import Budget, Rung, rung_of
from router.request.body import answer_limit, with_answer_limit
from router.types import Call, End, Fail, Flow, Reply, Step


def limit_flow(flow: Flow, limits: ClientLimits, ladder: Sequence[Rung]) -> Flow:
    """The same flow within `max_cost_usd` and `deadline_s`."""
    limiter = FlowLimiter(limits, ladder)
    try:
        step = next(flow)
        while True:
            allowed, refused = limiter.allow(step)
            if limiter.running or not refused:
                replies = yield allowed
            else:
                replies = limiter.postpone(allowed)
            step = flow.send([*limiter.receive(replies, step), *refused])
    except StopIteration as done:
        return limiter.finish(done.value)
    finally:
        flow.close()


def limit_cost(flow: Flow, max_usd: float | None, ladder: Sequence[Rung]) -> Flow:
    """The same flow within that limit; the flow itself where there is none."""
    return flow if max_usd is None else limit_flow(flow, ClientLimits(max_cost_usd=max(0.0, max_usd)), ladder)


@dataclass(slots=True)
class FlowLimiter:
    """What one request has spent, which of its calls are running, and which limit has stopped it."""

    limits: ClientLimits
    ladder: Sequence[Rung]
    budget: Budget = field(init=False)
    running: dict[str, Call] = field(default_factory=dict)
    cancel_next: list[str] = field(default_factory=list)
    """calls to cancel with the next step"""
    unmade: set[str] = field(default_factory=set)
    """calls that were asked for and not made, so the driver does not know them"""
    postponed: dict[str, str] = field(default_factory=dict)
    """outcomes to report with the next step or the end"""
    deadline_passed: bool = False
    error: RequestFailed | None = None
    """of the limit that stopped something; None: none has"""
    stopped_by: str = ""
    """name of that limit"""

    def __post_init__(self) -> None:
        usd = self.limits.max_cost_usd
        self.budget = Budget(math.inf if usd is None else usd, max_calls=1 << 30)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def allow(self, step: Step) -> tuple[Step, list[Reply]]:
        """The step with the calls that fit the limits, and failures as replies to the others."""
        for name in step.cancel:
            self.budget.forfeit(name)
            self.running.pop(name, None)
        made, refused = [], []
        for i, call in enumerate(step.start):
            fitting = None if self.deadline_passed else self.fit(call, len(step.start) - i)
            if fitting is None:
                self.unmade.add(call.id)
                refused.append(Reply(call, error=NoReplica(call.tier, self.stopped_by)))
            else:
                made.append(fitting)
                self.running[call.id] = call
        cancel, self.cancel_next = (*step.cancel, *self.cancel_next), []
        until_s, outcomes = self.wake_at(step.until_s), self.reportable(step.outcomes)
        self.postponed = {}
        return replace(step, start=tuple(made), cancel=cancel, until_s=until_s, outcomes=outcomes), refused

    def postpone(self, step: Step) -> Sequence[Reply]:
        """No call is in flight, so the driver is not asked: keep this step's cancels and outcomes for the next step."""
        self.cancel_next += step.cancel
        self.postponed |= step.outcomes
        return ()

    def wake_at(self, until_s: float | None) -> float | None:
        """When the driver replies at the latest. A deadline that has passed plays no part any more."""
        ends = [s for s in (until_s, None if self.deadline_passed else self.limits.deadline_s) if s is not None]
        return min(ends, default=None)

    def fit(self, call: Call, sharing: int) -> Call | None:
        """The call, its answer cut to what may be spent; None if that is not even one token.

        sharing: calls of the same step that share what is left, this one included.
        """
        if self.limits.max_cost_usd is None:
            return call
        rung, left, wanted = rung_of(self.ladder, call.tier), self.budget.left_usd, answer_limit(call.body)
        prompt = rung.prompt_tokens(call.body)
        prompt_usd = rung.most(prompt, 0)
        spare_usd = left / sharing - prompt_usd
        tokens = spare_usd / rung.price_out if rung.price_out else (math.inf if spare_usd >= 0 else 0.0)
        if tokens < 1:
            self.error, self.stopped_by = BudgetExceeded(prompt_usd + rung.price_out, left), "max_cost_usd"
            return None
        limit = tightest_limit(tokens, wanted, prompt, rung.context)
        self.budget.reserve(call.id, min(rung.most(prompt, rung.context if limit is None else limit), left))
        return call if limit is None or limit == wanted else replace(call, body=with_answer_limit(call.body, limit))

    # -- replies -------------------------------------------------------------------------------------------------------

    def receive(self, replies: Sequence[Reply], step: Step) -> list[Reply]:
        """Book the replies. If the deadline came first, add failures as replies to all running calls."""
        for reply in replies:
            self.running.pop(reply.call.id, None)
            if reply.error is not None and reply.call.timeout_s is not None:  # it may have generated until then
                self.budget.forfeit(reply.call.id)
            elif reply.error is not None:
                self.budget.refund(reply.call.id)
            elif not reply.partial:
                self.budget.commit(reply.call.id, rung_of(self.ladder, reply.call.tier).paid(reply.usage, reply.sent))
        deadline = self.limits.deadline_s
        if replies or not self.running or deadline is None or (step.until_s is not None and step.until_s < deadline):
            return list(replies)
        self.deadline_passed, self.error, self.stopped_by = True, DeadlineExceeded(deadline), "deadline_s"
        late, self.running = list(self.running.values()), {}
        self.cancel_next = [call.id for call in late]
        return [Reply(call, error=NoReplica(call.tier, self.stopped_by), at_s=deadline) for call in late]

    def finish(self, end: End) -> End:
        """The flow's own end. If a limit caused its failure, return that limit's error."""
        end = replace(end, outcomes=self.reportable(end.outcomes))
        if self.error is None:
            return end
        if isinstance(end, Fail):
            return replace(end, error=self.error)
        return replace(end, report={**end.report, "limited_by": self.stopped_by})

    def reportable(self, outcomes: Mapping[str, str]) -> dict[str, str]:
        """These and the postponed outcomes, without those of calls that were not made."""
        return {name: outcome for name, outcome in {**self.postponed, **outcomes}.items() if name not in self.unmade}


def tightest_limit(tokens: float, wanted: int | None, prompt: int, context: int) -> int | None:
    """The answer limit of a call, of the `tokens` that can be paid; None: the window is limit enough.

    It leaves room for the prompt, because a backend refuses a limit that does not fit into the window beside it.
    """
    if wanted is not None:
        return int(min(tokens, wanted))
    return None if tokens >= context else max(1, int(min(tokens, context - prompt)))
