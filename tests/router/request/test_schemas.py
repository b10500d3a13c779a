"""A client's schema judges answers, and can do nothing else to us."""

import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from router.request.schemas import LIMIT_S, judge

ADDRESS = {"type": "object", "properties": {"street": {"type": "string"}, "number": {"type": "integer"}}, "required": ["street"]}


def fits(value, schema):
    """Whether nothing is found against the value."""
    return judge(value, schema) is not False


@pytest.mark.parametrize(
    "value, schema, expected",
    [
        ({"street": "Lane", "number": 3}, ADDRESS, True),
        ({"street": "Lane", "number": "3"}, ADDRESS, False),
        ({"number": 3}, ADDRESS, False),
        (3, {"$defs": {"n": {"minimum": 5}}, "$ref": "#/$defs/n"}, False),
        ("aaa", {"type": "string", "pattern": "^b"}, True),
        (3, {"type": "string", "pattern": "^b"}, False),
        (3, {"type": "no such type"}, True),
        (3, {"$ref": "#/nowhere"}, True),
        (3, {"$ref": "#"}, True),
        (3, {"patternProperties": {"(": {}}, "type": "string"}, True),
        (3, "no schema", True),
        (3, None, True),
        (3, {"enum": ["x" * 30_000]}, True),
    ],
)
def test_judges_what_it_can(value, schema, expected):
    assert fits(value, schema) is expected


def test_a_slow_pattern_is_not_tried():
    assert fits("a" * 60 + "!", {"pattern": "^(a+)+$"})  # would take longer than the universe has


DRAFT_7 = "http://json-schema.org/draft-07/schema#"
ROWS = [{"a": i, "b": [i]} for i in range(1_500)]


def halves(kind):
    return {f"d{i}": {kind: [{"$ref": f"#/$defs/d{i - 1}"}] * 2} for i in range(1, 41)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["allOf", "anyOf", "oneOf"])
def test_references_that_double_forty_times_give_no_evidence(kind):
    schema = {"$defs": {"d0": {"type": "string" if kind == "anyOf" else "integer"}, **halves(kind)}, "$ref": "#/$defs/d40"}
    began = time.thread_time()
    assert judge(3, schema) is None and fits(3, schema)
    assert time.thread_time() - began < 120 * LIMIT_S  # two to the power of forty steps would take days


@pytest.mark.parametrize(
    "value, schema, expected",
    [
        (ROWS, {"type": "array", "uniqueItems": True}, True),
        ([*ROWS, {"b": [7.0], "a": 7}], {"type": "array", "uniqueItems": True}, False),
        ([1, True, 0, False, [1], [True], {"a": 1}, {"a": True}], {"uniqueItems": True}, True),
        ([1, 1.0], {"uniqueItems": True}, False),
        ([True, True], {"uniqueItems": True}, False),
        (list(range(5_000)), {"items": {"enum": list(range(3_000))}}, False),
        (ROWS, {"items": {"enum": [{"a": i} for i in range(1_500)]}}, False),
        ([1.0], {"items": {"enum": [1]}}, True),
        ([True], {"items": {"enum": [1]}}, False),
        ({"a": True}, {"const": {"a": 1}}, False),
        ({"a": 1.0}, {"const": {"a": 1}}, True),
        ([ROWS] * 20, {"items": {"const": ROWS[:300]}}, False),
        ({}, {"required": [{"a": i} for i in range(1_500)]}, True),  # no schema; finding that out compares its entries
        ({"x": "a" * 60 + "!"}, {"properties": {"x": {"$schema": DRAFT_7, "pattern": "^(a+)+$"}}}, True),
        (3, {"$schema": DRAFT_7, "type": "string"}, False),
        (3, {"$ref": "http://[::1"}, None),
        (10**300, {"multipleOf": 1e-300}, False),
        ({f"k{i}": i for i in range(300)}, {"allOf": [{}], "unevaluatedProperties": False}, True),
    ],
)
def test_dear_keywords_are_judged_in_little_time(value, schema, expected):
    began = time.thread_time()
    assert judge(value, schema) is expected
    assert time.thread_time() - began < 120 * LIMIT_S


def test_ordinary_answers_are_far_from_the_limit():
    rows = [{"street": f"Lane {i}", "number": i} for i in range(500)]
    assert fits(rows, {"type": "array", "items": ADDRESS})
    assert not fits([*rows, {}], {"type": "array", "items": ADDRESS})


def test_a_schema_of_a_hundred_levels_is_left_to_the_tier():
    schema: dict = {"type": "string"}
    for _ in range(97):
        schema = {"not": {"not": schema}}
    assert isinstance(fits(3, schema), bool)


@pytest.mark.slow
def test_no_address_in_a_schema_is_fetched():
    asked = []

    class Internal(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

    server = HTTPServer(("127.0.0.1", 0), Internal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert fits(3, {"$ref": f"http://127.0.0.1:{server.server_port}/latest/meta-data"})
        assert fits(3, {"$schema": f"http://127.0.0.1:{server.server_port}/schema", "$dynamicRef": "http://127.0.0.1:1/x"})
    finally:
        server.shutdown()
    assert asked == []
