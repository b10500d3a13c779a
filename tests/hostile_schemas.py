"""JSON schemas that nobody means well with, and values that make them dear."""

from typing import Any

from fuzzing import ANY
from hypothesis import strategies as st

FLAT = st.sampled_from(
    [
        {"type": "integer"},
        {"type": "array", "uniqueItems": True},
        {"enum": list(range(500))},
        {"const": {"a": [1] * 50}},
        {"pattern": "^(a+)+$"},
        {"pattern": "("},
        {"format": "regex"},
        {"multipleOf": 1e-308},
        {"multipleOf": 0},
        {"minimum": 10**400},
        {"maxLength": -1},
        {"minContains": 10**9, "contains": True},
        {"$ref": "#"},
        {"$ref": "#/$defs/none"},
        {"$ref": "http://127.0.0.1:1/x"},
        {"$ref": "file:///etc/passwd"},
        {"$dynamicRef": "#a"},
        {"$id": "http://127.0.0.1:1/", "$anchor": "a"},
        {"$schema": "http://json-schema.org/draft-03/schema"},
        {"$schema": 5},
        {"type": ["string", "nothing"]},
        {"required": "a"},
        {"patternProperties": {"(a+)+$": True}},
        {"propertyNames": {"pattern": "(x*)*y"}},
        {"unevaluatedProperties": False},
        {"dependentRequired": {"a": 5}},
        True,
        False,
        {},
    ]
)


def doubling(levels: int, keyword: str) -> dict[str, Any]:
    """A schema whose full expansion has 2 ** levels parts."""
    made: dict[str, Any] = {f"a{i}": {keyword: [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(levels)}
    return {"$defs": {**made, f"a{levels}": {"type": "null"}}, "$ref": "#/$defs/a0"}


def nested(levels: int, keyword: str, inner: Any) -> Any:
    for _ in range(levels):
        inner = {keyword: [inner] if keyword in ("allOf", "anyOf", "oneOf", "prefixItems") else inner}
    return inner


KEYWORDS = st.sampled_from(["allOf", "anyOf", "oneOf"])
INNER = st.sampled_from(["not", "items", "contains", "allOf", "anyOf", "oneOf", "if", "additionalProperties", "prefixItems"])
SCHEMAS = (
    FLAT
    | st.builds(doubling, st.integers(1, 60), KEYWORDS)
    | st.builds(nested, st.integers(1, 45), INNER, FLAT)
    | st.builds(lambda parts, keyword: {keyword: parts}, st.lists(FLAT, min_size=1, max_size=20), KEYWORDS)
    | st.dictionaries(
        st.sampled_from(["properties", "$defs", "items", "type", "enum", "if", "then", "not"]), ANY | FLAT, max_size=3
    )
)
VALUES = ANY | st.sampled_from(
    [
        "a" * 5_000 + "!",
        list(range(6_000)),
        [[i, {"a": i}] for i in range(2_000)],
        {f"k{i}": i for i in range(3_000)},
        [0] * 20_000,
        {"a": {"a": {"a": [None] * 50}}},
    ]
)
