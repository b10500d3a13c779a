"""Runs the jobs of one plan: which may start, which tier takes each, whether an answer is good, what follows if it is not.

pending -> running -> ok | insufficient_context
                   -> pending again: at the same tier once (form, length, backend), then at the next larger tier once;
                      an answer of low confidence goes up tier by tier to the top
                   -> failed(code)
pending -> skipped: a job that it depends on has no result
"""

import json
from collections.abc import Sequence
from typing import Any

from classifiers.parts.cut import asks
from router.cascade.checks import thought_too_long
from router.delegate import plans, prompts
from router.delegate.blocks import OffloadedChat, neutralise_blocks
from router.delegate.plans import Job, Subtask
from router.delegate.results import JobState, Results, WorkerPrompt, as_text, quoted, read_result
from router.delegate.sanitise import inert, neutralise
from router.delegate.shared import Shared, failure_code
from router.limits.delegation_budget import Rung, rung_of
from router.types import Call, Reply

RETRY_TEMPERATURE = 0.7  # at 0 the same wrong answer would come again
LEAST_ROOM = 64  # tokens that a window must leave for an answer, if as many are wanted
RETRIED = {"schema_invalid", "truncated", "empty", "timeout", "backend_error"}  # problems that the same tier may solve
ESCALATED = RETRIED | {"too_hard", "not_grounded", "request_refused", "busy", "too_long"}  # problems that a larger tier may solve


class Jobs(Results):
    """The jobs of one plan while they run: gives out the calls to make and takes their replies."""

    def __init__(self, shared: Shared, chat: OffloadedChat, jobs: Sequence[Job]) -> None:
        super().__init__(shared, jobs)
        self.chat = neutralise_blocks(chat, shared.special)
        self.first_asked: dict[str, JobState] = {}
        """prompt and limits as JSON -> the first job with them"""

    # -- calls -------------------------------------------------------------------------------------------------------------

    def running(self) -> list[JobState]:
        return [state for state in self.states.values() if state.call]

    def start(self) -> tuple[Call, ...]:
        """Calls for the jobs that can begin now, within all limits."""
        self.share_results()
        calls = []
        for state in self.states.values():
            if state.status == "pending" and self.ready(state) and len(self.running()) < self.shared.settings.max_in_flight:
                call = self.begin(state)
                calls += [call] if call else []
        return tuple(calls)

    def ready(self, state: JobState) -> bool:
        """Whether all results that the job needs are there. Marks the job as skipped if one never will be."""
        needed = [self.states[name] for name in state.job.depends_on]
        if any(other.done and other.status != "ok" for other in needed):
            state.status, state.code = "skipped", "dependency_failed"
        return state.status == "pending" and all(other.done for other in needed)

    def begin(self, state: JobState) -> Call | None:
        """The job's next call; None if another job asks the same, or if money or calls do not suffice."""
        if state.prompt is None:
            state.prompt = self.worker_prompt(state.job)
            task = state.job.task
            key = json.dumps([state.prompt.text, state.prompt.schema, task.max_tokens, task.difficulty])
            first = self.first_asked.setdefault(key, state)
            if first is not state:
                state.same_as, state.status = first, "running"
                self.share_results()
                return None
        body = self.choose_tier(state, state.prompt)
        if body is None:
            state.fail("context_overflow")
            return None
        rung = rung_of(self.shared.ladder, state.tier)
        given = rung.input_tokens(body)
        if not self.running():  # no refund will come, and a short answer is better than none
            state.max_tokens = min(state.max_tokens, max(plans.MIN_TOKENS, self.affordable_tokens(rung, given)))
        call = self.shared.new_call_id(state.job.id)
        if not self.shared.budget.reserve(call, rung.cost(given, state.max_tokens), kept_calls=1):
            self.shared.call_ids.discard(call)
            return None
        body["max_tokens"] = state.max_tokens
        state.call, state.status, state.calls = call, "running", state.calls + 1
        left = max(0.05, (self.shared.work_until_s - self.shared.now_s) / 2)
        return Call(call, state.tier, "subtask", body, timeout_s=min(self.shared.settings.call_timeout_s, left))

    def affordable_tokens(self, rung: Rung, given: int) -> int:
        """Length of an answer that the budget can pay. given: input tokens."""
        left = self.shared.budget.left_usd - rung.price_in * given
        return int(left / rung.price_out) if rung.price_out else plans.MAX_TOKENS

    def choose_tier(self, state: JobState, prompt: WorkerPrompt) -> dict[str, Any] | None:
        """Choose a tier if the job has none yet, and a larger one if its window is too small; returns the call's body."""
        task, settings = state.job.task, self.shared.settings
        state.tier = state.tier or self.shared.route(prompt.text, task.difficulty)
        wanted = state.max_tokens or task.max_tokens or settings.subtask_max_tokens
        rung: Rung | None = rung_of(self.shared.ladder, state.tier)
        while rung:
            body = self.body(rung, prompt)
            room = rung.context - rung.input_tokens(body)
            if room >= min(wanted, LEAST_ROOM):
                state.tier, state.max_tokens = rung.name, min(wanted, room)
                return {**body, "temperature": state.temperature}
            rung = self.shared.next_larger(rung.name)
        return None

    def body(self, rung: Rung, prompt: WorkerPrompt) -> dict[str, Any]:
        """Without tools. It starts as the bodies of siblings do, so that their tier computes the common prefix once."""
        body = {**self.shared.worker_fields, "messages": [*self.chat.system, prompts.user(prompt.text)]}
        return body | (self.shared.json_field(rung.name, "result", prompt.schema) if prompt.schema else {})

    def worker_prompt(self, job: Job) -> WorkerPrompt:
        """The job's prompt, with the results of other jobs as they are now."""
        task, special = job.task, self.shared.special
        part = self.chat.part(task.each, job.part)
        context = [self.context_text(ref) for ref in task.context]
        if part and not task.prompt.strip():
            asked = self.part_as_task(task, part)
        else:
            asked = neutralise(task.prompt, special)
            context += [part] if part else []
        source = "\n\n".join(context)
        grounded = bool(source and task.output_fields and task.kind in self.shared.settings.grounding)
        schema = plans.result_schema(task, grounded) if task.output_fields else None
        names = list(schema["properties"]) if schema else []
        text = prompts.worker_text(self.shared.settings.worker_prompt, source, asked, names, grounded)
        return WorkerPrompt(text, source, schema, grounded)

    def part_as_task(self, task: Subtask, part: str) -> str:
        """A mapped part as a task of its own, with the texts that concern all parts: beside the block and around its parts.

        The head of a list of requests ("Do each of these:") adds nothing to them; the head of other parts says what to do.
        """
        shape, beside = self.chat.blocks[task.each or ""].cut, neutralise(self.chat.text_beside_blocks(), self.shared.special)
        return "\n\n".join(text for text in (beside, "" if asks(part) else shape.head, part, shape.tail) if text)

    def context_text(self, ref: str) -> str:
        """The text behind a handle, or the result of a subtask."""
        text = self.chat.resolve(ref)
        return inert(self.result(ref), self.shared.special, self.shared.kept) if text is None else text

    # -- replies -----------------------------------------------------------------------------------------------------------

    def receive(self, reply: Reply) -> None:
        """Book a reply and decide how its job goes on."""
        self.shared.book(reply)
        state = next((state for state in self.states.values() if state.call == reply.call.id), None)
        if state is None or state.prompt is None:
            self.shared.outcomes.set(reply.call.id, "came too late")
            return
        state.call, state.tokens = "", reply.usage.output_tokens
        if self.shared.refused_json_field(reply):
            state.status = "pending"
            return
        problem = self.examine(state, state.prompt, reply)
        self.shared.outcomes.set(reply.call.id, problem.replace("_", " ") or "accepted")
        self.advance(state, problem)
        self.share_results()

    def examine(self, state: JobState, prompt: WorkerPrompt, reply: Reply) -> str:
        """What is wrong with an answer, as a code; empty if nothing is. Stores an answer that can be used."""
        if reply.error is not None:
            return failure_code(reply.error)
        if reply.refusal or reply.finish_reason == "content_filter":
            return "refused"
        if not reply.text.strip():
            return "truncated" if thought_too_long(reply) else "empty"
        if reply.finish_reason == "length":
            return "truncated"
        data = read_result(reply.text, prompt.schema) if prompt.schema else None
        if prompt.schema and data is None:
            return "schema_invalid"
        status = data.pop("status") if data is not None else "ok"
        if status != "ok":
            return str(status)
        state.text, state.data = as_text(state.job.task, data, reply.text), data
        if prompt.grounded and data is not None:
            state.grounded = quoted(str(data["evidence"]), prompt.source)
            if not state.grounded:
                return "not_grounded"
        if self.shared.next_larger(state.tier) is None:
            return ""  # no larger tier could give a better one
        doubt = self.shared.judge(state.tier, prompt.text, reply) or ""
        state.low_confidence = bool(doubt)
        return doubt

    def advance(self, state: JobState, problem: str) -> None:
        """The next state of a job whose answer came."""
        larger = self.shared.next_wider(state.tier) if problem == "too_long" else self.shared.next_larger(state.tier)
        state.problem = problem
        if not problem:
            state.status, state.code = "ok", ""
        elif problem in RETRIED and not state.retried:
            state.retried, state.status = True, "pending"
            state.max_tokens = min(2 * state.max_tokens, plans.MAX_TOKENS) if problem == "truncated" else state.max_tokens
            state.temperature = RETRY_TEMPERATURE if problem in ("schema_invalid", "empty") else 0.0
        elif larger and (state.low_confidence or (problem in ESCALATED and not state.escalated_for_failure)):
            state.escalated_for_failure = state.escalated_for_failure or not state.low_confidence
            state.tier, state.escalations, state.status, state.temperature = larger.name, state.escalations + 1, "pending", 0.0
        elif problem == "not_grounded":
            state.status, state.code = "ok", problem  # listed as such, never dropped
        elif problem == "insufficient_context":
            state.status = problem  # a larger tier would see the same text
        else:
            state.fail(problem)

    def share_results(self) -> None:
        """Copy finished results to the jobs that ask the same."""
        for state in self.states.values():
            first = state.same_as
            if first and first.done and not state.done:
                state.status, state.code, state.tier = first.status, first.code, first.tier
                state.text, state.data, state.grounded = first.text, first.data, first.grounded

    def stop(self, code: str) -> tuple[str, ...]:
        """End all unfinished jobs; returns the ids of calls to cancel. Their reservations count as spent: no reply will come."""
        calls = tuple(state.call for state in self.running())
        for call in calls:
            self.shared.budget.forfeit(call)
            self.shared.outcomes.set(call, f"cancelled: {code}")
        for state in self.states.values():
            if not state.done:
                state.call = ""
                state.fail(code)
        return calls
