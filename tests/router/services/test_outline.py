"""Fields of a JSON object, found in its bytes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.services import outline

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=5) | st.sampled_from(["model", "usage"]), VALUES, max_size=5)


def parts_of(value) -> int:
    held = list(value.values()) if isinstance(value, dict) else (value if isinstance(value, list) else [])
    return sum(isinstance(part, dict | list) for part in held)


@given(OBJECTS, st.sampled_from([None, 2]), st.booleans())
def test_every_field_of_any_object_is_found_with_its_value(data, indent, escaped):
    raw = json.dumps(data, indent=indent, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    found = outline.fields(raw)
    assert {one.name: one.value(raw) for one in found} == data
    assert {one.name: one.parts for one in found} == {name: parts_of(value) for name, value in data.items()}


@given(OBJECTS, st.text(max_size=5).filter(str.isprintable))
def test_one_value_is_replaced_and_nothing_else(data, model):
    raw = json.dumps(data).encode()
    changed = outline.with_value(raw, "model", model, outline.fields(raw))
    assert json.loads(changed) == (data | {"model": model} if "model" in data else data)
    if "model" not in data:
        assert changed == raw


def test_a_name_that_is_given_twice_or_in_escapes_is_replaced_everywhere():
    raw = b'{"model": "a", "input": "\\"model\\": 1", "mod\\u0065l" :  {"x": [1]} , "n": 1.5e3}'
    changed = outline.with_value(raw, "model", 'b"', outline.fields(raw))
    assert changed == b'{"model": "b\\"", "input": "\\"model\\": 1", "mod\\u0065l" :  "b\\"" , "n": 1.5e3}'


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"[]", b"null", b"{", b'{"a"', b'{"a":', b'{"a":1', b'{"a":1,', b'{"a":1,}', b'{"a" 1}', b'{"a":}', b"{a:1}"),
        *(b'{"a":"x}', b'{"a":[1}', b'{"a":[[1]}', b'{"a":1}x', b'{"a":1}{}', b'{"a":"x\\"}', b'{"a":"x\\\\\\"}'),
    ],
)
def test_what_is_no_object_is_refused(raw):
    with pytest.raises(ValueError):
        outline.fields(raw)


def test_the_work_is_bounded(monkeypatch):
    monkeypatch.setattr(outline, "MOST_BRACKETS", 100)
    with pytest.raises(ValueError, match="more than 100 lists"):
        outline.fields(b'{"a": [' + b"[]," * 100 + b"[]]}")
