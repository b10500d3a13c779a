"""JSON is read within a bound of work, whatever a stranger sends."""

import json

import pytest

from router.request import json_text, long_texts
from router.request.json_text import MOST_WORK, SMALL, TooMuchWork, half_character, read, work, written

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


PLAIN = {"m": [{"role": "user", "content": f"hi {i}"} for i in range(50)], "e": [], "d": {}, "n": [1, 2.5, None, True]}
LONG = {
    "text": "x" * 250,
    "signs": '\u00e9\U0001f600"\\\n' * 90,
    "k" * 150: [["y" * 70] * 5, ("z",)],
    "last": [[], {}, "w" * 120],
}


@pytest.mark.parametrize("value", [PLAIN, LONG, [LONG, PLAIN], "x" * 300, 5, {"a": ["b" * 101]}])
def test_what_is_written_in_short_calls_is_what_one_call_writes(monkeypatch, value):
    monkeypatch.setattr(json_text, "PIECE", 100)
    assert written(value) == json.dumps(value)
    short = {"ensure_ascii": False, "separators": (",", ":")}
    assert written(value, ascii_only=False, compact=True) == json.dumps(value, **short)


def test_no_call_writes_much_more_than_a_piece(monkeypatch):
    monkeypatch.setattr(json_text, "PIECE", 100)
    parts = list(json_text.Writer(json.JSONEncoder()).parts([LONG, PLAIN]))
    assert max(map(len, parts)) < 1_000 < len("".join(parts))


@pytest.mark.parametrize("where", [["a", {"b": "c\ud800"}], {"k\udfff": 1}, "x" * 150 + "\ud83d"])
def test_half_a_character_is_found_wherever_it_is(monkeypatch, where):
    monkeypatch.setattr(json_text, "PIECE", 100)
    assert half_character(where).startswith("'\\ud")
    assert half_character(["\U0001f600" * 120, {"a": None}]) == ""


TEXTS = ["x" * 300, '\\n\\"' * 60, "\\ud83d\\ude00" * 40, "\\\\" * 99, "é\\u00e9" * 50, "a" * 94 + "\\ud83d\\ude00" * 20]


@pytest.mark.parametrize("text", TEXTS)
def test_long_texts_are_read_piece_by_piece_as_in_one_call(monkeypatch, text):
    monkeypatch.setattr(long_texts, "LONG", 100)
    monkeypatch.setattr(long_texts, "PIECE", 50)
    whole = f'{{"a": ["{text}", "short", {{"{text}": 1}}], "b": "{text}"}}'
    calls = []
    assert long_texts.read(whole, lambda part: calls.append(len(part)) or json.loads(part)) == json.loads(whole)
    assert len(calls) > 4 or "\\" in text[:100]  # escapes that follow each other are read in one call


@pytest.mark.parametrize("bad", ['{"a": "%s}', '{"a": "%s" 1}', '["%s\n"]', '["%s\\q"]', "%s", '["%s\\u12"]'])
def test_a_long_text_hides_no_fault(monkeypatch, bad):
    monkeypatch.setattr(long_texts, "LONG", 100)
    with pytest.raises(ValueError):
        long_texts.read(bad % ("x" * 150), json.loads)
