"""The jobs of one plan on their way: which may start, which tier takes each, what an answer is worth, where it goes next.

pending -> running -> ok | insufficient_context
                   -> pending again: the same tier once (form, length, backend), then the next tier once;
                      low confidence goes up until the top
                   -> failed(code)
pending -> skipped: what it depends on is not there
"""

import json
from collections.abc import Sequence
from typing import Any

from classifiers.parts.cut import asks
from router.delegate import plans, prompts
from router.delegate.blocks import Sheet, neutral
from router.delegate.plans import Job, Subtask
from router.delegate.results import Brief, Node, Results, as_text, quoted, read_result
from router.delegate.sanitise import inert, neutralise
from router.delegate.shared import Desk, failure, structured, way_asked, way_of
from router.limits.delegation_budget import Rung, rung_of
from router.types import Call, Reply

AGAIN = 0.7  # temperature of a second try: at 0 the same wrong answer would come again
LEAST_ROOM = 64  # tokens that a window must leave for an answer, if as many are wanted
SAME_TIER = {"schema_invalid", "truncated", "empty", "timeout", "backend_error"}  # mended by asking once again
UPWARD = SAME_TIER | {"too_hard", "not_grounded", "request_refused"}


class Work(Results):
    """All jobs of one plan."""

    def __init__(self, desk: Desk, sheet: Sheet, jobs: Sequence[Job]) -> None:
        super().__init__(desk, jobs)
        self.sheet = neutral(sheet, desk.special)
        self.asked: dict[str, Node] = {}
        """what was asked -> the job that asked it first"""

    # -- starting --------------------------------------------------------------------------------------------------------

    def running(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.call]

    def start(self) -> tuple[Call, ...]:
        """Calls for the jobs that can begin now, within all limits."""
        self.share()
        calls = []
        for node in self.nodes.values():
            if node.status == "pending" and self.ready(node) and len(self.running()) < self.desk.settings.max_in_flight:
                call = self.begin(node)
                calls += [call] if call else []
        return tuple(calls)

    def ready(self, node: Node) -> bool:
        """Whether all that the job needs is there; marks it skipped if it never will be."""
        needed = [self.nodes[name] for name in node.job.depends_on]
        if any(other.done and other.status != "ok" for other in needed):
            node.status, node.code = "skipped", "dependency_failed"
        return node.status == "pending" and all(other.done for other in needed)

    def begin(self, node: Node) -> Call | None:
        """The job's next call; None where a twin asks already, or money or calls do not suffice."""
        if node.brief is None:
            node.brief = self.brief(node.job)
            key = json.dumps([node.brief.text, node.brief.schema, node.job.task.max_tokens, node.job.task.difficulty])
            first = self.asked.setdefault(key, node)
            if first is not node:
                node.twin, node.status = first, "running"
                self.share()
                return None
        body = self.seat(node, node.brief)
        if body is None:
            node.fail("context_overflow")
            return None
        rung = rung_of(self.desk.ladder, node.tier)
        given = rung.input_tokens(body)
        if not self.running():  # nothing will be refunded: better a short answer than none
            node.max_tokens = min(node.max_tokens, max(plans.MIN_TOKENS, self.affordable(rung, given)))
        call = self.desk.name(node.job.id)
        if not self.desk.budget.reserve(call, rung.cost(given, node.max_tokens), kept_calls=1):
            self.desk.used.discard(call)
            return None
        body["max_tokens"] = node.max_tokens
        node.call, node.status, node.calls = call, "running", node.calls + 1
        left = max(0.05, (self.desk.work_until_s - self.desk.now_s) / 2)
        return Call(call, node.tier, "subtask", body, timeout_s=min(self.desk.settings.call_timeout_s, left))

    def affordable(self, rung: Rung, given: int) -> int:
        """Tokens of an answer for which there is money."""
        left = self.desk.budget.left_usd - rung.price_in * given
        return int(left / rung.price_out) if rung.price_out else plans.MAX_TOKENS

    def seat(self, node: Node, brief: Brief) -> dict[str, Any] | None:
        """Choose the tier, if none is chosen, and go up to one whose window takes the job; the body for it."""
        task, settings = node.job.task, self.desk.settings
        node.tier = node.tier or self.desk.route(brief.text, task.difficulty)
        wanted = node.max_tokens or task.max_tokens or settings.subtask_max_tokens
        rung: Rung | None = rung_of(self.desk.ladder, node.tier)
        while rung:
            body = self.body(rung, brief)
            room = rung.context - rung.input_tokens(body)
            if room >= min(wanted, LEAST_ROOM):
                node.tier, node.max_tokens = rung.name, min(wanted, room)
                return {**body, "temperature": node.temperature}
            rung = self.desk.above(rung.name)
        return None

    def body(self, rung: Rung, brief: Brief) -> dict[str, Any]:
        """System prompt and texts first: the same for siblings, so that their tier computes it once. No tools."""
        asked = {**self.desk.more, "messages": [*self.sheet.system, prompts.user(brief.text)]}
        return asked | (structured("result", brief.schema, self.desk.memory.refused.get(rung.name, 0)) if brief.schema else {})

    def brief(self, job: Job) -> Brief:
        """What the worker is told; results of other jobs are put in as they are now."""
        task, special = job.task, self.desk.special
        part = self.sheet.blocks[task.each].part(job.part) if task.each and job.part else ""
        shown = [self.shown(ref) for ref in task.context]
        if part and not task.prompt.strip():
            said, source = self.unprompted(task, part), "\n\n".join(shown)
        else:
            said, source = neutralise(task.prompt, special), "\n\n".join([*shown, part] if part else shown)
        grounded = bool(source and task.output_fields and task.kind in self.desk.settings.grounding)
        schema = plans.result_schema(task, grounded) if task.output_fields else None
        names = list(schema["properties"]) if schema else []
        text = prompts.worker_text(self.desk.settings.worker_prompt, source, said, names, grounded)
        return Brief(text, source, schema, grounded)

    def unprompted(self, task: Subtask, part: str) -> str:
        """What a mapped part is told by itself: its own text, and what is said of all parts beside the block and around them.

        The head of a list of requests ("Do each of these:") says nothing more; that of other parts says what to do.
        """
        shape, beside = self.sheet.blocks[task.each or ""].cut, neutralise(self.sheet.beside(), self.desk.special)
        return "\n\n".join(text for text in (beside, "" if asks(part) else shape.head, part, shape.tail) if text)

    def shown(self, ref: str) -> str:
        """A slice of a block, or the result of a subtask."""
        if self.sheet.has(ref):
            return self.sheet.text_of(ref)
        return inert(self.result(ref), self.desk.special)

    # -- replies ---------------------------------------------------------------------------------------------------------

    def take(self, reply: Reply) -> None:
        """Book a reply and move its job on."""
        self.desk.pay(reply)
        node = next((node for node in self.nodes.values() if node.call == reply.call.id), None)
        if node is None or node.brief is None:
            self.desk.outcomes.set(reply.call.id, "came too late")
            return
        node.call, node.tokens = "", reply.usage.output_tokens
        if self.format_refused(node, reply):
            return
        problem = self.wrong(node, node.brief, reply)
        self.desk.outcomes.set(reply.call.id, problem.replace("_", " ") or "accepted")
        self.move(node, problem)
        self.share()

    def format_refused(self, node: Node, reply: Reply) -> bool:
        """The backend took no body with that response_format: ask in the next way, and remember."""
        way = way_of(reply.call.body)
        if reply.error is None or reply.error.status != 400 or not way_asked(reply.call.body):
            return False
        self.desk.memory.refuse(reply.call.tier, way)
        self.desk.outcomes.set(reply.call.id, "format refused")
        node.status = "pending"
        return True

    def wrong(self, node: Node, brief: Brief, reply: Reply) -> str:
        """What is wrong with an answer, as a code; empty if nothing is. Takes a good one in."""
        if reply.error is not None:
            return failure(reply.error)
        if reply.refusal or reply.finish_reason == "content_filter":
            return "refused"
        if not reply.text.strip():
            return "empty"
        if reply.finish_reason == "length":
            return "truncated"
        data = read_result(reply.text, brief.schema) if brief.schema else None
        if brief.schema and data is None:
            return "schema_invalid"
        status = data.pop("status") if data is not None else "ok"
        if status != "ok":
            return str(status)
        node.text, node.data = as_text(node.job.task, data, reply.text), data
        if brief.grounded and data is not None:
            node.grounded = quoted(str(data["evidence"]), brief.source)
            if not node.grounded:
                return "not_grounded"
        if self.desk.above(node.tier) is None:
            return ""  # nobody is left to ask
        node.kept = bool(low := self.desk.accept(node.tier, brief.text, reply))
        return low or ""

    def move(self, node: Node, problem: str) -> None:
        """The next state of a job whose answer came."""
        higher, node.problem = self.desk.above(node.tier), problem
        if not problem:
            node.status, node.code = "ok", ""
        elif problem in SAME_TIER and not node.again:
            node.again, node.status = True, "pending"
            node.max_tokens = min(2 * node.max_tokens, plans.MAX_TOKENS) if problem == "truncated" else node.max_tokens
            node.temperature = AGAIN if problem in ("schema_invalid", "empty") else 0.0
        elif (problem in UPWARD and not node.rose or node.kept) and higher:
            node.rose = node.rose or not node.kept
            node.tier, node.upward, node.status, node.temperature = higher.name, node.upward + 1, "pending", 0.0
        elif problem == "not_grounded":
            node.status, node.code = "ok", problem  # listed as such, never dropped
        elif problem == "insufficient_context":
            node.status = problem  # a larger tier sees no more of the text
        else:
            node.fail(problem)

    def share(self) -> None:
        """Hand finished results to the jobs that asked the same."""
        for node in self.nodes.values():
            first = node.twin
            if first and first.done and not node.done:
                node.status, node.code, node.tier = first.status, first.code, first.tier
                node.text, node.data, node.grounded = first.text, first.data, first.grounded

    def stop(self, code: str) -> tuple[str, ...]:
        """End what is not done; the ids of calls to cancel. What they cost nobody will say: it counts as spent."""
        calls = tuple(node.call for node in self.running())
        for call in calls:
            self.desk.budget.forfeit(call)
            self.desk.outcomes.set(call, f"cancelled: {code}")
        for node in self.nodes.values():
            if not node.done:
                node.call = ""
                node.fail(code)
        return calls
