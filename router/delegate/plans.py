"""Parses a plan that a tier wrote, checks it as a graph and expands it into jobs.

The format is short because the planner's output tokens are the main cost of delegation: `{"plan": [{"each": "c1"}]}` delegates
every part of a block, however many there are, and `{"plan": []}` delegates nothing.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from router.delegate.blocks import OffloadedChat
from router.delegate.splice import references
from router.errors import BadPlan

TASK = r"t[1-9][0-9]?"
BLOCK = r"c[1-9][0-9]?"
TaskKind = Literal["extract", "classify", "summarize", "transform", "draft", "code", "compute", "answer", "verify"]
Difficulty = Literal["trivial", "easy", "medium", "hard"]
FieldType = Literal["string", "integer", "number", "boolean", "string_list"]
FIELD_TYPES: dict[FieldType, dict[str, Any]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "string_list": {"type": "array", "items": {"type": "string"}},
}
STATUSES = ("ok", "insufficient_context", "too_hard")  # that a worker may give its answer
MIN_TOKENS = 16  # least limit of a subtask's answer
MAX_TOKENS = 2048  # largest limit of a subtask's answer


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


DECODER = json.JSONDecoder(parse_constant=refuse_constant)  # without Python's NaN and Infinity


class Strict(BaseModel):
    """Accepts what the grammar of `plan_schema` accepts: no further fields, and no number for a text."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class OutputField(Strict):
    """One typed field of a result. Plans list these instead of giving a schema: engines do not constrain free-form objects."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    type: FieldType
    description: str = ""


class Subtask(Strict):
    """One entry of a plan. It has `prompt`, `each` or both."""

    id: Annotated[str, Field(pattern=rf"^{TASK}$")] | None = None
    kind: TaskKind = "answer"
    prompt: str = ""
    each: Annotated[str, Field(pattern=rf"^{BLOCK}$")] | None = None
    """a block; each of its parts becomes a job"""
    context: Annotated[list[str], Field(max_length=8)] = []
    """handles, and ids of subtasks: the worker reads those texts and results"""
    depends_on: Annotated[list[str], Field(max_length=8)] = []
    difficulty: Difficulty | None = None
    output_fields: Annotated[list[OutputField], Field(max_length=8)] = []
    max_tokens: Annotated[int, Field(ge=MIN_TOKENS, le=MAX_TOKENS)] | None = None


class Plan(Strict):
    """What the planning tier wrote. An empty plan means that it answers directly."""

    plan: list[Subtask]
    answer: str | None = None
    """the whole answer with `{{t1}}` in the place of results; it makes the final call unnecessary"""
    merge: bool = False
    """the planner will write the answer itself once the results are there"""

    def by_id(self) -> dict[str, Subtask]:
        """Subtasks by id; one without an id gets t1, t2, ... by its position."""
        return {task.id or f"t{i}": task for i, task in enumerate(self.plan, 1)}


@dataclass(frozen=True, slots=True)
class Job:
    """A subtask, or one part of a mapped subtask: work for one worker."""

    id: str
    """`t2`, or `t2.5` for part 5"""
    task: Subtask
    part: int | None = None
    depends_on: frozenset[str] = frozenset()
    """ids of jobs"""


@cache
def plan_schema(max_subtasks: int) -> dict[str, Any]:
    """The JSON schema of a plan for guided decoding; accepts the same plans as `Plan`.

    `plan` comes first, so the first tokens say whether anything is delegated. No maxLength: in xgrammar 0.2.8 it forbids every
    escape in the string. anyOf instead of oneOf, and no uniqueItems, because engines treat those differently.
    """
    ref = rf"^({BLOCK}(\.[1-9][0-9]{{0,2}}(-[1-9][0-9]{{0,2}})?)?|{TASK})$"
    output = closed(
        {
            "name": {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,31}$"},
            "type": {"enum": list(FIELD_TYPES)},
            "description": {"type": "string"},
        },
        "name",
        "type",
    )
    fields = {
        "id": {"type": "string", "pattern": f"^{TASK}$"},
        "kind": {"enum": list(get_args(TaskKind))},
        "prompt": {"type": "string"},
        "each": {"type": "string", "pattern": f"^{BLOCK}$"},
        "context": {"type": "array", "items": {"type": "string", "pattern": ref}, "maxItems": 8},
        "depends_on": {"type": "array", "items": {"type": "string", "pattern": f"^{TASK}$"}, "maxItems": 8},
        "difficulty": {"enum": list(get_args(Difficulty))},
        "output_fields": {"type": "array", "items": output, "maxItems": 8},
        "max_tokens": {"type": "integer", "minimum": MIN_TOKENS, "maximum": MAX_TOKENS},
    }
    plain = {name: shape for name, shape in fields.items() if name != "each"}
    subtask = {"anyOf": [closed(fields, "each"), closed(plain, "prompt")]}
    top = {
        "plan": {"type": "array", "items": subtask, "maxItems": max_subtasks},
        "answer": {"type": "string"},
        "merge": {"type": "boolean"},
    }
    return closed(top, "plan")


def closed(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(required), "additionalProperties": False}


def first_object(text: str) -> Any:
    """The first JSON object of a text, which may be in a code fence or after prose. Raises ValueError, RecursionError."""
    return DECODER.raw_decode(text[text.index("{") :])[0]


def parse(text: str) -> Plan:
    """Read a plan. Raises BadPlan."""
    if "{" not in text:
        raise BadPlan(f"expected a JSON object, found {text[:60]!r}")
    try:
        return Plan.model_validate(first_object(text))
    except ValidationError as error:
        first = error.errors()[0]
        raise BadPlan(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise BadPlan(f"not JSON: {str(error)[:120]}") from None


def checked_jobs(plan: Plan, chat: OffloadedChat, max_subtasks: int, kept: frozenset[str] = frozenset()) -> tuple[Job, ...]:
    """The plan's jobs in an order that dependencies allow; none for a direct answer. kept: see `references`. Raises BadPlan."""
    if len(plan.plan) > max_subtasks:
        raise BadPlan(f"{len(plan.plan)} subtasks; at most {max_subtasks} are allowed")
    tasks = plan.by_id()
    if len(tasks) != len(plan.plan):
        raise BadPlan("ids: two subtasks share one; give each its own, or none")
    for name, task in tasks.items():
        check_task(name, task, chat, tasks)
    order = dependency_order(tasks)
    for name in references(plan.answer or "", kept):
        if name.split(".")[0] not in tasks:
            raise BadPlan(f"answer: {{{{{name}}}}} is no subtask of this plan")
    jobs = expanded(tasks, order, chat)
    if len(jobs) > max_subtasks:
        raise BadPlan(f"{len(jobs)} subtasks, each part of a mapped one counted; at most {max_subtasks} are allowed")
    return jobs


def check_task(name: str, task: Subtask, chat: OffloadedChat, tasks: Mapping[str, Subtask]) -> None:
    if not task.prompt.strip() and not task.each:
        raise BadPlan(f"{name}: give a prompt, or a block under each")
    if task.each and task.each not in chat.blocks:
        raise BadPlan(f"{name}.each: no block {task.each}; there are {', '.join(chat.blocks) or 'none'}")
    for ref in task.context:
        if ref not in tasks and chat.resolve(ref) is None:
            raise BadPlan(f"{name}.context: {ref[:40]!r} is neither a block, a part of one, nor a subtask")
    for other in task.depends_on:
        if other not in tasks:
            raise BadPlan(f"{name}.depends_on: no subtask {other[:40]!r}")
    names = [f.name for f in task.output_fields]
    if len({*names, "status", "evidence"}) != len(names) + 2:
        raise BadPlan(f"{name}.output_fields: names must differ, and status and evidence are taken")


def dependencies(task: Subtask) -> set[str]:
    """Ids of the subtasks that must be done before this one."""
    return {*task.depends_on, *(ref for ref in task.context if re.fullmatch(TASK, ref))}


def dependency_order(tasks: Mapping[str, Subtask]) -> list[str]:
    """Ids, each after those it depends on. Raises BadPlan."""
    try:
        return list(TopologicalSorter({name: dependencies(task) for name, task in tasks.items()}).static_order())
    except CycleError as error:
        raise BadPlan(f"depends_on: {' -> '.join(error.args[1])} is a circle") from None


def expanded(tasks: Mapping[str, Subtask], order: Sequence[str], chat: OffloadedChat) -> tuple[Job, ...]:
    """A job for each subtask, or for each part of a mapped one; jobs without dependencies come first."""
    ids = {name: job_ids(name, task, chat) for name, task in tasks.items()}
    level: dict[str, int] = {}
    for name in order:
        level[name] = max((level[other] + 1 for other in dependencies(tasks[name])), default=0)
    return tuple(
        Job(job, task, i if task.each else None, frozenset(d for other in dependencies(task) for d in ids[other]))
        for name, task in sorted(tasks.items(), key=lambda entry: level[entry[0]])
        for i, job in enumerate(ids[name], 1)
    )


def job_ids(name: str, task: Subtask, chat: OffloadedChat) -> list[str]:
    if not task.each:
        return [name]
    return [f"{name}.{i}" for i in range(1, len(chat.blocks[task.each].cut.parts) + 1)]


def lone_map(plan: Plan) -> Subtask | None:
    """The subtask of a plan that only maps a block: the list of its results is the answer. None for any other plan."""
    only = plan.plan[0] if len(plan.plan) == 1 else None
    return only if only and only.each and plan.answer is None and not plan.merge and not only.output_fields else None


def result_schema(task: Subtask, grounded: bool) -> dict[str, Any]:
    """The schema of a worker's answer: its status first, then evidence if it is checked, then the fields."""
    shape: dict[str, Any] = {"status": {"enum": list(STATUSES)}}
    if grounded:
        shape["evidence"] = {"type": "string", "description": "a verbatim quote of the text that the answer rests on"}
    for field in task.output_fields:
        shape[field.name] = FIELD_TYPES[field.type] | ({"description": field.description} if field.description else {})
    return closed(shape, *shape)


def canonical(tasks: Sequence[Subtask]) -> str:
    """One text for all spellings of the same subtasks."""
    return json.dumps([task.model_dump(exclude_defaults=True) for task in tasks], sort_keys=True)
