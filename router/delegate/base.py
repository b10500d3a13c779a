"""What every delegation does, planned or called for: work on a plan's jobs, compose an answer of them, ask for the final one."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from router.delegate import plans
from router.delegate.blocks import numbered_like
from router.delegate.gates import Considered, State
from router.delegate.jobs import Work
from router.delegate.plans import Job, Plan
from router.delegate.shared import Desk, failure
from router.delegate.splice import references, splice
from router.errors import DeadlineExceeded, DelegationFailed, RequestFailed
from router.limits.delegation_budget import rung_of
from router.request.body import answer_limit, wants_json
from router.types import Call, Commit, End, Fail, Flow, Reply, Say, Step

LEAST_TOKENS = 64  # of an answer, for it to be worth its price
Asking = Generator[Step, Sequence[Reply], Sequence[Reply]]


class Errand:
    """One request."""

    def __init__(self, desk: Desk, considered: Considered, max_usd: float | None) -> None:
        self.desk, self.considered, self.max_usd = desk, considered, max_usd
        self.told: dict[str, Any] = considered.told()
        self.work: Work | None = None
        self.dropped: list[str] = []
        """calls to cancel with the next step"""

    def tell(self, state: State, why: str = "") -> None:
        self.told["delegation"] = state
        self.told |= {"why": why} if why else {}

    def drop(self, *calls: str) -> None:
        """Give up calls: no reply to them will come."""
        self.dropped += calls
        for call in calls:
            self.desk.outcomes.set_if_none(call, "cancelled")

    def turn(self, calls: Sequence[Call], until_s: float | None, phase: str) -> Asking:
        """Ask the driver, say what became of earlier replies, and keep the time."""
        cancel, self.dropped = tuple(self.dropped), []
        replies = yield Step(tuple(calls), cancel, until_s, self.desk.outcomes.new(), phase)
        times = [reply.at_s for reply in replies] or [until_s or 0.0]
        self.desk.now_s = max(self.desk.now_s, *times)
        return replies

    # -- work --------------------------------------------------------------------------------------------------------------

    def expected_usd(self, job: Job) -> float:
        sheet, task = self.considered.sheet, job.task
        part = sheet.blocks[task.each].part(job.part) if task.each and job.part else ""
        told = "\n".join([*(sheet.text_of(ref) for ref in task.context if sheet.has(ref)), part, task.prompt]).strip()
        rung = rung_of(self.desk.ladder, self.desk.route(told, task.difficulty))
        mean = self.desk.memory.means[self.considered.kind].part_tokens
        return rung.cost(rung.count(told), min(mean, task.max_tokens or mean))

    def worked(self, work: Work) -> Generator[Step, Sequence[Reply], None]:
        """Run the jobs, each as soon as what it needs is there, until all are done or time or money is."""
        until = self.desk.work_until_s
        while self.desk.now_s < until:
            calls = work.start()
            if not calls and not work.running():
                break
            done = sum(node.done for node in work.nodes.values())
            replies = yield from self.turn(calls, until, f"subtasks {done}/{len(work.nodes)}")
            for reply in replies:
                work.take(reply)
        late = self.desk.now_s >= until
        unfinished = not all(node.done for node in work.nodes.values())
        if unfinished:
            self.told["truncated_by"] = "deadline" if late else "budget"
        self.drop(*work.stop("timeout" if late else "budget"))

    # -- the answer --------------------------------------------------------------------------------------------------------

    def says(self, plan: Plan) -> bool:
        """Whether the plan, if all goes well, makes the answer without a final call."""
        if wants_json(self.desk.body) or self.desk.body.get("stop"):
            return False
        return bool(references(plan.answer or "")) or (plans.lone_map(plan) is not None and self.considered.sheet.turns == 1)

    def composed(self, plan: Plan, work: Work) -> str | None:
        """The answer made of results; None where one of them is not fit for it."""
        if plan.answer:
            used = [node for ref in references(plan.answer) for node in work.behind(ref)]
            return splice(plan.answer, work.spliceable()) if used and all(node.clean for node in used) else None
        task, nodes = plans.lone_map(plan), list(work.nodes.values())
        if task is None or task.each is None or not all(node.clean for node in nodes):
            return None
        return numbered_like(self.considered.sheet.blocks[task.each], [node.text for node in nodes])

    def sayable(self, text: str) -> bool:
        """Within the length that the client allowed."""
        asked = answer_limit(self.desk.body)
        return asked is None or self.desk.top.count(text) <= asked

    def answered(self, body: Mapping[str, Any], splices: Mapping[str, str]) -> Flow:
        """Ask the top tier, then smaller ones that fit if it fails; the first that answers is the client's."""
        deadline = self.desk.settings.deadline_s if self.desk.used else None
        last: RequestFailed | None = None
        for rung in reversed(self.desk.ladder):
            if last and not rung.fits(rung.input_tokens(body), answer_limit(body) or 1):
                continue
            if deadline is not None and self.desk.now_s >= deadline:
                return self.end(Fail(DeadlineExceeded(deadline)))
            call = Call(self.desk.name("final"), rung.name, "final", body, hold=1)
            replies = yield from self.turn([call], deadline, "final")
            if not replies:
                self.drop(call.id)
                return self.end(Fail(DeadlineExceeded(self.desk.settings.deadline_s)))
            last = replies[0].error
            if last is None:
                self.desk.outcomes.set(call.id, "accepted")
                return self.end(Commit(call.id, splices))
            self.desk.outcomes.set(call.id, failure(last).replace("_", " "))
            if failure(last) == "request_refused":
                break  # a smaller tier would refuse it too
            self.told["degraded"] = True
        return self.end(Fail(self.failure(last)))

    def failure(self, last: RequestFailed | None) -> RequestFailed:
        """The tier's own error where nothing was delegated, else ours."""
        if last is not None and (self.work is None or failure(last) == "request_refused"):
            return last
        return DelegationFailed(f"no tier could give the answer; the last said: {last}")

    def end(self, end: Commit | Say | Fail) -> End:
        """The end with all that is to be said of the request."""
        told = {**self.told, "delegation": self.told["delegation"] or "direct"}
        outcomes = self.desk.outcomes.new()
        if isinstance(end, Commit):
            return Commit(end.call_id, end.splice, outcomes, told)
        return Say(end.text, end.tier, outcomes, told) if isinstance(end, Say) else Fail(end.error, outcomes, told)
