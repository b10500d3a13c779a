"""Thoughts are told from answers, whole or in any pieces."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.request.thoughts import DeltaReader, Splitter, Spoken, apart, in_field, named, separated, split, spoken

# Texts that are full of marks, halves of marks and white space.
PIECES = st.sampled_from(["<think>", "</think>", "<thi", "nk>", "</", "think>", "<", ">", " ", "\n\n", "a", "Gras ", "ä"])
TEXTS = st.lists(PIECES, max_size=12).map("".join)


def fed(pieces: list[str], opened: bool) -> Spoken:
    splitter = Splitter(opened)
    said = [*map(splitter.feed, pieces), splitter.end()]
    return Spoken("".join(s.thought for s in said), "".join(s.text for s in said))


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({min(place, len(text)) for place in places})
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]


@pytest.mark.parametrize(
    "text, opened, thought, answer",
    [
        ("<think>Six times seven.</think>\n\n42", False, "Six times seven.", "42"),
        (" \n<think>a</think>b", False, "a", "b"),
        ("Six times seven.</think>42", True, "Six times seven.", "42"),
        ("<think>a</think>b", True, "a", "b"),
        ("Six times seven.</think>42", False, "", "Six times seven.</think>42"),  # it is not known to think
        ("Write <think>a</think>", False, "", "Write <think>a</think>"),
        ("<think>cut", False, "cut", ""),
        ("cut", True, "cut", ""),
        ("<think></think>a", False, "", "a"),
        ("</think>a", True, "", "a"),
        ("<thin ice>", False, "", "<thin ice>"),
        ("a <b", False, "", "a <b"),
        ("<think>a</think>b</think>c", False, "a", "b</think>c"),
        ("<think>a</think> \n", False, "a", ""),
        (" " * 64 + "<think>a</think>b", False, "a", "b"),
        (" " * 65 + "<think>a</think>b", False, "", " " * 65 + "<think>a</think>b"),
        ("", False, "", ""),
        ("  ", False, "", "  "),
    ],
)
def test_the_thought_before_an_answer(text: str, opened: bool, thought: str, answer: str) -> None:
    assert split(text, opened) == (thought, answer)
    assert fed(list(text), opened) == (thought, answer)


@settings(max_examples=100)
@given(TEXTS, st.lists(st.integers(0, 60), max_size=12), st.booleans())
def test_cutting_a_text_anywhere_changes_nothing(text: str, places: list[int], opened: bool) -> None:
    assert fed(cut(text, places), opened) == split(text, opened)


@settings(max_examples=100)
@given(TEXTS, st.booleans())
def test_nothing_is_lost_but_marks_and_the_white_space_around_them(text: str, opened: bool) -> None:
    kept = ["".join(part.split()) for part in (text, *split(text, opened))]
    whole = kept[0].removeprefix("<think>")
    assert kept[1] + kept[2] in (kept[0], whole, whole.replace("</think>", "", 1))


def test_a_thought_is_shown_while_it_is_thought() -> None:
    splitter = Splitter()
    assert [splitter.feed(piece) for piece in ("<think>Si", "x ti", "mes</", "b></thi", "nk>\n", "4", "2")] == [
        ("Si", ""),
        ("x ti", ""),
        ("mes", ""),
        ("</b>", ""),
        ("", ""),
        ("", "4"),
        ("", "2"),
    ]


def test_long_white_space_is_not_waited_for() -> None:
    splitter = Splitter()
    assert splitter.feed(" " * 64) == ("", "")
    assert splitter.feed(" ") == ("", " " * 65)


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_a_field_of_its_own_goes_before_marks(field: str) -> None:
    message = {"role": "assistant", field: "hm", "content": "<think>no</think>yes"}
    assert spoken(message) == ("hm", "<think>no</think>yes")
    assert apart(message) == message


def test_what_is_no_text_says_nothing() -> None:
    assert spoken({"content": [{"type": "text", "text": "a"}], "reasoning": 4, "reasoning_content": {"a": 1}}) == ("", "")
    assert in_field({"reasoning": None, "reasoning_content": "hm"}) == "hm"


def test_a_thought_in_the_content_gets_a_field() -> None:
    message = {"role": "assistant", "content": "<think>hm</think>42", "tool_calls": []}
    assert apart(message) == {"role": "assistant", "content": "42", "reasoning": "hm", "tool_calls": []}
    assert apart({"content": "hm"}, opened=True) == {"content": None, "reasoning": "hm"}
    assert apart({"content": "42"}) == {"content": "42"}


def test_a_field_gets_the_names_that_are_wanted() -> None:
    assert named({"content": "42", "reasoning_content": "hm"}, ("reasoning",)) == {"content": "42", "reasoning": "hm"}
    both = ("reasoning", "reasoning_content")
    assert named({"reasoning": "hm"}, both) == {"reasoning": "hm", "reasoning_content": "hm"}
    assert named({"content": "42", "reasoning": None}, both) == {"content": "42", "reasoning": None, "reasoning_content": None}
    assert named({"content": "42"}, both) == {"content": "42"}


def test_pieces_are_read_as_the_whole_is() -> None:
    reader = DeltaReader()
    deltas = [
        {"role": "assistant", "content": ""},
        {"reasoning": "h"},
        {"reasoning": "m", "content": "<think>"},
        {"content": "4"},
    ]
    assert [reader.read(delta) for delta in deltas] == [("", ""), ("h", ""), ("m", "<think>"), ("", "4")]
    assert reader.end() == ("", "")


def test_what_waited_before_a_field_came_is_not_lost() -> None:
    reader = DeltaReader()
    assert [reader.read(delta) for delta in ({"content": "\n"}, {"reasoning": "hm"})] == [("", ""), ("hm", "\n")]


@settings(max_examples=100)
@given(TEXTS, st.lists(st.integers(0, 60), max_size=12), st.booleans())
def test_separated_pieces_join_to_the_separated_whole(text: str, places: list[int], opened: bool) -> None:
    reader, pieces = DeltaReader(opened), cut(text, places)
    made = []
    for i, piece in enumerate(pieces):
        delta = {"content": piece}
        made.append(separated(delta, reader.read(delta, last=i == len(pieces) - 1)))
    joined = Spoken("".join(d.get("reasoning", "") for d in made), "".join(d.get("content") or "" for d in made))
    assert joined == split(text, opened)


def test_a_piece_without_a_thought_stays_the_same() -> None:
    for delta in ({"role": "assistant", "content": ""}, {"content": "a"}, {"tool_calls": [{}]}, {}, {"reasoning": "hm"}):
        assert separated(delta, DeltaReader().read(delta)) == delta
