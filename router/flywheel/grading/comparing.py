"""Whether two answers to the same request are the same: as texts with a final answer, as JSON, or as calls of tools.

None means that it cannot be told by comparing: free text, which two good answers never share word for word.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from classifiers.replies.answers import final_answer, normal, same
from router.cascade.checks import fits_format
from router.flywheel.served import Answer
from router.request.body import answer_limit, wants_json
from router.request.schemas import comparable

PROSE = 8  # words of a text within JSON; longer ones that differ may mean the same


def fault(answer: Answer, body: Mapping[str, Any]) -> str:
    """What is wrong with an answer by itself; empty: nothing is."""
    if refuses(answer) or calls_of(answer):
        return ""
    if not answer.text.strip():
        return "it was cut within its thought" if answer.thought and answer.finish == "length" else "it is empty"
    if answer.finish == "length" and answer_limit(body) is None:
        return "it is cut off"
    return "it has not the form that was asked for" if fits_format(answer.text, body) is False else ""


def equal(a: Answer, b: Answer, body: Mapping[str, Any]) -> bool | None:
    """Whether two answers are the same; None: they cannot be compared."""
    ours, theirs = calls_of(a), calls_of(b)
    if ours or theirs:
        return same_calls(ours, theirs)
    if refuses(a) or refuses(b):
        return True if refuses(a) and refuses(b) else None
    if a.text.strip() == b.text.strip():
        return True
    if wants_json(body):
        return same_json(json_of(a.text), json_of(b.text))
    return same(final_answer(a.text), final_answer(b.text))


def refuses(answer: Answer) -> bool:
    return bool(answer.message.get("refusal")) or answer.finish == "content_filter"


# -- calls of tools --------------------------------------------------------------------------------------------------------


def calls_of(answer: Answer) -> list[tuple[str, Any]]:
    """(name, arguments) of each call, in a fixed order. Arguments that are no JSON stay a text."""
    given = answer.message.get("tool_calls")
    functions = [call.get("function") for call in given if isinstance(call, Mapping)] if isinstance(given, list) else []
    functions.append(answer.message.get("function_call"))
    found = [(str(one.get("name")), json_of(one.get("arguments"))) for one in functions if isinstance(one, Mapping)]
    return sorted(found, key=lambda call: (call[0], json.dumps(call[1], sort_keys=True)))


def same_calls(ours: Sequence[tuple[str, Any]], theirs: Sequence[tuple[str, Any]]) -> bool | None:
    if [name for name, _ in ours] != [name for name, _ in theirs]:
        return False
    return all_same(same_json(a, b) for (_, a), (_, b) in zip(ours, theirs, strict=True))


# -- JSON ------------------------------------------------------------------------------------------------------------------


def json_of(text: Any) -> Any:
    """The value of a JSON text, with or without a fence around it; the text itself where it is none."""
    if not isinstance(text, str):
        return text
    inner = text.strip()
    if inner.startswith("```"):
        inner = inner.partition("\n")[2].removesuffix("```")
    try:
        return json.loads(inner)
    except (ValueError, RecursionError):
        return text


def same_json(a: Any, b: Any) -> bool | None:
    """Whether two values are equal. None: they differ in nothing but texts that may mean the same, or are nested too deeply."""
    try:
        return compared(a, b)
    except RecursionError:
        return None


def compared(a: Any, b: Any) -> bool | None:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return all_same(compared(value, b[name]) for name, value in a.items()) if a.keys() == b.keys() else False
    if isinstance(a, list) and isinstance(b, list):
        return all_same(compared(one, other) for one, other in zip(a, b, strict=True)) if len(a) == len(b) else False
    if isinstance(a, str) and isinstance(b, str):
        if normal(a) == normal(b):
            return True
        return None if max(len(a.split()), len(b.split())) > PROSE else False
    return bool(comparable(a) == comparable(b))


def all_same(parts: Iterable[bool | None]) -> bool | None:
    """False where one part differs for sure, else None where one cannot be told."""
    found = list(parts)
    return False if False in found else (None if None in found else True)
