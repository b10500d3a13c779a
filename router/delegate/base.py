"""The base of both delegation flows: run a plan's jobs, compose an answer of their results, or ask a tier for the answer."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from router.delegate import plans
from router.delegate.blocks import numbered_like
from router.delegate.gates import Considered, DelegationState
from router.delegate.jobs import Jobs
from router.delegate.plans import Job, Plan
from router.delegate.shared import Shared, Steps, failure_code
from router.delegate.splice import by_reference, references, splice
from router.errors import DeadlineExceeded, DelegationFailed, RequestFailed
from router.limits.delegation_budget import rung_of
from router.request.body import answer_limit, wants_json
from router.types import Call, Commit, End, Fail, Flow, Reply, Say, Step

LEAST_ANSWER_TOKENS = 64  # a shorter answer is not worth its price


class DelegationFlow:
    """Answers one request. `max_usd` is the client's limit for all of it; `report` becomes `usage.stepdown`."""

    def __init__(self, shared: Shared, considered: Considered, max_usd: float | None) -> None:
        self.shared = shared
        self.considered = considered
        self.max_usd = max_usd
        self.report: dict[str, Any] = considered.as_json()
        self.jobs: Jobs | None = None
        """of the latest plan that was run"""
        self.to_cancel: list[str] = []
        """ids of calls to cancel with the next step"""

    def set_state(self, state: DelegationState, why: str = "") -> None:
        self.report["delegation"] = state
        self.report |= {"why": why} if why else {}

    def cancel(self, *calls: str) -> None:
        """Give up calls: no reply to them will come."""
        self.to_cancel += calls
        for call in calls:
            self.shared.outcomes.set_if_none(call, "cancelled")

    def ask(self, calls: Sequence[Call], until_s: float | None, phase: str) -> Steps[Sequence[Reply]]:
        """Start calls, hand over the new outcomes, and return the replies that come; none if the time is over."""
        cancel, self.to_cancel = tuple(self.to_cancel), []
        replies = yield Step(tuple(calls), cancel, until_s, self.shared.outcomes.new(), phase)
        times = [reply.at_s for reply in replies] or [until_s or 0.0]
        self.shared.now_s = max(self.shared.now_s, *times)
        return replies

    def expected_usd(self, job: Job) -> float:
        chat, task = self.considered.chat, job.task
        texts = [text for ref in task.context if (text := chat.resolve(ref)) is not None]
        prompt = "\n".join([*texts, chat.part(task.each, job.part), task.prompt]).strip()
        rung = rung_of(self.shared.ladder, self.shared.route(prompt, task.difficulty))
        mean = self.shared.memory.means[self.considered.kind].part_tokens
        return rung.cost(rung.count(prompt), min(mean, task.max_tokens or mean))

    def run_jobs(self, jobs: Jobs) -> Steps[None]:
        """Run each job as soon as its dependencies are done, until all are done or time or money has run out."""
        until, states = self.shared.work_until_s, jobs.states.values()
        while self.shared.now_s < until:
            calls = jobs.start()
            if not calls and not jobs.running():
                break
            done = sum(state.done for state in states)
            for reply in (yield from self.ask(calls, until, f"subtasks {done}/{len(states)}")):
                jobs.receive(reply)
        late = self.shared.now_s >= until
        if not all(state.done for state in states):
            self.report["truncated_by"] = "deadline" if late else "budget"
        self.cancel(*jobs.stop("timeout" if late else "budget"))

    def count(self, jobs: Jobs) -> None:
        """Add the jobs of one plan to the reported counts."""
        states = jobs.states.values()
        for name, n in (
            ("subtasks", len(states)),
            ("ok", sum(state.status == "ok" for state in states)),
            ("failed", sum(state.status in ("failed", "insufficient_context") for state in states)),
            ("skipped", sum(state.status == "skipped" for state in states)),
            ("escalated", sum(state.escalations for state in states)),
        ):
            self.report[name] = self.report.get(name, 0) + n

    def composes_answer(self, plan: Plan) -> bool:
        """Whether the plan makes the answer without a final call if all its jobs succeed."""
        if wants_json(self.shared.body) or self.shared.body.get("stop"):
            return False
        chat = self.considered.chat
        one_turn = len(chat.messages) == len(chat.system) + 1
        return bool(references(plan.answer or "", self.shared.kept)) or (one_turn and plans.lone_map(plan) is not None)

    def composed(self, plan: Plan, jobs: Jobs) -> str | None:
        """The answer that the plan makes of the results; None if it makes none, or if a result is missing or not clean."""
        if plan.answer:
            kept = self.shared.kept
            used = [state for ref in references(plan.answer, kept) for state in jobs.referred_to(ref)]
            clean = used and all(state.clean for state in used)
            return splice(plan.answer, by_reference(jobs.spliceable(), kept)) if clean else None
        task = plans.lone_map(plan)
        if task is None or task.each is None or not jobs.all_clean:
            return None
        return numbered_like(self.considered.chat.blocks[task.each], [state.text for state in jobs.states.values()])

    def within_answer_limit(self, text: str) -> bool:
        limit = answer_limit(self.shared.body)
        return limit is None or self.shared.top.count(text) <= limit

    def ask_for_answer(self, body: Mapping[str, Any], splices: Mapping[str, str]) -> Flow:
        """Ask the top tier; if it fails, the smaller tiers whose window fits. The first answer is the client's."""
        deadline = self.shared.settings.deadline_s if self.shared.call_ids else None
        last: RequestFailed | None = None
        least = 0  # tokens that the window must exceed
        for rung in reversed(self.shared.ladder):
            if last and (rung.context <= least or not rung.fits(rung.input_tokens(body), answer_limit(body) or 1)):
                continue
            if deadline is not None and self.shared.now_s >= deadline:
                return self.end(Fail(DeadlineExceeded(deadline)))
            call = Call(self.shared.new_call_id("final"), rung.name, "final", body, hold=1, committed=True)
            replies = yield from self.ask([call], deadline, "final")
            if not replies:
                self.cancel(call.id)
                return self.end(Fail(DeadlineExceeded(self.shared.settings.deadline_s)))
            last = replies[0].error
            if last is None:
                self.shared.outcomes.set(call.id, "accepted")
                return self.end(Commit(call.id, splices))
            code = failure_code(last)
            self.shared.outcomes.set(call.id, code.replace("_", " "))
            if code == "request_refused" or (code == "too_long" and least):
                return self.end(Fail(last))  # a smaller tier would refuse it too
            if code == "too_long":
                least = rung.context
            self.report["degraded"] = True
        failed = DelegationFailed(f"no tier could give the answer; the last said: {last}")
        return self.end(Fail(last if last and self.jobs is None else failed))

    def end(self, end: Commit | Say | Fail) -> End:
        """The end with the new outcomes and the report."""
        report = {**self.report, "delegation": self.report["delegation"] or "direct"}
        return replace(end, outcomes=self.shared.outcomes.new(), report=report)
