"""Tool mode: the largest tier has the client's tools and a function that delegates. A generator; see `types.Flow`.

    turn -calls our function-> jobs -> another turn, with the results as that function's message
         -calls only the client's tools-> commit: the client runs them
         -text-> commit; if it is not the JSON that was asked for: one more call, with the schema and without tools

If a turn calls our function and the client's tools, the calls of the latter are dropped and the tier is asked again with the
results. It can repeat those calls; none of them is run here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from router.cascade import checks
from router.cascade.flow import WHOLE
from router.client_options import ClientLimits
from router.config import Delegation
from router.delegate import gates, plans, prompts
from router.delegate.base import LEAST_ANSWER_TOKENS, DelegationFlow
from router.delegate.blocks import offload
from router.delegate.delegate_call import arguments_text, delegate_function, is_json_object
from router.delegate.gates import Considered, DelegationState, Route
from router.delegate.jobs import Jobs
from router.delegate.memory import Memory
from router.delegate.plans import Job, Plan
from router.delegate.shared import JudgeSubtask, Shared, Steps, failure_code
from router.delegate.splice import by_reference
from router.errors import BadPlan, BudgetExceeded, DeadlineExceeded
from router.limits.client_limits import limit_cost
from router.limits.delegation_budget import Budget, Rung
from router.request import server_tools
from router.request.body import answer_limit, wants_json, with_answer_limit
from router.request.server_tools import DELEGATE
from router.types import Call, Commit, End, Fail, Flow, Reply, Say


def tool_mode(
    body: Mapping[str, Any],
    ladder: Sequence[Rung],
    settings: Delegation,
    limits: ClientLimits,
    route: Route,
    judge: JudgeSubtask,
    memory: Memory,
    special: Sequence[str] = (),
    worker_fields: Mapping[str, Any] | None = None,
    answering: Sequence[str] = (),
) -> Flow:
    """Answer a request that was routed to the top of the ladder. body: without server tools.

    special, worker_fields: see `Shared`. answering: tiers that may answer if the top fails; the others only work on subtasks.
    """
    settings = limits.applied_to(settings)
    top = ladder[-1]
    chat = offload(body["messages"], top.count, settings.offload_min_tokens, settings.max_subtasks)
    answer = answer_limit(body) or settings.min_answer_tokens
    direct = top.cost(min(top.expected_tokens(body["messages"]), top.prompt_tokens(body)), answer)
    considered = Considered(chat, gates.outline(chat, settings), None, "", direct, 0.0, answer)
    budget = Budget(settings.max_cost_ratio * direct, settings.max_calls)
    shared = Shared(body, ladder, settings, route, judge, memory, budget, special, worker_fields or {})
    return (yield from limit_cost(ToolMode(shared, considered, limits, answering).run(), limits.max_cost_usd, ladder))


class ToolMode(DelegationFlow):
    """Answers one request in turns. `max_cost_ratio` bounds what the workers cost, the client's limit what everything costs."""

    def __init__(self, shared: Shared, considered: Considered, limits: ClientLimits, answering: Sequence[str]) -> None:
        super().__init__(shared, considered, limits.max_cost_usd)
        self.report = {"delegation": None, "mode": "tool", "cost_direct_estimate_usd": considered.direct_usd}
        self.deadline_s = limits.deadline_s
        self.answering = answering
        self.tools = server_tools.client_tools(shared.body)
        self.json = wants_json(shared.body)
        self.exchange: list[Mapping[str, Any]] = []
        """calls of our function and their results; the client does not see them"""
        self.offered = True
        """the next call offers our function"""
        self.strict = True
        """our function is offered with `strict`"""
        self.closing = False
        """the next call may call no tool and carries the client's response_format"""
        self.repaired = False
        """a closing call gave an answer of the wrong form; the answer to the next call stands as it is"""
        self.seen: list[str] = []
        """all plans so far, bad ones too"""
        self.splices: dict[str, str] = {}
        self.turns_usd = 0.0

    # -- turns -------------------------------------------------------------------------------------------------------------

    def run(self) -> Flow:
        while True:
            end = self.beyond_client_limit() or (yield from self.one_turn())
            if end:
                return end

    def one_turn(self) -> Steps[End | None]:
        """Ask the tier once and act on its reply; None: ask again."""
        if self.json and not self.offered and not self.tools:
            self.closing = True
        hold = WHOLE if self.offered or self.json else 1  # a call of our function could follow the text; JSON is checked first
        committed = hold == 1 and (self.repaired or not self.exchange)  # else it may call our function, not offered any more
        call = Call(
            self.shared.new_call_id("turn"), self.shared.top.name, "turn", self.capped(self.body()), hold, committed=committed
        )
        # the server's deadline is for delegation: a plain answer has none, unless the client gave one
        until = self.shared.settings.deadline_s if self.exchange or self.deadline_s else None
        replies = yield from self.ask([call], until, "answer" if self.exchange else "turn")
        if not replies:
            self.cancel(call.id)
            return self.end(Fail(DeadlineExceeded(until or 0.0)))
        reply = replies[0]
        if reply.error is not None:
            return (yield from self.after_failure(reply))
        self.turns_usd += self.shared.top.paid(reply.usage)
        plan = next((c for c in reply.tool_calls if server_tools.name_of(c) == DELEGATE), None)
        return (yield from self.delegate(reply, plan)) if plan and self.offered else self.answer(reply)

    def with_exchange(self) -> dict[str, Any]:
        return {**self.shared.body, "messages": [*self.shared.body["messages"], *self.exchange]}

    def body(self) -> dict[str, Any]:
        """The next turn's body; it carries the client's response_format only when no tool can be called."""
        body = self.with_exchange()
        if self.closing:
            return body | ({"tool_choice": "none"} if self.tools else {})
        if self.json:
            del body["response_format"]
        if self.offered:
            most = self.shared.settings.max_subtasks
            ours = delegate_function(self.considered.chat, most, self.strict, self.shared.special, self.shared.kept)
            body = {"parallel_tool_calls": False, **server_tools.with_tools(body, [*self.tools, ours])}
        return body

    def beyond_client_limit(self) -> End | None:
        """The failing end if the client's limit does not cover the next turn."""
        if self.max_usd is None:
            return None
        # a first answer counts at its expected length; once workers were paid, the shortest that is worth its price will do
        needed, left = self.turn_usd(LEAST_ANSWER_TOKENS if self.exchange else self.considered.answer_tokens), self.left_usd()
        return self.end(Fail(BudgetExceeded(needed, left))) if needed > left else None

    def left_usd(self) -> float:
        """What is left of the client's limit."""
        assert self.max_usd is not None
        return self.max_usd - self.turns_usd - self.shared.budget.spent_usd

    def turn_usd(self, answer_tokens: float) -> float:
        """Price of the next turn with an answer of that length."""
        top = self.shared.top
        return top.most(top.input_tokens(self.body()), answer_tokens)

    def capped(self, body: dict[str, Any]) -> dict[str, Any]:
        """After paid work, cut the answer to what is left of the client's limit: a truncated answer is better than none."""
        top = self.shared.top
        if self.max_usd is None or not self.exchange or not top.price_out:
            return body
        most = int((self.left_usd() - self.turn_usd(0)) / top.price_out)
        return with_answer_limit(body, min(most, answer_limit(body) or most))

    def after_failure(self, reply: Reply) -> Steps[End | None]:
        """A backend may refuse our function: ask first without `strict`, then without it. Otherwise ask smaller tiers."""
        assert reply.error is not None
        if self.offered and checks.refuses_field(reply):
            self.shared.outcomes.set(reply.call.id, "tool refused")
            self.offered, self.strict = self.strict, False
            if not self.offered:
                self.set_state("ineligible", f"tier {self.shared.top.name} refuses the function")
            return None
        code = failure_code(reply.error)
        self.shared.outcomes.set(reply.call.id, code.replace("_", " "))
        if code == "request_refused":
            return self.end(Fail(reply.error))
        self.shared.ladder = [rung for rung in self.shared.ladder if rung.name in self.answering or rung is self.shared.top]
        return (yield from self.ask_for_answer(self.with_exchange(), {} if self.json else self.splices))

    # -- answers -----------------------------------------------------------------------------------------------------------

    def answer(self, reply: Reply) -> End | None:
        """The client's answer; None if it is of the wrong form, so that a closing call is made, at most twice."""
        calls = [call for call in reply.tool_calls if not server_tools.calls_ours(call)]
        if not calls and not self.repaired and self.unfit(reply):
            self.shared.outcomes.set(reply.call.id, "schema invalid" if self.json else "no answer")
            self.offered = False
            self.repaired = self.closing
            self.closing = True
            return None
        self.shared.outcomes.set(reply.call.id, "accepted")
        return self.end(Commit(reply.call.id, {} if self.json else dict(self.splices)))

    def unfit(self, reply: Reply) -> bool:
        """Whether it lacks the form that was asked for, or only calls our function though it is no longer offered."""
        if reply.partial or checks.is_refusal(reply):
            return False
        if self.json:
            cut = self.closing and reply.finish_reason == "length"
            return not cut and not checks.fits_format(reply.text, self.shared.body)
        return bool(reply.tool_calls) and not reply.text.strip()

    def end(self, end: Commit | Say | Fail) -> End:
        made = super().end(end)
        return replace(made, hidden=tuple(self.exchange)) if isinstance(made, Commit) else made

    # -- delegation --------------------------------------------------------------------------------------------------------

    def delegate(self, reply: Reply, call: Mapping[str, Any]) -> Steps[End | None]:
        """Run the plan and add it to the exchange with its results; returns the end if the plan composes the whole answer."""
        wrote = arguments_text(call)
        self.offered = len(self.seen) + 1 < self.shared.settings.max_plans
        found = self.checked_plan(reply, wrote)
        if isinstance(found, str):
            result, end = found, None
        else:
            result, end = yield from self.run_plan(*found)
        name = str(call.get("id") or f"call_{reply.call.id}")
        # chat templates read the arguments as JSON, so nothing else may stay in the chat
        function = {"name": DELEGATE, "arguments": wrote if is_json_object(wrote) else "{}"}
        calls = [{"id": name, "type": "function", "function": function}]
        self.exchange += [
            {"role": "assistant", "content": reply.text or None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": name, "content": result},
        ]
        return end

    def checked_plan(self, reply: Reply, wrote: str) -> tuple[Plan, tuple[Job, ...]] | str:
        """A plan with its jobs, or the function's result if the plan is not run."""
        key, problem = wrote.strip(), ""
        try:
            plan = plans.parse(wrote)
            key = plans.canonical(plan.plan)
            todo = plans.checked_jobs(plan, self.considered.chat, self.shared.settings.max_subtasks, self.shared.kept)
            problem = "" if todo else "the plan is empty: answer yourself"
        except BadPlan as error:
            problem = str(error)
        if key in self.seen:
            return self.refused(reply, "loop_detected", "the same plan came again")
        self.seen.append(key)
        if problem:
            return self.refused(reply, "plan_invalid", problem)
        self.narrow_budget(len(todo))
        if sum(map(self.expected_usd, todo)) > self.shared.budget.left_usd:
            return self.refused(reply, "not_worth_it", "the plan is too dear")
        self.shared.outcomes.set(reply.call.id, "delegated")
        return plan, todo

    def refused(self, reply: Reply, state: DelegationState, why: str) -> str:
        """The function's result for a plan that is not run."""
        self.shared.outcomes.set(reply.call.id, why if state != "plan_invalid" else "plan invalid")
        self.offered = self.offered and state == "plan_invalid"
        if self.jobs is None or state == "loop_detected":
            self.set_state(state, why)
        how = "send a corrected plan, or answer yourself" if self.offered else "answer yourself"
        return json.dumps({"error": f"not run: {why}; {how}"}, ensure_ascii=False)

    def narrow_budget(self, jobs: int) -> None:
        """Narrow the workers' budget to the client's limit, less the price of the turn that reads their results."""
        budget, settings = self.shared.budget, self.shared.settings
        budget.calls += 1  # the turn that brought the plan
        if self.max_usd is not None:
            reading = self.shared.top.cost(jobs * settings.digest_over_tokens, 0)
            left = self.left_usd() - self.turn_usd(self.considered.answer_tokens) - reading
            budget.limit_usd = min(budget.limit_usd, budget.spent_usd + max(0.0, left))

    def run_plan(self, plan: Plan, todo: tuple[Job, ...]) -> Steps[tuple[str, End | None]]:
        """The function's result: what became of every job. The end, if the plan composes the answer."""
        self.report.pop("why", None)
        self.jobs = jobs = Jobs(self.shared, self.considered.chat, todo)
        yield from self.run_jobs(jobs)
        self.count(jobs)
        self.set_state("done" if jobs.all_clean and self.report["delegation"] != "partial" else "partial")
        self.splices |= by_reference(jobs.spliceable(), self.shared.kept)
        text = self.composed(plan, jobs) if plan.answer and self.composes_answer(plan) else None
        end = self.end(Say(text, self.shared.top.name)) if text and self.within_answer_limit(text) else None
        result: dict[str, Any] = {"results": jobs.listed(), "trust": prompts.TRUST}
        if self.splices and not self.json:
            result["unchanged"] = prompts.told("use_results", self.shared.kept)
        return json.dumps(result, ensure_ascii=False), end
