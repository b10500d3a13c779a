"""Jobs of a plan, how far they are, and what has come of them: as the merging tier sees it, as an answer takes it in."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator

from router.delegate import plans, prompts
from router.delegate.plans import Job, Subtask
from router.delegate.sanitise import inert
from router.delegate.shared import Desk

DONE = ("ok", "insufficient_context", "failed", "skipped")


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


class Results:
    """What the jobs of one plan came to until now."""

    def __init__(self, desk: Desk, jobs: Sequence[Job]) -> None:
        self.desk = desk
        self.nodes = {job.id: Node(job) for job in jobs}

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
        return prompts.shown_text(text, self.desk.top.count, self.desk.settings.digest_over_tokens, self.desk.special)


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
