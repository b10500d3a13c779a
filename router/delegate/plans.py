"""What the planning tier writes: parsed, checked as a graph, and opened up into jobs.

The form is short because the planner's output tokens are what delegation costs: `{"plan": [{"each": "c1"}]}` hands down
every part of a block, however many there are, and `{"plan": []}` hands down nothing.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from router.delegate.blocks import Sheet
from router.delegate.splice import references
from router.errors import BadPlan

TASK = r"t[1-9][0-9]?"
BLOCK = r"c[1-9][0-9]?"
KINDS = ("extract", "classify", "summarize", "transform", "draft", "code", "compute", "answer", "verify")
DIFFICULTIES = ("trivial", "easy", "medium", "hard")
FIELD_TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "string_list": {"type": "array", "items": {"type": "string"}},
}
STATUSES = ("ok", "insufficient_context", "too_hard")
MIN_TOKENS, MAX_TOKENS = 16, 2048  # of one subtask's answer


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


DECODER = json.JSONDecoder(parse_constant=_no_constant)


class Wire(BaseModel):
    """As the grammar has it: closed, and a number is no text."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class OutputField(Wire):
    """One typed field of a result. A list of these, not a free schema: engines do not constrain free-form objects."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    type: Literal["string", "integer", "number", "boolean", "string_list"]
    description: str = ""


class Subtask(Wire):
    """One entry of a plan. `prompt`, `each` or both must be there."""

    id: Annotated[str, Field(pattern=rf"^{TASK}$")] | None = None
    kind: Literal["extract", "classify", "summarize", "transform", "draft", "code", "compute", "answer", "verify"] = "answer"
    prompt: str = ""
    each: Annotated[str, Field(pattern=rf"^{BLOCK}$")] | None = None
    """a block, every part of which is a job of its own"""
    context: Annotated[list[str], Field(max_length=8)] = []
    """handles of blocks and ids of subtasks whose results are shown"""
    depends_on: Annotated[list[str], Field(max_length=8)] = []
    difficulty: Literal["trivial", "easy", "medium", "hard"] | None = None
    output_fields: Annotated[list[OutputField], Field(max_length=8)] = []
    max_tokens: Annotated[int, Field(ge=MIN_TOKENS, le=MAX_TOKENS)] | None = None


class Plan(Wire):
    """Empty: answer directly."""

    plan: list[Subtask]
    answer: str | None = None
    """the whole answer with `{{t1}}` in the place of results; then no further call is made"""
    merge: bool = False
    """the results need a text of the planner's own around them"""

    def named(self) -> dict[str, Subtask]:
        """Subtasks by id; those without one are t1, t2, ... by position."""
        return {task.id or f"t{i}": task for i, task in enumerate(self.plan, 1)}


@dataclass(frozen=True, slots=True)
class Job:
    """One call's worth of a plan: a subtask, or one part of a mapped one."""

    id: str
    """`t2`, or `t2.5` for part 5"""
    task: Subtask
    part: int | None = None
    depends_on: frozenset[str] = frozenset()
    """ids of jobs"""


@cache
def plan_schema(max_subtasks: int) -> dict[str, Any]:
    """The plan as JSON schema for guided decoding, the same language as `Plan`.

    `plan` first, so the first tokens tell direct from delegate. No maxLength: in xgrammar 0.2.8 it forbids every escape
    in the string. anyOf, not oneOf, and no uniqueItems: engines differ on both.
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
        "kind": {"enum": list(KINDS)},
        "prompt": {"type": "string"},
        "each": {"type": "string", "pattern": f"^{BLOCK}$"},
        "context": {"type": "array", "items": {"type": "string", "pattern": ref}, "maxItems": 8},
        "depends_on": {"type": "array", "items": {"type": "string", "pattern": f"^{TASK}$"}, "maxItems": 8},
        "difficulty": {"enum": list(DIFFICULTIES)},
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


def parse(text: str) -> Plan:
    """Read a plan, with a code fence or prose around it where the tier was not constrained. Raises BadPlan."""
    at = text.find("{")
    if at < 0:
        raise BadPlan(f"expected a JSON object, found {text[:60]!r}")
    try:
        found, _ = DECODER.raw_decode(text[at:])
        return Plan.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadPlan(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise BadPlan(f"not JSON: {str(error)[:120]}") from None


def check(plan: Plan, sheet: Sheet, max_subtasks: int) -> tuple[Job, ...]:
    """The plan's jobs in an order that dependencies allow; none for a direct answer. Raises BadPlan."""
    if len(plan.plan) > max_subtasks:
        raise BadPlan(f"{len(plan.plan)} subtasks; at most {max_subtasks} are allowed")
    named = plan.named()
    if len(named) != len(plan.plan):
        raise BadPlan("ids: two subtasks share one; give each its own, or none")
    for name, task in named.items():
        check_task(name, task, sheet, named)
    check_order(named)
    for name in references(plan.answer or ""):
        if name.split(".")[0] not in named:
            raise BadPlan(f"answer: {{{{{name}}}}} is no subtask of this plan")
    jobs = opened(named, sheet)
    if len(jobs) > max_subtasks:
        raise BadPlan(f"{len(jobs)} subtasks, each part of a mapped one counted; at most {max_subtasks} are allowed")
    return jobs


def check_task(name: str, task: Subtask, sheet: Sheet, named: Mapping[str, Subtask]) -> None:
    if not task.prompt.strip() and not task.each:
        raise BadPlan(f"{name}: give a prompt, or a block under each")
    if task.each and task.each not in sheet.blocks:
        raise BadPlan(f"{name}.each: no block {task.each}; there are {', '.join(sheet.blocks) or 'none'}")
    for ref in task.context:
        if not (ref in named or sheet.has(ref)):
            raise BadPlan(f"{name}.context: {ref[:40]!r} is neither a block, a part of one, nor a subtask")
    for other in task.depends_on:
        if other not in named:
            raise BadPlan(f"{name}.depends_on: no subtask {other[:40]!r}")
    names = [f.name for f in task.output_fields]
    if len({*names, "status", "evidence"}) != len(names) + 2:
        raise BadPlan(f"{name}.output_fields: names must differ, and status and evidence are taken")


def needs(task: Subtask) -> set[str]:
    """Subtasks that must be done before this one."""
    return {*task.depends_on, *(ref for ref in task.context if re.fullmatch(TASK, ref))}


def check_order(named: Mapping[str, Subtask]) -> None:
    try:
        TopologicalSorter({name: needs(task) for name, task in named.items()}).prepare()
    except CycleError as error:
        raise BadPlan(f"depends_on: {' -> '.join(error.args[1])} is a circle") from None


def opened(named: Mapping[str, Subtask], sheet: Sheet) -> tuple[Job, ...]:
    """A job for each subtask, or for each part of a mapped one; those that need nothing first."""
    ids = {name: job_ids(name, task, sheet) for name, task in named.items()}
    level: dict[str, int] = {}
    for name in TopologicalSorter({name: needs(task) for name, task in named.items()}).static_order():
        level[name] = max((level[other] + 1 for other in needs(named[name])), default=0)
    return tuple(
        Job(job, task, i if task.each else None, frozenset(d for other in needs(task) for d in ids[other]))
        for name, task in sorted(named.items(), key=lambda entry: level[entry[0]])
        for i, job in enumerate(ids[name], 1)
    )


def job_ids(name: str, task: Subtask, sheet: Sheet) -> list[str]:
    if not task.each:
        return [name]
    return [f"{name}.{i}" for i in range(1, len(sheet.blocks[task.each].cut.parts) + 1)]


def lone_map(plan: Plan) -> Subtask | None:
    """The one subtask of a plan that maps a block and asks for nothing else: the list of its results is the answer."""
    only = plan.plan[0] if len(plan.plan) == 1 else None
    return only if only and only.each and plan.answer is None and not plan.merge and not only.output_fields else None


def result_schema(task: Subtask, grounded: bool) -> dict[str, Any]:
    """What a worker must answer: its status first, then evidence where it is checked, then the fields."""
    shape: dict[str, Any] = {"status": {"enum": list(STATUSES)}}
    if grounded:
        shape["evidence"] = {"type": "string", "description": "a verbatim quote of the text that the answer rests on"}
    for field in task.output_fields:
        shape[field.name] = FIELD_TYPES[field.type] | ({"description": field.description} if field.description else {})
    return closed(shape, *shape)


def canonical(plans: Sequence[Subtask]) -> str:
    """The plan as one text, equal for equal plans whatever their spacing."""
    return json.dumps([task.model_dump(exclude_defaults=True) for task in plans], sort_keys=True)
