"""The jobs of one plan on their way: which may start, which tier takes each, what an answer is worth, where it goes next.

    pending -> running -> ok | insufficient_context
                       -> pending again: the same tier once (form, length, backend), then the next tier once;
                          low confidence goes up until the top
                       -> failed(code)
    pending -> skipped: what it depends on is not there
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jsonschema import Draft202012Validator

from classifiers.parts import asks
from router import briefs, plans
from router.blocks import Sheet, neutral
from router.budget import Budget, Memory, Rung, rung_of
from router.config import Delegation
from router.errors import NoReplica, RequestFailed
from router.gates import Route
from router.plans import Job, Subtask
from router.splice import inert, neutralise
from router.types import Call, Reply

Accept = Callable[[str, str, Reply], str | None]
"""(tier, what the worker was told, its reply) -> None if it is good, else why it should go up"""
FORMATS = ("json_schema", "structured_outputs", "prompt")  # ways to ask for JSON, the best first
AGAIN = 0.7  # temperature of a second try: at 0 the same wrong answer would come again
LEAST_ROOM = 64  # tokens that a window must leave for an answer, if as many are wanted
SAME_TIER = {"schema_invalid", "truncated", "empty", "timeout", "backend_error"}  # mended by asking once again
UPWARD = SAME_TIER | {"too_hard", "not_grounded", "request_refused"}
DONE = ("ok", "insufficient_context", "failed", "skipped")


@dataclass(slots=True)
class Desk:
    """What all steps of one request share, and its books."""

    body: Mapping[str, Any]
    ladder: Sequence[Rung]
    settings: Delegation
    route: Route
    accept: Accept
    memory: Memory
    budget: Budget
    special: Sequence[str] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    """added to the body of every worker, such as a wish for log-probabilities"""
    now_s: float = 0.0
    """seconds since the request, as far as replies told"""
    outcomes: dict[str, str] = field(default_factory=dict)
    """of replies, not yet said"""
    used: set[str] = field(default_factory=set)
    """ids of calls"""

    @property
    def top(self) -> Rung:
        return self.ladder[-1]

    @property
    def work_until_s(self) -> float:
        """When the final call must begin."""
        return self.settings.deadline_s * (1 - self.settings.final_reserve)

    def above(self, tier: str) -> Rung | None:
        i = self.ladder.index(rung_of(self.ladder, tier)) + 1
        return self.ladder[i] if i < len(self.ladder) else None

    def name(self, wanted: str) -> str:
        """An id for a call that no other has."""
        n, name = 1, wanted
        while name in self.used:
            n += 1
            name = f"{wanted}-{n}"
        self.used.add(name)
        return name

    def pay(self, reply: Reply) -> None:
        """Book what a call cost. One that failed says nothing: what was set aside for it counts as spent."""
        if reply.error is not None and not reply.usage.input_tokens:
            self.budget.forfeit(reply.call.id)
        else:
            self.budget.commit(reply.call.id, rung_of(self.ladder, reply.call.tier).paid(reply.usage))


@dataclass(frozen=True, slots=True)
class Brief:
    """What a job's worker is told."""

    text: str
    source: str
    """the texts that evidence must quote"""
    schema: Mapping[str, Any] | None
    grounded: bool


@dataclass(slots=True)
class Node:
    """A job and how far it is."""

    job: Job
    status: str = "pending"
    code: str = ""
    tier: str = ""
    max_tokens: int = 0
    brief: Brief | None = None
    call: str = ""
    calls: int = 0
    tokens: int = 0
    """output tokens of its last answer"""
    again: bool = False
    """was asked a second time at the same tier"""
    temperature: float = 0.0
    problem: str = ""
    """what was wrong with its last answer"""
    rose: bool = False
    """went up for a failure"""
    upward: int = 0
    twin: "Node | None" = None
    """the job that asks the very same; its result is shared"""
    text: str = ""
    data: Any = None
    grounded: bool | None = None
    kept: bool = False
    """`text` is an answer of low confidence that stands if none better comes"""

    @property
    def done(self) -> bool:
        return self.status in DONE

    @property
    def clean(self) -> bool:
        """Fit to be shown to the client unread."""
        return self.status == "ok" and self.grounded is not False

    def fail(self, code: str) -> None:
        """Give the job up; what was wrong with its last answer says more than that it ended for lack of time or money."""
        self.status, self.code = ("ok", "low_confidence") if self.kept else ("failed", self.problem or code)


class Work:
    """All jobs of one plan."""

    def __init__(self, desk: Desk, sheet: Sheet, jobs: Sequence[Job]) -> None:
        self.desk, self.sheet = desk, neutral(sheet, desk.special)
        self.nodes = {job.id: Node(job) for job in jobs}
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
        asked = {**self.desk.more, "messages": [*self.sheet.system, briefs.user(brief.text)]}
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
        text = briefs.worker_text(self.desk.settings.worker_prompt, source, said, names, grounded)
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

    # -- results ---------------------------------------------------------------------------------------------------------

    def of(self, task: str) -> list[Node]:
        """The jobs of a subtask, in the order of its parts."""
        return [node for name, node in self.nodes.items() if name.split(".")[0] == task]

    def behind(self, ref: str) -> list[Node]:
        """The jobs whose results a reference stands for."""
        return [self.nodes[ref]] if ref in self.nodes else self.of(ref)

    def result(self, ref: str) -> str:
        """The text of one job (`t1.2`), or of a whole subtask, mapped ones as a list."""
        if ref in self.nodes:
            return self.nodes[ref].text
        return "\n".join(f"{node.job.part}. {node.text}" for node in self.of(ref))

    def spliceable(self) -> dict[str, str]:
        """Texts by id for `{{id}}`: of jobs that are ok, and of mapped subtasks all of whose parts are."""
        texts = {name: node.text for name, node in self.nodes.items() if node.status == "ok"}
        for task in {name.split(".")[0] for name in self.nodes} - set(self.nodes):
            if all(node.status == "ok" for node in self.of(task)):
                texts[task] = self.result(task)
        return texts

    def told(self) -> list[dict[str, Any]]:
        """Every job as the merging tier sees it; failed and skipped ones too, with what they were to do."""
        return [self.told_of(node) for node in self.nodes.values()]

    def told_of(self, node: Node) -> dict[str, Any]:
        shown: dict[str, Any] = {"id": node.job.id, "status": node.status}
        if node.code:
            shown["code"] = node.code
        if node.status == "ok":
            shown |= {"tier": node.tier, "data": self.readable(node)}
        elif node.brief is not None:
            shown["task"] = self.digest(node.brief.text)
        elif node.job.task.prompt:
            shown["task"] = self.digest(node.job.task.prompt)
        return shown | ({"grounded": node.grounded} if node.grounded is not None else {})

    def readable(self, node: Node) -> Any:
        """Short results whole, with their fields; long ones as head and tail."""
        short = self.desk.top.count(node.text) <= self.desk.settings.digest_over_tokens
        return harmless(node.data, self.desk.special) if node.data is not None and short else self.digest(node.text)

    def digest(self, text: str) -> str:
        return briefs.shown_text(text, self.desk.top.count, self.desk.settings.digest_over_tokens, self.desk.special)

    # -- replies ---------------------------------------------------------------------------------------------------------

    def take(self, reply: Reply) -> None:
        """Book a reply and move its job on."""
        self.desk.pay(reply)
        node = next((node for node in self.nodes.values() if node.call == reply.call.id), None)
        if node is None or node.brief is None:
            self.desk.outcomes[reply.call.id] = "came too late"
            return
        node.call, node.tokens = "", reply.usage.output_tokens
        if self.format_refused(node, reply):
            return
        problem = self.wrong(node, node.brief, reply)
        self.desk.outcomes[reply.call.id] = problem.replace("_", " ") or "accepted"
        self.move(node, problem)
        self.share()

    def format_refused(self, node: Node, reply: Reply) -> bool:
        """The backend took no body with that response_format: ask in the next way, and remember."""
        way = way_of(reply.call.body)
        if reply.error is None or reply.error.status != 400 or not way_asked(reply.call.body):
            return False
        self.desk.memory.refuse(reply.call.tier, way)
        self.desk.outcomes[reply.call.id] = "format refused"
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
            self.desk.outcomes[call] = f"cancelled: {code}"
        for node in self.nodes.values():
            if not node.done:
                node.call = ""
                node.fail(code)
        return calls


def structured(name: str, schema: Mapping[str, Any], way: int) -> dict[str, Any]:
    """What asks a backend for JSON of that schema, in one of FORMATS; nothing where the prompt alone must do."""
    if FORMATS[min(way, 2)] == "json_schema":
        return {"response_format": {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}}
    return {"structured_outputs": {"json": schema}} if FORMATS[min(way, 2)] == "structured_outputs" else {}


def way_asked(body: Mapping[str, Any]) -> bool:
    return "response_format" in body or "structured_outputs" in body


def way_of(body: Mapping[str, Any]) -> int:
    return 0 if "response_format" in body else 1 if "structured_outputs" in body else 2


def failure(error: RequestFailed) -> str:
    """An error of a tier as a code."""
    if isinstance(error, NoReplica):
        return "timeout"
    return "backend_error" if error.status >= 500 or error.status in (408, 429) else "request_refused"


def read_result(text: str, schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """A worker's JSON, in a fence or after prose where it was not constrained; None if it is not of the schema."""
    at = text.find("{")
    try:
        found, _ = plans.DECODER.raw_decode(text[at:]) if at >= 0 else (None, 0)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and Draft202012Validator(schema).is_valid(found) else excused(found)


def excused(found: Any) -> dict[str, Any] | None:
    """An answer that says it cannot be given needs no fields."""
    status = found.get("status") if isinstance(found, dict) else None
    return {"status": status} if status in plans.STATUSES[1:] else None


def as_text(task: Subtask, data: Mapping[str, Any] | None, text: str) -> str:
    """A result as a text that can be set into an answer: the one field there is, else all as JSON."""
    if data is None:
        return text.strip()
    if len(task.output_fields) > 1:
        return json.dumps({f.name: data[f.name] for f in task.output_fields}, ensure_ascii=False)
    value = data[task.output_fields[0].name]
    return ", ".join(value) if isinstance(value, list) else value if isinstance(value, str) else json.dumps(value)


def quoted(evidence: str, source: str) -> bool:
    """Whether the evidence stands in the source word for word, white space aside."""
    found = " ".join(evidence.split()).strip("\"'“”")
    return bool(found) and found in " ".join(source.split())


def harmless(value: Any, special: Sequence[str]) -> Any:
    """The same data with every text in it made harmless."""
    if isinstance(value, str):
        return inert(value, special)
    if isinstance(value, list):
        return [harmless(item, special) for item in value]
    return {k: harmless(v, special) for k, v in value.items()} if isinstance(value, dict) else value
