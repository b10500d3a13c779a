"""How an answer is compared with the reference: graders by name, each (answer, reference, row) -> [0, 1]."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from router.entry_points import load_function
from router.errors import BadInput

Grader = Callable[[str, Any, Mapping[str, Any]], float]

_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_CHOICE = re.compile(r"\b(?:answer|option|choice)\b[^A-Za-z0-9]*(?:is|:)?[^A-Za-z0-9]*\(?([A-Z])\b|^\W*\(?([A-Z])\W*$", re.M)


def exact(answer: str, reference: Any, row: Mapping[str, Any]) -> float:
    """The same text, white space at both ends aside."""
    return float(answer.strip() == str(reference).strip())


def last_number(text: str) -> float | None:
    """The last number in the text: models reason first and conclude last."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "").rstrip(".")) if found else None


def numeric(answer: str, reference: Any, row: Mapping[str, Any]) -> float:
    """The last number of the answer equals that of the reference, to one part in a million."""
    given, wanted = last_number(answer), last_number(str(reference))
    if given is None or wanted is None:
        return 0.0
    return float(abs(given - wanted) <= 1e-6 * max(1.0, abs(wanted)))


def regex(answer: str, reference: Any, row: Mapping[str, Any]) -> float:
    """The reference, a regular expression, is found in the answer."""
    return float(re.search(str(reference), answer) is not None)


def choice(answer: str, reference: Any, row: Mapping[str, Any]) -> float:
    """The letter chosen: after "answer", or alone on a line; the last one counts."""
    found = [a or b for a, b in _CHOICE.findall(answer)]
    return float(bool(found) and found[-1] == str(reference).strip().strip("().").upper())


def _json_in(text: str) -> Any:
    """The JSON of an answer, a code fence around it aside; None when there is none."""
    body = re.sub(r"^\s*```(?:json)?\s*|\s*```\s*$", "", text)
    try:
        return json.loads(body)
    except ValueError:
        return None


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def fits_schema(value: Any, schema: Mapping[str, Any]) -> bool:
    """The part of JSON Schema that structured outputs use: type, enum, const, properties, required, items, bounds."""
    if "enum" in schema and value not in schema["enum"] or "const" in schema and value != schema["const"]:
        return False
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is_a(value, kind) for kind in kinds):
        return False
    if isinstance(value, dict):
        return _object_fits(value, schema)
    if isinstance(value, list):
        return all(fits_schema(item, schema.get("items", {})) for item in value)
    if isinstance(value, int | float):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    return True


def _is_a(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES.get(kind, (object,)))


def _object_fits(value: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    properties = schema.get("properties", {})
    if not set(schema.get("required", ())) <= set(value):
        return False
    if schema.get("additionalProperties") is False and not set(value) <= set(properties):
        return False
    return all(fits_schema(item, properties.get(key, {})) for key, item in value.items())


def json_schema(answer: str, reference: Any, row: Mapping[str, Any]) -> float:
    """The answer is JSON that fits the row's `schema` and, where the row has a reference, equals it."""
    value = _json_in(answer)
    if value is None or not fits_schema(value, row.get("schema") or {}):
        return 0.0
    wanted = _json_in(reference) if isinstance(reference, str) else reference
    return float(reference is None or value == wanted)


GRADERS: dict[str, Grader] = {"exact": exact, "numeric": numeric, "regex": regex, "choice": choice, "json_schema": json_schema}


def find_grader(name: str) -> Grader | None:
    """A grader of GRADERS, or a Python callable by entry point: `package.module:function`. None for `judge`."""
    if name == "judge":
        return None
    if name in GRADERS:
        return GRADERS[name]
    if ":" not in name:
        raise BadInput(f"--grader {name!r}: expected {', '.join(GRADERS)}, judge, or package.module:function")
    return load_function(name, "--grader", BadInput)
