"""Tool mode: the largest tier has the client's tools and one of ours, by which it hands work down. A generator; see `types.Flow`.

    turn -calls delegate-> work -> turn again, with the results as that tool's message
         -calls the client's tools only-> commit: the client runs them
         -text-> commit; where JSON is asked for and this is not it: one more call, which carries the schema and no tools

Server tools first: what a turn calls of the client's beside `stepdown_delegate` is dropped, and the tier asked again with the
results, so nothing of the client's is lost and nothing of it is run here.
"""

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from router.cascade import checks
from router.cascade.flow import WHOLE
from router.client_options import ClientLimits
from router.config import Delegation
from router.delegate import gates, plans, prompts
from router.delegate.base import LEAST_TOKENS, Errand
from router.delegate.blocks import offload
from router.delegate.delegate_call import arguments, function, is_object
from router.delegate.gates import Considered, Route, State
from router.delegate.jobs import Work
from router.delegate.memory import Memory
from router.delegate.plans import Job, Plan
from router.delegate.shared import Accept, Desk, failure
from router.errors import BadPlan, BudgetExceeded, DeadlineExceeded
from router.limits.client_limits import limit_cost
from router.limits.delegation_budget import Budget, Rung
from router.request import server_tools
from router.request.body import answer_limit, wants_json, with_answer_limit
from router.request.server_tools import DELEGATE
from router.types import Call, Commit, End, Fail, Flow, Reply, Say, Step

SPLICE = "write {{t1}} in your answer to put in the result of t1 unchanged; an id used twice means its latest result"


def tool_mode(
    body: Mapping[str, Any],
    ladder: Sequence[Rung],
    settings: Delegation,
    limits: ClientLimits,
    route: Route,
    accept: Accept,
    memory: Memory,
    special: Sequence[str] = (),
    more: Mapping[str, Any] | None = None,
    answering: Sequence[str] = (),
) -> Flow:
    """One request for the top of the ladder. body: without server tools. more: added to every worker's body.

    answering: tiers that can take the request itself; the others may still work on parts.
    """
    settings = limits.applied_to(settings)
    top = ladder[-1]
    sheet = offload(body["messages"], top.count, settings.offload_min_tokens, settings.max_subtasks)
    answer = answer_limit(body) or settings.min_answer_tokens
    direct = top.cost(top.input_tokens(body), answer)
    seen = Considered(sheet, gates.outline(sheet, settings), None, "", direct, 0.0, answer)
    budget = Budget(settings.max_cost_ratio * direct, settings.max_calls)
    desk = Desk(body, ladder, settings, route, accept, memory, budget, special, more or {})
    errand = ToolErrand(desk, seen, limits, answering)
    return (yield from limit_cost(errand.run(), limits.max_cost_usd, ladder))


class ToolErrand(Errand):
    """One request. `max_cost_ratio` bounds what the workers cost; the client's own limit bounds everything."""

    def __init__(self, desk: Desk, considered: Considered, limits: ClientLimits, answering: Sequence[str]) -> None:
        super().__init__(desk, considered, limits.max_cost_usd)
        self.told = {"delegation": None, "mode": "tool", "cost_direct_estimate_usd": considered.direct_usd}
        self.deadline_s, self.answering = limits.deadline_s, answering
        self.tools = server_tools.client_tools(desk.body)
        self.json = wants_json(desk.body)
        self.exchange: list[Mapping[str, Any]] = []
        """what was said with our tool: the client does not see it"""
        self.offered, self.strict = True, True
        self.closing = self.mended = False
        """the next call may call nothing and has the client's response_format; it is one after an answer of the wrong form"""
        self.seen: list[str] = []
        """plans so far, bad ones too"""
        self.splices: dict[str, str] = {}
        self.turns_usd = 0.0

    # -- turns -------------------------------------------------------------------------------------------------------------

    def run(self) -> Flow:
        end: End | None = None
        while end is None:
            end = self.too_dear()
            if end is None:
                end = yield from self.one_turn()
        return end

    def one_turn(self) -> Generator[Step, Sequence[Reply], End | None]:
        """Ask the tier once and do what follows from its reply; None: ask again."""
        if self.json and not self.offered and not self.tools:
            self.closing = True
        call = Call(self.desk.name("turn"), self.desk.top.name, "turn", self.capped(self.body()), self.hold())
        until = self.until_s()
        replies = yield from self.turn([call], until, "answer" if self.exchange else "turn")
        if not replies:
            self.drop(call.id)
            return self.end(Fail(DeadlineExceeded(until or 0.0)))
        reply = replies[0]
        if reply.error is not None:
            return (yield from self.failed(reply))
        self.turns_usd += self.desk.top.paid(reply.usage)
        plan = next((c for c in reply.tool_calls if server_tools.name_of(c) == DELEGATE), None)
        return (yield from self.delegated(reply, plan)) if plan and self.offered else self.answer(reply)

    def body(self) -> dict[str, Any]:
        """The client's body with what was said with our tool; the schema only where nothing can be called."""
        body = {**self.desk.body, "messages": [*self.desk.body["messages"], *self.exchange]}
        if self.closing:
            return body | ({"tool_choice": "none"} if self.tools else {})
        if self.json:
            del body["response_format"]
        if self.offered:
            settings = self.desk.settings
            ours = function(self.considered.sheet, settings.max_subtasks, self.strict, self.desk.special)
            body = {"parallel_tool_calls": False, **server_tools.with_tools(body, [*self.tools, ours])}
        return body

    def hold(self) -> int:
        """While work may be handed down no text may go out that a call could follow; JSON is looked at before it does."""
        return WHOLE if self.offered or self.json else 1

    def until_s(self) -> float | None:
        """The deadline is for delegation: a plain answer has none, unless the client gave one."""
        return self.desk.settings.deadline_s if self.exchange or self.deadline_s else None

    def too_dear(self) -> End | None:
        """The client's limit is kept before each turn: by what the first is expected to cost, then by what is left to say."""
        if self.max_usd is None:
            return None
        needed, left = self.turn_usd(LEAST_TOKENS if self.exchange else self.considered.answer_tokens), self.left_usd()
        return self.end(Fail(BudgetExceeded(needed, left))) if needed > left else None

    def left_usd(self) -> float:
        """Of the client's own limit."""
        assert self.max_usd is not None
        return self.max_usd - self.turns_usd - self.desk.budget.spent_usd

    def turn_usd(self, answer_tokens: float) -> float:
        """Price of the next turn."""
        top, body = self.desk.top, self.body()
        tools = top.count(json.dumps(body["tools"])) if "tools" in body else 0
        return top.cost(top.input_tokens(body) + tools, answer_tokens)

    def capped(self, body: dict[str, Any]) -> dict[str, Any]:
        """Once work is paid for the answer gets what is left of the client's limit, rather than none at all."""
        top = self.desk.top
        if self.max_usd is None or not self.exchange or not top.price_out:
            return body
        most = int((self.left_usd() - self.turn_usd(0)) / top.price_out)
        return with_answer_limit(body, min(most, answer_limit(body) or most))

    def failed(self, reply: Reply) -> Generator[Step, Sequence[Reply], End | None]:
        """A backend may refuse our tool: ask without what it may not like. Else as every failure of the largest tier."""
        assert reply.error is not None
        if reply.error.status in (400, 422) and self.offered:
            self.desk.outcomes.set(reply.call.id, "tool refused")
            self.offered, self.strict = self.strict, False
            if not self.offered:
                self.tell("ineligible", f"tier {self.desk.top.name} refuses the function")
            return None
        self.desk.outcomes.set(reply.call.id, failure(reply.error).replace("_", " "))
        if failure(reply.error) == "request_refused":
            return self.end(Fail(reply.error))
        self.desk.ladder = [rung for rung in self.desk.ladder if rung.name in self.answering or rung is self.desk.top]
        body = {**self.desk.body, "messages": [*self.desk.body["messages"], *self.exchange]}
        return (yield from self.answered(body, {} if self.json else self.splices))

    # -- answers -------------------------------------------------------------------------------------------------------------

    def answer(self, reply: Reply) -> End | None:
        """The client's, or None where it cannot be: then one more call is made that can only answer, twice at most."""
        calls = [call for call in reply.tool_calls if not server_tools.calls_ours(call)]
        if not calls and not self.mended and self.unfit(reply):
            self.desk.outcomes.set(reply.call.id, "schema invalid" if self.json else "no answer")
            self.offered, self.closing, self.mended = False, True, self.closing
            return None
        self.desk.outcomes.set(reply.call.id, "accepted")
        return self.end(Commit(reply.call.id, {} if self.json else dict(self.splices)))

    def unfit(self, reply: Reply) -> bool:
        """Not of the form that was asked for, or nothing but a call of a tool that is no longer there."""
        if reply.partial or checks.is_refusal(reply):
            return False
        if self.json:
            cut = self.closing and reply.finish_reason == "length"
            return not cut and not checks.fits_format(reply.text, self.desk.body)
        return bool(reply.tool_calls) and not reply.text.strip()

    def end(self, end: Commit | Say | Fail) -> End:
        made = super().end(end)
        return replace(made, hidden=tuple(self.exchange)) if isinstance(made, Commit) else made

    # -- delegation ----------------------------------------------------------------------------------------------------------

    def delegated(self, reply: Reply, call: Mapping[str, Any]) -> Generator[Step, Sequence[Reply], End | None]:
        """Run the plan and keep what was said; the end, if the plan had the whole answer's form."""
        wrote = arguments(call)
        self.offered = len(self.seen) + 1 < self.desk.settings.max_plans
        found = self.checked(reply, wrote)
        if isinstance(found, str):
            told, said = found, None
        else:
            told, said = yield from self.done(*found)
        name = str(call.get("id") or f"call_{reply.call.id}")
        # templates read the arguments as JSON, so what is none must not stay in the chat
        made = {"name": DELEGATE, "arguments": wrote if is_object(wrote) else "{}"}
        calls = [{"id": name, "type": "function", "function": made}]
        self.exchange += [
            {"role": "assistant", "content": reply.text or None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": name, "content": told},
        ]
        return said

    def checked(self, reply: Reply, wrote: str) -> tuple[Plan, tuple[Job, ...]] | str:
        """A plan with its jobs, or what the tier is told of one that is not run."""
        key, problem = wrote.strip(), ""
        try:
            plan = plans.parse(wrote)
            key = plans.canonical(plan.plan)
            jobs = plans.check(plan, self.considered.sheet, self.desk.settings.max_subtasks)
            problem = "" if jobs else "the plan is empty: answer yourself"
        except BadPlan as error:
            problem = str(error)
        if key in self.seen:
            return self.refused(reply, "loop_detected", "the same plan came again")
        self.seen.append(key)
        if problem:
            return self.refused(reply, "plan_invalid", problem)
        self.limit(len(jobs))
        if sum(map(self.expected_usd, jobs)) > self.desk.budget.left_usd:
            return self.refused(reply, "not_worth_it", "the plan is too dear")
        self.desk.outcomes.set(reply.call.id, "delegated")
        return plan, jobs

    def refused(self, reply: Reply, state: State, why: str) -> str:
        """The tool's message for a plan that is not run."""
        self.desk.outcomes.set(reply.call.id, why if state != "plan_invalid" else "plan invalid")
        self.offered = self.offered and state == "plan_invalid"
        if self.work is None or state == "loop_detected":
            self.tell(state, why)
        how = "send a corrected plan, or answer yourself" if self.offered else "answer yourself"
        return json.dumps({"error": f"not run: {why}; {how}"}, ensure_ascii=False)

    def limit(self, jobs: int) -> None:
        """Keep the client's limit for the whole request, with the price of the next turn set aside."""
        budget, settings = self.desk.budget, self.desk.settings
        budget.calls += 1  # the turn that brought the plan
        if self.max_usd is not None:
            reading = self.desk.top.cost(jobs * settings.digest_over_tokens, 0)
            left = self.left_usd() - self.turn_usd(self.considered.answer_tokens) - reading
            budget.limit_usd = min(budget.limit_usd, budget.spent_usd + max(0.0, left))

    def done(self, plan: Plan, jobs: tuple[Job, ...]) -> Generator[Step, Sequence[Reply], tuple[str, End | None]]:
        """The tool's message with every job's result or what became of it; the end where the plan composed the answer."""
        self.told.pop("why", None)
        self.work = work = Work(self.desk, self.considered.sheet, jobs)
        yield from self.worked(work)
        nodes = work.nodes.values()
        self.count(work)
        self.tell("done" if all(node.clean for node in nodes) and self.told["delegation"] != "partial" else "partial")
        self.splices |= work.spliceable()
        text = self.composed(plan, work) if plan.answer and self.says(plan) else None
        said = self.end(Say(text, self.desk.top.name)) if text and self.sayable(text) else None
        result: dict[str, Any] = {"results": work.told(), "trust": prompts.TRUST}
        if self.splices and not self.json:
            result["unchanged"] = SPLICE
        return json.dumps(result, ensure_ascii=False), said

    def count(self, work: Work) -> None:
        """Add up what became of the jobs, over all plans."""
        nodes = work.nodes.values()
        for what, n in (
            ("subtasks", len(nodes)),
            ("ok", sum(node.status == "ok" for node in nodes)),
            ("failed", sum(node.status in ("failed", "insufficient_context") for node in nodes)),
            ("skipped", sum(node.status == "skipped" for node in nodes)),
            ("escalated", sum(node.upward for node in nodes)),
        ):
            self.told[what] = self.told.get(what, 0) + n
