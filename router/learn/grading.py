"""Graders by name: each scores an answer against the reference, (answer, reference, row) -> [0, 1]."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from router.entry_points import load_function
from router.errors import BadInput
from router.request.schemas import fits

Grader = Callable[[str, Any, Mapping[str, Any]], float]

_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_CHOICE = re.compile(r"\b(?:answer|option|choice)\b[^A-Za-z0-9]*(?:is|:)?[^A-Za-z0-9]*\(?([A-Z])\b|^\W*\(?([A-Z])\W*$", re.M)


def exact(answer: str, reference: Any, row: Mapping[str, Any]) -> float:
    """1 for the same text, ignoring white space at both ends."""
    return float(answer.strip() == str(reference).strip())


def last_number(text: str) -> float | None:
    """The last number in the text, since models reason first and conclude last."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "").rstrip(".")) if found else None


def numeric(answer: str, reference: Any, row: Mapping[str, Any]) -> float:
    """1 if the last numbers of answer and reference are equal to one part in a million."""
    given, wanted = last_number(answer), last_number(str(reference))
    if given is None or wanted is None:
        return 0.0
    return float(abs(given - wanted) <= 1e-6 * max(1.0, abs(wanted)))


def regex(answer: str, reference: Any, row: Mapping[str, Any]) -> float:
    """1 if the reference, a regular expression, matches in the answer."""
    return float(re.search(str(reference), answer) is not None)


def choice(answer: str, reference: Any, row: Mapping[str, Any]) -> float:
    """1 if the chosen letter is right: one after "answer", or alone on a line; the last counts."""
    found = [a or b for a, b in _CHOICE.findall(answer)]
    return float(bool(found) and found[-1] == str(reference).strip().strip("().").upper())


def _json_in(text: str) -> Any:
    """The JSON of an answer, with or without a code fence around it; None where there is none."""
    body = re.sub(r"^\s*```(?:json)?\s*|\s*```\s*$", "", text)
    try:
        return json.loads(body)
    except ValueError:
        return None


def json_schema(answer: str, reference: Any, row: Mapping[str, Any]) -> float:
    """1 if the answer is JSON that fits the row's `schema` and, where the row has a reference, equals it."""
    value = _json_in(answer)
    if value is None or not fits(value, row.get("schema") or {}):
        return 0.0
    wanted = _json_in(reference) if isinstance(reference, str) else reference
    return float(reference is None or value == wanted)


GRADERS: dict[str, Grader] = {"exact": exact, "numeric": numeric, "regex": regex, "choice": choice, "json_schema": json_schema}


def find_grader(name: str) -> Grader | None:
    """A grader of GRADERS, or a function named as `package.module:function`. None for `judge`."""
    if name == "judge":
        return None
    if name in GRADERS:
        return GRADERS[name]
    if ":" not in name:
        raise BadInput(f"--grader {name!r}: expected {', '.join(GRADERS)}, judge, or package.module:function")
    return load_function(name, "--grader", BadInput)
