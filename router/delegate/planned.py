"""Delegation: the largest tier plans, smaller ones work side by side, it merges. A generator; see `types.Flow`.

gates -no-> direct
      -yes-> plan (-> repair) -none, bad, too dear-> direct
                              -> work -> say: the plan had the answer's form, or it is the list of results
                                      -> final: the largest tier merges
                                      -> direct: nothing came of it
"""

import math
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from classifiers.parts.decomposability import splits as shipped_splits
from router.config import Delegation
from router.delegate import gates, plans, prompts
from router.delegate.base import LEAST_TOKENS, Errand
from router.delegate.gates import Considered, Route, Splits
from router.delegate.jobs import Work
from router.delegate.memory import Memory
from router.delegate.plans import Job, Plan
from router.delegate.shared import Accept, Desk, failure, structured, way_asked
from router.errors import BadPlan, BudgetExceeded
from router.limits.client_limits import limit_cost
from router.limits.delegation_budget import Budget, Rung
from router.request.body import answer_limit, wants_json
from router.types import Call, Fail, Flow, Reply, Role, Say, Step

SHORTEST = 32  # tokens of {"plan": [{"each": "c1"}]} in any tokenizer, with room
HELD = "merge"  # under which the budget keeps the price of the final call


def good(tier: str, text: str, reply: Reply) -> str | None:
    """Accepts every answer."""
    return None


def delegate(
    body: Mapping[str, Any],
    ladder: Sequence[Rung],
    settings: Delegation,
    route: Route,
    accept: Accept = good,
    memory: Memory | None = None,
    splits: Splits = shipped_splits,
    special: Sequence[str] = (),
    more: Mapping[str, Any] | None = None,
    max_usd: float | None = None,
    considered: Considered | None = None,
) -> Flow:
    """One request whose tier is the top of the ladder, cheaper tiers first.

    special: all special tokens of the tiers' tokenizers. more: added to every worker's body. max_usd: the client's limit
    for the whole request: whatever the tiers answer, their calls cost no more. considered: the gates' outcome, if they
    were asked already.
    """
    memory = memory or Memory()
    seen = considered or gates.consider(body, ladder, settings, memory, route, splits, special)
    limit = min(settings.max_cost_ratio * seen.direct_usd, math.inf if max_usd is None else max_usd)
    desk = Desk(body, ladder, settings, route, accept, memory, Budget(limit, settings.max_calls), special, more or {})
    return (yield from limit_cost(Planned(desk, seen, max_usd).run(), max_usd, ladder))


class Planned(Errand):
    """One request, from the gates to its answer."""

    def __init__(self, desk: Desk, considered: Considered, max_usd: float | None) -> None:
        super().__init__(desk, considered, max_usd)
        self.plan_tokens = 0

    def run(self) -> Flow:
        if self.considered.state:
            return (yield from self.direct())
        found = yield from self.planned()
        if not found:
            return (yield from self.direct())
        plan, jobs = found
        if not self.affordable(plan, jobs):
            self.tell("not_worth_it", "the plan is too dear")
            return (yield from self.direct())
        self.work = Work(self.desk, self.considered.sheet, jobs)
        yield from self.worked(self.work)
        return (yield from self.finished(plan, self.work))

    # -- planning ----------------------------------------------------------------------------------------------------------

    def planned(self) -> Generator[Step, Sequence[Reply], tuple[Plan, tuple[Job, ...]] | None]:
        """A plan with its jobs; None for a direct answer, with the reason told. A bad plan is mended once."""
        asked = prompts.plan_messages(self.considered.sheet, self.desk.settings, self.desk.special)
        messages, before = asked, None
        for i in range(self.desk.settings.max_plans):
            reply = yield from self.ask_plan(messages, "repair" if i else "plan")
            if reply is None:
                return None
            try:
                plan = plans.parse(reply.text)
                jobs = plans.check(plan, self.considered.sheet, self.desk.settings.max_subtasks)
            except BadPlan as error:
                self.desk.outcomes.set(reply.call.id, "plan invalid")
                self.tell("plan_invalid", str(error))
                if reply.text.strip() == before:
                    self.tell("loop_detected", "the same plan came again")
                    return None
                before = reply.text.strip()
                messages = prompts.repair_messages(asked, reply.text, str(error), self.desk.special)
                continue
            self.told.pop("why", None)
            return self.received(plan, jobs, reply)
        return None

    def received(self, plan: Plan, jobs: tuple[Job, ...], reply: Reply) -> tuple[Plan, tuple[Job, ...]] | None:
        """Book a good plan."""
        self.desk.outcomes.set(reply.call.id, "accepted" if jobs else "direct")
        self.plan_tokens = reply.usage.output_tokens
        if jobs:
            return plan, jobs
        self.tell("direct")
        return None

    def ask_plan(self, messages: Sequence[Mapping[str, Any]], role: Role) -> Generator[Step, Sequence[Reply], Reply | None]:
        """The planner's answer, asked for in the best form that its backend takes; None, with the reason told, without one."""
        top = self.desk.top
        while True:
            call = self.plan_call(messages, role)
            if call is None:
                self.tell("not_worth_it" if role == "plan" else "plan_invalid", "nothing is left to plan with")
                return None
            replies = yield from self.turn([call], self.desk.work_until_s, role)
            if not replies:
                self.desk.budget.forfeit(call.id)
                self.drop(call.id)
                self.tell("plan_invalid", "deadline")
                return None
            reply = replies[0]
            self.desk.pay(reply)
            if reply.error is None:
                return reply
            self.desk.outcomes.set(call.id, failure(reply.error).replace("_", " "))
            if reply.error.status != 400 or not way_asked(call.body):
                self.tell("plan_invalid", failure(reply.error))
                return None
            self.desk.outcomes.set(call.id, "format refused")
            self.desk.memory.refuse(top.name, self.desk.memory.refused.get(top.name, 0))

    def plan_call(self, messages: Sequence[Mapping[str, Any]], role: Role) -> Call | None:
        """The call for a plan, its length bounded by the budget; None if too little is left of money, calls or time."""
        desk, top = self.desk, self.desk.top
        body: dict[str, Any] = {"messages": list(messages), "temperature": 0}
        body |= structured("plan", plans.plan_schema(desk.settings.max_subtasks), desk.memory.refused.get(top.name, 0))
        given = top.input_tokens(body)
        room = min(self.plan_room(given), self.spare_tokens(body), top.context - given)
        body["max_tokens"] = int(min(desk.settings.plan_max_tokens, room))
        left = desk.work_until_s - desk.now_s
        if body["max_tokens"] < plans.MIN_TOKENS or left <= 0:
            return None
        name = desk.name(role)
        if not desk.budget.reserve(name, top.cost(given, body["max_tokens"]), kept_calls=1):
            return None
        return Call(name, top.name, role, body, timeout_s=min(desk.settings.call_timeout_s, left))

    def plain_usd(self, answer_tokens: float) -> float:
        """Price of the request as it was sent, to the top tier, at most as the client's limit counts."""
        return self.desk.top.cost(self.desk.top.prompt_tokens(self.desk.body), answer_tokens)

    def spare_tokens(self, body: Mapping[str, Any]) -> float:
        """Tokens that a plan may have within the client's limit, the plain answer still within it afterwards.

        Where that answer is beyond the limit from the start, a plan is the only way to a whole one.
        """
        if self.max_usd is None:
            return math.inf
        top, left = self.desk.top, self.max_usd - self.desk.budget.spent_usd
        plain = self.plain_usd(self.considered.answer_tokens)
        spare = (left - plain if plain <= self.max_usd else left) - top.price_in * top.prompt_tokens(body)
        return spare / top.price_out if top.price_out else math.inf if spare >= 0 else 0

    def plan_room(self, given: int) -> int:
        """Tokens that a plan may have: half of what is left, so that little is lost on one that is cut there and is none.

        Short requests leave little: a map of one block, or twice what plans have had, is allowed if it can be paid at all.
        given: input tokens.
        """
        top, left = self.desk.top, self.desk.budget.left_usd
        if not top.price_out:
            return self.desk.settings.plan_max_tokens
        half, whole = ((part - top.price_in * given) / top.price_out for part in (left / 2, left))
        usual = max(SHORTEST, 2 * self.desk.memory.means[self.considered.kind].plan_tokens)
        return int(max(half, min(whole, usual)))

    # -- work --------------------------------------------------------------------------------------------------------------

    @property
    def tight(self) -> bool:
        """The client's limit is what bounds the delegation: answers are rather cut than not given."""
        return self.max_usd is not None and self.max_usd <= self.desk.budget.limit_usd

    def affordable(self, plan: Plan, jobs: Sequence[Job]) -> bool:
        """Whether what is left to do costs less than the plain call and fits the budget; keeps the final call's price there."""
        jobs_usd = sum(self.expected_usd(job) for job in jobs)
        join = self.desk.memory.means[self.considered.kind].join
        expected, most = (0.0, 0.0) if self.says(plan) else (self.merge_usd(len(jobs), share) for share in (join, 1.0))
        if self.tight and jobs_usd + (whole := self.merge_usd(len(jobs), 1.0)) <= self.desk.budget.left_usd:
            most = whole  # a plan that says the answer needs a final call after all where a part fails
        if jobs_usd + expected > self.considered.direct_usd or not self.desk.budget.hold(HELD, most):
            return False
        return jobs_usd <= self.desk.budget.left_usd

    def merge_usd(self, jobs: int, share: float) -> float:
        """Price of the final call when every result is as long as results are. share: of the plain answer's length."""
        top, mean = self.desk.top, self.desk.memory.means[self.considered.kind].part_tokens
        stubs = {"messages": self.considered.sheet.without_blocks(self.desk.settings.preview_chars)}
        results = jobs * min(mean, self.desk.settings.digest_over_tokens)
        return top.cost(top.input_tokens(stubs) + results, share * self.considered.answer_tokens)

    # -- the answer --------------------------------------------------------------------------------------------------------

    def finished(self, plan: Plan, work: Work) -> Flow:
        """Say what the plan composed, or have the results merged, or answer directly if there are none."""
        nodes = work.nodes.values()
        self.told |= {"subtasks": len(nodes)} | {
            what: sum(node.status in states for node in nodes)
            for what, states in (("ok", ("ok",)), ("failed", ("failed", "insufficient_context")), ("skipped", ("skipped",)))
        }
        self.told |= {"escalated": sum(node.upward for node in nodes), "shared": sum(node.twin is not None for node in nodes)}
        if not work.spliceable():
            self.tell("direct", "all subtasks failed")
            return (yield from self.direct())
        text = self.composed(plan, work) if self.says(plan) else None
        self.learn(work, merged=text is None)
        if text is None or not self.sayable(text):
            return (yield from self.merged(work))
        self.tell("done" if all(node.clean for node in nodes) else "partial")
        return self.end(Say(text, self.desk.top.name))

    def merged(self, work: Work) -> Flow:
        """The final call: its prompt has stubs for the blocks and every job's result or what became of it."""
        desk = self.desk
        splices = {} if wants_json(desk.body) else work.spliceable()
        messages = prompts.merge_messages(work.sheet, work.told(), desk.settings, bool(splices))
        body = {**desk.body, "messages": messages}
        desk.budget.refund(HELD)
        given, answer = desk.top.input_tokens(body), self.considered.answer_tokens
        needed = desk.top.cost(given, min(answer, LEAST_TOKENS) if self.tight else answer)
        if not desk.top.fits(given, answer_limit(desk.body) or 1) or not desk.budget.hold(HELD, needed):
            self.tell("direct", "nothing is left to merge with")
            return (yield from self.direct())
        self.tell("done" if all(node.clean for node in work.nodes.values()) else "partial")
        return (yield from self.answered(body, splices))

    def direct(self) -> Flow:
        """The request as it was sent, to the top tier."""
        if self.max_usd is not None:
            left = self.max_usd - self.desk.budget.spent_usd
            needed = self.plain_usd(min(self.considered.answer_tokens, LEAST_TOKENS))
            if needed > left:
                return self.end(Fail(BudgetExceeded(needed, left)))
        return (yield from self.answered(self.desk.body, {}))

    def learn(self, work: Work, merged: bool) -> None:
        """Let later estimates know what this delegation was like."""
        nodes = [node for node in work.nodes.values() if node.calls]
        if not nodes:
            return
        self.desk.memory.learn(
            self.considered.kind,
            {
                "plan_tokens": self.plan_tokens,
                "part_tokens": sum(node.tokens for node in nodes) / len(nodes),
                "again": sum(max(0, node.calls - 1 - node.upward) for node in nodes) / len(nodes),
                "upward": sum(node.upward for node in nodes) / len(nodes),
                "merged": float(merged),
            },
        )
