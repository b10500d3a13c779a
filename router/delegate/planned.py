"""The planned flow: the largest tier plans, smaller tiers work side by side, the largest merges. A generator; see `types.Flow`.

gates -no-> direct
      -yes-> plan (-> repair) -none, bad, too dear-> direct
                              -> jobs -> say: the plan contains the answer's form, or the answer is the list of results
                                      -> final: the largest tier merges the results
                                      -> direct: there are no results
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from router.config import Delegation
from router.delegate import plans, prompts
from router.delegate.base import LEAST_ANSWER_TOKENS, DelegationFlow
from router.delegate.gates import Considered, Route
from router.delegate.jobs import Jobs
from router.delegate.memory import Memory
from router.delegate.plans import Job, Plan
from router.delegate.shared import JudgeSubtask, Shared, Steps, failure_code
from router.delegate.splice import by_reference
from router.errors import BadPlan, BudgetExceeded
from router.limits.client_limits import limit_cost
from router.limits.delegation_budget import Budget, Rung
from router.request.body import answer_limit, wants_json
from router.types import Call, Fail, Flow, Reply, Role, Say

SHORTEST_PLAN = 32  # tokens of {"plan": [{"each": "c1"}]} in any tokenizer, with room
FINAL_CALL = "merge"  # name under which the budget holds the price of the final call


def delegate(
    body: Mapping[str, Any],
    ladder: Sequence[Rung],
    settings: Delegation,
    route: Route,
    judge: JudgeSubtask,
    memory: Memory,
    considered: Considered,
    special: Sequence[str] = (),
    worker_fields: Mapping[str, Any] | None = None,
    max_usd: float | None = None,
) -> Flow:
    """Answer a request that was routed to the top of the ladder. ladder: cheapest tier first.

    special, worker_fields: see `Shared`. max_usd: the client's strict limit for the whole request.
    """
    limit = min(settings.max_cost_ratio * considered.direct_usd, math.inf if max_usd is None else max_usd)
    budget = Budget(limit, settings.max_calls)
    shared = Shared(body, ladder, settings, route, judge, memory, budget, special, worker_fields or {})
    return (yield from limit_cost(PlanMode(shared, considered, max_usd).run(), max_usd, ladder))


class PlanMode(DelegationFlow):
    """Answers one request by a plan that a call of its own asks for."""

    def __init__(self, shared: Shared, considered: Considered, max_usd: float | None) -> None:
        super().__init__(shared, considered, max_usd)
        self.plan_tokens = 0

    def run(self) -> Flow:
        found = None if self.considered.state else (yield from self.make_plan())
        if found and not self.worth_running(*found):
            self.set_state("not_worth_it", "the plan is too dear")
            found = None
        if not found:
            return (yield from self.direct())
        plan, todo = found
        self.jobs = Jobs(self.shared, self.considered.chat, todo)
        yield from self.run_jobs(self.jobs)
        return (yield from self.finish(plan, self.jobs))

    # -- planning ----------------------------------------------------------------------------------------------------------

    def make_plan(self) -> Steps[tuple[Plan, tuple[Job, ...]] | None]:
        """A plan with its jobs; None for a direct answer, with the reason reported. The planner may repair a bad plan."""
        asked = prompts.plan_messages(self.considered.chat, self.shared.settings, self.shared.special, self.shared.kept)
        messages, before = asked, None
        for i in range(self.shared.settings.max_plans):
            reply = yield from self.ask_plan(messages, "repair" if i else "plan")
            if reply is None:
                return None
            try:
                plan = plans.parse(reply.text)
                todo = plans.checked_jobs(plan, self.considered.chat, self.shared.settings.max_subtasks, self.shared.kept)
            except BadPlan as error:
                self.shared.outcomes.set(reply.call.id, "plan invalid")
                self.set_state("plan_invalid", str(error))
                if reply.text.strip() == before:
                    self.set_state("loop_detected", "the same plan came again")
                    return None
                before = reply.text.strip()
                messages = prompts.repair_messages(asked, reply.text, str(error), self.shared.special)
                continue
            self.report.pop("why", None)
            self.shared.outcomes.set(reply.call.id, "accepted" if todo else "direct")
            self.plan_tokens = reply.usage.output_tokens
            if todo:
                return plan, todo
            self.set_state("direct")
            return None
        return None

    def ask_plan(self, messages: Sequence[Mapping[str, Any]], role: Role) -> Steps[Reply | None]:
        """The planner's answer, in the best JSON format that its backend takes; None, with the reason reported, if none comes."""
        while True:
            call = self.plan_call(messages, role)
            if call is None:
                self.set_state("not_worth_it" if role == "plan" else "plan_invalid", "nothing is left to plan with")
                return None
            replies = yield from self.ask([call], self.shared.work_until_s, role)
            if not replies:
                self.shared.budget.forfeit(call.id)
                self.cancel(call.id)
                self.set_state("plan_invalid", "deadline")
                return None
            reply = replies[0]
            self.shared.book(reply)
            if reply.error is None:
                return reply
            if not self.shared.refused_json_field(reply):
                code = failure_code(reply.error)
                self.shared.outcomes.set(call.id, code.replace("_", " "))
                self.set_state("plan_invalid", code)
                return None

    def plan_call(self, messages: Sequence[Mapping[str, Any]], role: Role) -> Call | None:
        """The call for a plan, its length bounded by the budget; None if too little money, calls or time is left."""
        shared, top = self.shared, self.shared.top
        body: dict[str, Any] = {"messages": list(messages), "temperature": 0}
        body |= shared.json_field(top.name, "plan", plans.plan_schema(shared.settings.max_subtasks))
        given = top.input_tokens(body)
        room = min(self.plan_room(given), self.spare_tokens(body), top.context - given)
        body["max_tokens"] = int(min(shared.settings.plan_max_tokens, room))
        left = shared.work_until_s - shared.now_s
        if body["max_tokens"] < plans.MIN_TOKENS or left <= 0:
            return None
        name = shared.new_call_id(role)
        if not shared.budget.reserve(name, top.cost(given, body["max_tokens"]), kept_calls=1):
            return None
        return Call(name, top.name, role, body, timeout_s=min(shared.settings.call_timeout_s, left))

    def plain_usd(self, answer_tokens: float) -> float:
        """Upper bound on the price of the plain call, counted as the client's limit counts it."""
        return self.shared.top.most(self.shared.top.prompt_tokens(self.shared.body), answer_tokens)

    def spare_tokens(self, body: Mapping[str, Any]) -> float:
        """Output tokens that a plan may have so that the client's limit still covers the plain answer after it.

        If the limit does not cover the plain answer anyway, a plan is the only way to a whole answer and may use all of it.
        """
        if self.max_usd is None:
            return math.inf
        top, spare = self.shared.top, self.max_usd - self.shared.budget.spent_usd
        plain = self.plain_usd(self.considered.answer_tokens)
        if plain <= self.max_usd:
            spare -= plain
        spare -= top.most(top.prompt_tokens(body), 0)
        if top.price_out:
            return spare / top.price_out
        return math.inf if spare >= 0 else 0

    def plan_room(self, given: int) -> int:
        """Output tokens that the budget allows a plan: half of what is left, because a plan that is cut off is lost.

        Half is little for a short request. A map of one block, or twice the usual length of plans, is therefore allowed whenever
        the budget can pay it. given: input tokens.
        """
        top, left = self.shared.top, self.shared.budget.left_usd
        if not top.price_out:
            return self.shared.settings.plan_max_tokens
        half, whole = ((part - top.price_in * given) / top.price_out for part in (left / 2, left))
        usual = max(SHORTEST_PLAN, 2 * self.shared.memory.means[self.considered.kind].plan_tokens)
        return int(max(half, min(whole, usual)))

    # -- jobs --------------------------------------------------------------------------------------------------------------

    @property
    def client_limit_binds(self) -> bool:
        """Whether the client's limit bounds the delegation, not ours. Then a truncated answer is better than none."""
        return self.max_usd is not None and self.max_usd <= self.shared.budget.limit_usd

    def worth_running(self, plan: Plan, todo: Sequence[Job]) -> bool:
        """Whether the rest costs less than the plain call and fits the budget, which then holds the price of the final call."""
        jobs_usd = sum(self.expected_usd(job) for job in todo)
        expected = most = 0.0
        if not self.composes_answer(plan):
            join = self.shared.memory.means[self.considered.kind].join
            expected, most = (self.merge_usd(len(todo), share) for share in (join, 1.0))
        if self.client_limit_binds and jobs_usd + (whole := self.merge_usd(len(todo), 1.0)) <= self.shared.budget.left_usd:
            most = whole  # a plan that composes the answer needs a final call after all if a job fails
        if jobs_usd + expected > self.considered.direct_usd or not self.shared.budget.hold(FINAL_CALL, most):
            return False
        return jobs_usd <= self.shared.budget.left_usd

    def merge_usd(self, jobs: int, share: float) -> float:
        """Expected price of the final call. share: its answer's length as a share of the plain answer's."""
        top, settings = self.shared.top, self.shared.settings
        stubs = self.considered.chat.with_stubs(settings.preview_chars)
        results = jobs * min(self.shared.memory.means[self.considered.kind].part_tokens, settings.digest_over_tokens)
        return top.cost(top.input_tokens({"messages": stubs}) + results, share * self.considered.answer_tokens)

    # -- the answer --------------------------------------------------------------------------------------------------------

    def finish(self, plan: Plan, jobs: Jobs) -> Flow:
        """Give the answer that the plan composes, or have the results merged, or answer directly if there are none."""
        self.count(jobs)
        self.report["shared"] = sum(state.same_as is not None for state in jobs.states.values())
        if not jobs.spliceable():
            self.set_state("direct", "all subtasks failed")
            return (yield from self.direct())
        text = self.composed(plan, jobs) if self.composes_answer(plan) else None
        self.learn(jobs, merged=text is None)
        if text is None or not self.within_answer_limit(text):
            return (yield from self.merge(jobs))
        self.set_state("done" if jobs.all_clean else "partial")
        return self.end(Say(text, self.shared.top.name))

    def merge(self, jobs: Jobs) -> Flow:
        """The final call: stubs in the place of blocks, and every job's result or what became of it."""
        shared, top = self.shared, self.shared.top
        splices = {} if wants_json(shared.body) else by_reference(jobs.spliceable(), shared.kept)
        messages = prompts.merge_messages(jobs.chat, jobs.listed(), shared.settings, bool(splices), shared.kept)
        body = {**shared.body, "messages": messages}
        shared.budget.refund(FINAL_CALL)
        given, answer = top.input_tokens(body), self.considered.answer_tokens
        needed = top.cost(given, min(answer, LEAST_ANSWER_TOKENS) if self.client_limit_binds else answer)
        if not top.fits(given, answer_limit(shared.body) or 1) or not shared.budget.hold(FINAL_CALL, needed):
            self.set_state("direct", "nothing is left to merge with")
            return (yield from self.direct())
        self.set_state("done" if jobs.all_clean else "partial")
        return (yield from self.ask_for_answer(body, splices))

    def direct(self) -> Flow:
        """The plain call: the request as the client sent it, to the top tier."""
        if self.max_usd is not None:
            left = self.max_usd - self.shared.budget.spent_usd
            needed = self.plain_usd(min(self.considered.answer_tokens, LEAST_ANSWER_TOKENS))
            if needed > left:
                return self.end(Fail(BudgetExceeded(needed, left)))
        return (yield from self.ask_for_answer(self.shared.body, {}))

    def learn(self, jobs: Jobs, merged: bool) -> None:
        """Add this delegation to the means that later estimates use."""
        asked = [state for state in jobs.states.values() if state.calls]
        if not asked:
            return
        self.shared.memory.learn(
            self.considered.kind,
            {
                "plan_tokens": self.plan_tokens,
                "part_tokens": sum(state.tokens for state in asked) / len(asked),
                "retries": sum(max(0, state.calls - 1 - state.escalations) for state in asked) / len(asked),
                "escalations": sum(state.escalations for state in asked) / len(asked),
                "merged": float(merged),
            },
        )
