"""JSON is read within a bound of work, whatever a stranger sends."""

import json

import pytest

from router.request.json_text import MOST_WORK, SMALL, TooMuchWork, read, work

PADDING = " " * SMALL


@pytest.mark.parametrize(
    "part, each",
    [
        ("[],", 4),
        ('{"":0},', 7),
        ("1,", 1),
        ('"a,b:[{",', 1),  # signs in a text are no values
        ('"\\",\\\\",', 1),
        ('"",', 1),
    ],
)
def test_work_goes_by_the_values_outside_of_texts(part, each):
    raw = f"[{part * 1000}1]".encode()
    assert json.loads(raw)[-1] == 1
    assert work(raw) - raw.count(b"\\") // 6 == each * 1000 + 3


@pytest.mark.parametrize("part", ["[],", '{"":0},', "1,", '"",', '"\\n\\n\\n\\n\\n\\n\\n\\n",'])
def test_more_values_than_are_read_in_time_are_refused(part):
    with pytest.raises(TooMuchWork, match="send fewer"):
        read(f"[{part * MOST_WORK}1]".encode())


@pytest.mark.parametrize(
    "raw",
    [
        '{"a": "%s"}' % ("x" * 4_000_000),
        '{"a": "%s"}' % ("Lorem, ipsum: [dolor] {sit} \\n" * 40_000),
        f"[{'1,' * 200_000}1]",  # a prompt as token ids
        '{"messages": [%s 1]}' % ('{"role": "user", "content": "hi"},' * 20_000),
    ],
    ids=["one text", "text with signs", "token ids", "messages"],
)
def test_large_bodies_of_few_values_are_read(raw):
    assert read(raw.encode()) == json.loads(raw)


@pytest.mark.parametrize("number", ["9" * 501, "-" + "9" * 4_000, "9" * 100_000, "1e400", "-1e999"])
def test_numbers_that_no_float_holds_are_refused(number):
    with pytest.raises(ValueError, match="too large a number"):
        read(f'{{"n": {number}}}'.encode())


def test_small_bodies_are_not_examined():
    assert read(b'{"a": 1, "a": 2}') == {"a": 2}
    assert len(f"{PADDING}1".encode()) > SMALL and read(f"{PADDING}1".encode()) == 1
