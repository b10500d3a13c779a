"""The state of a plan's jobs, and their results: as listed for the merging tier, and as texts to put into an answer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator

from router.delegate import plans, prompts
from router.delegate.plans import Job, Subtask
from router.delegate.sanitise import inert
from router.delegate.shared import Shared

DONE = ("ok", "insufficient_context", "failed", "skipped")  # statuses of a job that is over


@dataclass(frozen=True, slots=True)
class WorkerPrompt:
    """What a job's worker is asked, and how its answer is checked."""

    text: str
    source: str
    """the texts that evidence must quote"""
    schema: Mapping[str, Any] | None
    grounded: bool
    """the answer must quote evidence"""


@dataclass(slots=True)
class JobState:
    """A job's progress and result."""

    job: Job
    status: str = "pending"
    code: str = ""
    """why the job failed, was skipped, or has a doubtful result"""
    tier: str = ""
    max_tokens: int = 0
    prompt: WorkerPrompt | None = None
    call: str = ""
    """id of the call in flight; empty if there is none"""
    calls: int = 0
    tokens: int = 0
    """output tokens of its last answer"""
    retried: bool = False
    """the same tier was asked a second time"""
    temperature: float = 0.0
    problem: str = ""
    """code of what was wrong with its last answer"""
    escalated_for_failure: bool = False
    escalations: int = 0
    same_as: "JobState | None" = None
    """an earlier job with the same prompt, whose result it shares"""
    text: str = ""
    data: Any = None
    grounded: bool | None = None
    """whether its evidence is in the source; None: not checked"""
    low_confidence: bool = False
    """`text` is an answer of low confidence that stands if no better one comes"""

    @property
    def done(self) -> bool:
        return self.status in DONE

    @property
    def clean(self) -> bool:
        """Whether the client may get the result without a larger tier reading it."""
        return self.status == "ok" and self.grounded is not False

    def fail(self, code: str) -> None:
        """Give the job up. The code of its last answer's problem takes precedence: it says more than a lack of time or money."""
        self.status, self.code = ("ok", "low_confidence") if self.low_confidence else ("failed", self.problem or code)


class Results:
    """The results of one plan's jobs so far."""

    def __init__(self, shared: Shared, jobs: Sequence[Job]) -> None:
        self.shared = shared
        self.states = {job.id: JobState(job) for job in jobs}

    @property
    def all_clean(self) -> bool:
        return all(state.clean for state in self.states.values())

    def of_subtask(self, task: str) -> list[JobState]:
        """The jobs of a subtask, in the order of its parts."""
        return [state for name, state in self.states.items() if name.split(".")[0] == task]

    def referred_to(self, ref: str) -> list[JobState]:
        """The jobs whose results a reference stands for."""
        return [self.states[ref]] if ref in self.states else self.of_subtask(ref)

    def result(self, ref: str) -> str:
        """The text of one job (`t1.2`), or of a whole subtask, a mapped one as a list."""
        if ref in self.states:
            return self.states[ref].text
        return "\n".join(f"{state.job.part}. {state.text}" for state in self.of_subtask(ref))

    def spliceable(self) -> dict[str, str]:
        """Texts by id for `{{id}}`: of jobs that are ok, and of mapped subtasks whose parts are all ok."""
        texts = {name: state.text for name, state in self.states.items() if state.status == "ok"}
        for task in {name.split(".")[0] for name in self.states} - set(self.states):
            if all(state.status == "ok" for state in self.of_subtask(task)):
                texts[task] = self.result(task)
        return texts

    def listed(self) -> list[dict[str, Any]]:
        """Every job as the merging tier sees it. Failed and skipped ones are listed with what they were asked."""
        return [self.entry(state) for state in self.states.values()]

    def entry(self, state: JobState) -> dict[str, Any]:
        entry: dict[str, Any] = {"id": state.job.id, "status": state.status}
        if state.code:
            entry["code"] = state.code
        if state.status == "ok":
            entry |= {"tier": state.tier, "data": self.readable(state)}
        elif state.prompt or state.job.task.prompt:
            entry["task"] = self.digest(state.prompt.text if state.prompt else state.job.task.prompt)
        return entry | ({"grounded": state.grounded} if state.grounded is not None else {})

    def readable(self, state: JobState) -> Any:
        """Short results whole, with their fields; beginning and end of long ones."""
        shared = self.shared
        short = shared.top.count(state.text) <= shared.settings.digest_over_tokens
        if state.data is None or not short:
            return self.digest(state.text)
        return inert_data(state.data, shared.special, shared.kept)

    def digest(self, text: str) -> str:
        most_tokens = self.shared.settings.digest_over_tokens
        return inert(prompts.digest(text, self.shared.top.count, most_tokens), self.shared.special, self.shared.kept)


def read_result(text: str, schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """A worker's JSON, which may be in a code fence or after prose; None if it does not fit the schema.

    `request.schemas.fits` would not do: it accepts what it cannot judge, but here the fields are then read unchecked.
    """
    try:
        found = plans.first_object(text)
        valid = Draft202012Validator(schema).is_valid(found)
    except (ValueError, RecursionError):
        return None
    return found if valid else declined(found)


def declined(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """A worker may decline; then the schema's required fields do not apply. None if it did not."""
    return {"status": found["status"]} if found.get("status") in plans.STATUSES[1:] else None


def as_text(task: Subtask, data: Mapping[str, Any] | None, text: str) -> str:
    """A result as text for an answer: the value of its only field, or all fields as JSON."""
    if data is None:
        return text.strip()
    if len(task.output_fields) > 1:
        return json.dumps({f.name: data[f.name] for f in task.output_fields}, ensure_ascii=False)
    value = data[task.output_fields[0].name]
    if isinstance(value, list):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value)


def quoted(evidence: str, source: str) -> bool:
    """Whether the source contains the evidence word for word, white space aside."""
    found = " ".join(evidence.split()).strip("\"'“”")
    return bool(found) and found in " ".join(source.split())


def inert_data(value: Any, special: Sequence[str], kept: frozenset[str] = frozenset()) -> Any:
    """The same data with every text in it made inert."""
    if isinstance(value, str):
        return inert(value, special, kept)
    if isinstance(value, list):
        return [inert_data(item, special, kept) for item in value]
    return {k: inert_data(v, special, kept) for k, v in value.items()} if isinstance(value, dict) else value
