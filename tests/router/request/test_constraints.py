"""What would keep an engine from its other work is refused before a tier is asked; ordinary constraints pass."""

import json

import pytest

from router.errors import BadRequest
from router.request.constraints import MOST_CHARS, MOST_CHOICES
from router.request.wire import parse

USER = {"role": "user", "content": "x"}


def asked(**more):
    return parse("chat/completions", json.dumps({"model": "auto", "messages": [USER], **more}).encode())


def schema(made):
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": made}}}


def tool(parameters):
    return [{"type": "function", "function": {"name": "f", "parameters": parameters}}]


MANY = {"enum": list(range(MOST_CHOICES + 1))}
TOO_DEAR = {
    "an enum": schema(MANY),
    "many enums": schema({"anyOf": [{"enum": list(range(1_001))}] * 10}),
    "an enum in a part": schema({"properties": {"a": {"items": MANY}}}),
    "a long schema": schema({"description": "d" * MOST_CHARS}),
    "many properties": schema({"properties": {f"property {i}": {"type": "string"} for i in range(4_000)}}),
    "choices": {"structured_outputs": {"choice": [str(i) for i in range(MOST_CHOICES + 1)]}},
    "an old field's choices": {"guided_choice": [str(i) for i in range(MOST_CHOICES + 1)]},
    "an expression": {"structured_outputs": {"regex": "a" * MOST_CHARS}},
    "an old field's grammar": {"guided_grammar": "root ::= " + '"a" | ' * MOST_CHARS},
    "a tool that must be called": {"tools": tool(MANY), "tool_choice": "required"},
    "a named tool": {"tools": tool(MANY), "tool_choice": {"type": "function", "function": {"name": "f"}}},
}


@pytest.mark.parametrize("case", TOO_DEAR)
def test_a_dear_constraint_is_refused_with_what_is_allowed(case):
    with pytest.raises(BadRequest, match="send at most 1[02]") as refused:
        asked(**TOO_DEAR[case])
    assert refused.value.param in ("response_format", "structured_outputs", "guided_choice", "guided_grammar", "tools")


ORDINARY = {
    "an enum": schema({"enum": list(range(MOST_CHOICES))}),
    "properties": schema({"properties": {f"p{i}": {"enum": ["a", "b"]} for i in range(1_000)}}),
    "choices": {"structured_outputs": {"choice": ["yes", "no"]}},
    "no schema": {"response_format": {"type": "json_object"}},
    "tools that may be called": {"tools": tool(MANY), "tool_choice": "auto"},
    "a value that is called enum": schema({"properties": {"enum": {"type": "string"}}, "enum": 5}),
    "null": {"structured_outputs": None},
}


@pytest.mark.parametrize("case", ORDINARY)
def test_an_ordinary_constraint_passes(case):
    asked(**ORDINARY[case])
