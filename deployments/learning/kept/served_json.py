"""Makes `Served` of the tables' rows. The rows hold what clients and tiers wrote, so whatever cannot be read is left out."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from router.flywheel.served import Answer, Grade, Served
from router.flywheel.variants import Versions

Row = Mapping[str, Any]
NO_TRACE: Row = {"router": "", "flow": "direct", "certificate": "", "status": 200}
"""of a request whose trace has not reached the tables yet, or was deleted before its conversation"""
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


class Broken(ValueError):
    """A row does not hold what it should; the message says what."""


def served(
    asked: Row,
    answers: Iterable[Row],
    grades: Iterable[Row] = (),
    trace: Row | None = None,
    fill: Row | None = None,
    degraded: bool = False,
    versions: Versions | None = None,
) -> Served:
    """One kept request. Raises Broken where its own row cannot be read; of the other rows, those that can be read are taken.

    asked: the row of role `answer`. answers: all rows of its trace, the first of each tier first. fill: None: it was not drawn.
    versions: answers are told apart by the weights that gave them, and those of unknown weights are left out; None: by tier.
    """
    known = trace or NO_TRACE
    return Served(
        trace_id=asked["trace_id"],
        at_s=asked["created_s"],
        key_id=asked["key_id"],
        conversation=asked["conversation"],
        messages=tuple(objects(asked["messages"], "messages", least=1)),
        answered_by=(versions.name(asked["tier"], asked["model"]) or "") if versions else asked["tier"],
        answers=chosen(asked, told_apart(readable(answers), versions)),
        grades={row["tier"]: Grade(row["score"], row["source"], row["detail"]) for row in grades},
        tools=tuple(objects(asked["tools"] or "[]", "tools")),
        sampling=an_object(asked["sampling"] or "{}", "sampling"),
        wanted=asked["wanted"],
        metadata={str(name): str(value) for name, value in an_object(asked["metadata"] or "{}", "metadata").items()},
        chance=fill["chance"] if fill else 1.0,
        drawn=fill is not None,
        router=known["router"] or "",
        flow=known["flow"],
        certificate=known["certificate"],
        status=known["status"],
        degraded=degraded,
    )


def as_sent(asked: Row) -> bool:
    """Whether the client's answer is the tier's own, to the conversation that is kept: it was not redacted, and the answer was
    not put together from several calls. Otherwise the tier has to be asked again, so that all answers are to the same question.
    """
    return not asked["redaction"] and bool(asked["call_id"])


def chosen(asked: Row, answers: Sequence[Answer]) -> dict[str, Answer]:
    """One answer a tier: what the client got, else the first; where `as_sent` is false, what was asked afterwards comes first."""
    order = ("answer", "draft", "audit", "fill") if as_sent(asked) else ("fill", "answer", "draft", "audit")
    found: dict[str, Answer] = {}
    for role in order:
        for answer in answers:
            if answer.role == role:
                found.setdefault(answer.tier, answer)
    return found


def told_apart(answers: Sequence[Answer], versions: Versions | None) -> list[Answer]:
    """The answers under the names of the weights that gave them, without those of unknown weights."""
    if versions is None:
        return list(answers)
    named = [(versions.name(answer.tier, answer.model), answer) for answer in answers]
    return [replace(answer, tier=name) for name, answer in named if name is not None]


def readable(rows: Iterable[Row]) -> list[Answer]:
    found = []
    for row in rows:
        try:
            found.append(answer_of(row))
        except UNREADABLE:
            continue
    return found


def answer_of(row: Row) -> Answer:
    """Raises one of UNREADABLE."""
    return Answer(
        tier=row["tier"],
        role=row["role"],
        message=an_object(row["answer"], "answer"),
        finish=row["finish"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cost_usd=row["cost_usd"],
        signals=an_object(row["signals"] or "{}", "signals"),
        model=row["model"],
    )


def an_object(text: Any, what: str) -> dict[str, Any]:
    """Raises Broken."""
    found = parsed(text, what)
    if not isinstance(found, dict):
        raise Broken(f"{what} is {type(found).__name__}, expected an object")
    return found


def objects(text: Any, what: str, least: int = 0) -> list[dict[str, Any]]:
    """A list of at least so many objects. Raises Broken."""
    found = parsed(text, what)
    if not isinstance(found, list) or len(found) < least or not all(isinstance(one, dict) for one in found):
        raise Broken(f"{what} is no list of objects")
    return found


def parsed(text: Any, what: str) -> Any:
    try:
        return json.loads(text)
    except UNREADABLE as error:
        raise Broken(f"{what} is not JSON") from error
