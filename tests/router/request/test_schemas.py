"""A client's schema judges answers, and can do nothing else to us."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from router.request.schemas import MOST_STEPS, fits

ADDRESS = {"type": "object", "properties": {"street": {"type": "string"}, "number": {"type": "integer"}}, "required": ["street"]}


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


@pytest.mark.slow
def test_references_that_double_forty_times_are_given_up():
    doubled = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i - 1}"}] * 2} for i in range(1, 41)}
    assert fits(3, {"$defs": {"d0": {"type": "integer"}, **doubled}, "$ref": "#/$defs/d40"})


def test_ordinary_answers_are_far_from_the_limit():
    rows = [{"street": f"Lane {i}", "number": i} for i in range(MOST_STEPS // 100)]
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
