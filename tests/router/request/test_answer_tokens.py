"""Only the answer's tokens are evidence."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.request.answer_tokens import AnswerReader, of_choice, reasoning_tokens


def token(text: str) -> dict[str, Any]:
    return {"token": text, "logprob": -0.1, "bytes": list(text.encode())}


def texts(tokens: Any) -> list[str]:
    return [t["token"] for t in tokens]


def whole(tokens: list[str], message: dict[str, Any]) -> dict[str, Any]:
    return {"message": message, "logprobs": {"content": [token(t) for t in tokens]}}


@pytest.mark.parametrize(
    "tokens, message, left",
    [
        # vLLM with a parser: thought, mark and answer in one list
        (
            ["Hm", ".", "</think>", "\n\n", "4", "2", "<|im_end|>"],
            {"content": "\n\n42", "reasoning": "Hm."},
            ["4", "2", "<|im_end|>"],
        ),
        (["4", "2", "</think>", "4", "2"], {"content": "42", "reasoning": "42"}, ["4", "2"]),
        # one without a mark: the answer's last occurrence
        (["4", "2", "<end>", "4", "2"], {"content": "42", "reasoning_content": "42"}, ["4", "2"]),
        (["Hm", ".", "<|channel|>", " 4", "2"], {"content": " 42", "reasoning": "Hm."}, [" 4", "2"]),
        # marks in the text
        (["<think>", "Hm", "</think>", "\n", "42"], {"content": "<think>Hm</think>\n42"}, ["42"]),
        (["<think>", "</think>", "42"], {"content": "<think></think>42"}, ["42"]),
        # only the answer is listed
        (["4", "2"], {"content": "42", "reasoning": "Hm."}, ["4", "2"]),
        # nothing was thought: all, as they are
        (["4", "2", "<|im_end|>"], {"content": "42"}, ["4", "2", "<|im_end|>"]),
        # it cannot be told where the answer begins
        (["Hm", "</think>4", "2"], {"content": "42", "reasoning": "Hm"}, []),
        (["Hm", ".", "4"], {"content": "42", "reasoning": "Hm."}, []),
        (["Hm", "."], {"content": None, "reasoning": "Hm."}, []),
    ],
)
def test_tokens_of_a_whole_answer(tokens: list[str], message: dict[str, Any], left: list[str]) -> None:
    assert texts(of_choice(whole(tokens, message))) == left


def test_a_thought_that_is_only_counted_is_cut_too() -> None:
    choice = whole(["Hm", ".", "42"], {"content": "42"})
    assert texts(of_choice(choice)) == ["Hm", ".", "42"]
    assert texts(of_choice(choice, reasoning_tokens=2)) == ["42"]


def test_halves_of_characters_are_found_by_their_bytes() -> None:
    first, second = ({"token": "�", "logprob": -0.1, "bytes": [byte]} for byte in "ä".encode())
    choice = {
        "message": {"content": "ä", "reasoning": "Hm"},
        "logprobs": {"content": [token("Hm"), token("</think>"), first, second]},
    }
    assert of_choice(choice) == [first, second]


def test_strange_bytes_are_no_failure() -> None:
    strange = {"token": "42", "logprob": -0.1, "bytes": [300, "x", None]}
    assert of_choice({"message": {"content": "42", "reasoning": "Hm"}, "logprobs": {"content": [strange]}}) == ()


@pytest.mark.parametrize(
    "usage", [None, 3, {}, {"completion_tokens_details": 3}, {"completion_tokens_details": {"reasoning_tokens": "4"}}]
)
def test_no_count_of_reasoning_tokens(usage: Any) -> None:
    assert reasoning_tokens({"usage": usage}) == 0


def test_a_count_of_reasoning_tokens() -> None:
    assert reasoning_tokens({"usage": {"completion_tokens_details": {"reasoning_tokens": 4}}}) == 4


# -- streams ---------------------------------------------------------------------------------------------------------------


def piece(delta: dict[str, Any], *tokens: str) -> dict[str, Any]:
    return {"delta": delta, "logprobs": {"content": [token(t) for t in tokens]} if tokens else None}


def read(*pieces: dict[str, Any]) -> AnswerReader:
    reader = AnswerReader()
    for one in pieces:
        reader.read(one)
    reader.end()
    return reader


def test_tokens_count_by_the_piece_they_came_with() -> None:
    reader = read(
        piece({"role": "assistant", "content": ""}),
        piece({"reasoning": "Hm"}, "Hm"),
        piece({}, "</think>"),
        piece({"content": "4"}, "4"),
        piece({"content": "2"}, "2"),
        piece({}, "<|im_end|>"),
    )
    assert texts(reader.tokens) == ["4", "2", "<|im_end|>"]
    assert ("".join(reader.thought), "".join(reader.text)) == ("Hm", "42")


def test_a_piece_with_both_is_divided() -> None:
    assert texts(
        read(piece({"reasoning": "Hm", "content": "4"}, "Hm", "</think>", "4"), piece({"content": "2"}, "2")).tokens
    ) == ["4", "2"]


def test_a_piece_that_cannot_be_divided_leaves_no_evidence() -> None:
    assert texts(read(piece({"reasoning": "Hm", "content": "4"}, "Hm</think>4"), piece({"content": "2"}, "2")).tokens) == []


def test_without_a_thought_every_token_counts() -> None:
    reader = read(piece({"content": "<"}, "<"), piece({"content": "b>"}, "b>"), piece({"tool_calls": [{}]}, "{"), piece({}, "."))
    assert texts(reader.tokens) == ["<", "b>", "{", "."]


def test_an_empty_answer_keeps_its_tokens() -> None:
    assert texts(read(piece({}, "<|im_end|>")).tokens) == ["<|im_end|>"]


def test_after_a_thought_a_call_is_the_answer() -> None:
    assert texts(read(piece({"reasoning": "Hm"}, "Hm"), piece({"tool_calls": [{}]}, "{"), piece({}, ".")).tokens) == ["{", "."]


def test_a_thought_in_the_middle_is_left_out() -> None:
    assert texts(read(piece({"content": "4"}, "4"), piece({"reasoning": "Hm"}, "Hm"), piece({"content": "2"}, "2")).tokens) == [
        "4",
        "2",
    ]


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["Hm", " so", ", ", "4"]), min_size=1, max_size=6), st.lists(st.integers(0, 9), max_size=4))
def test_marks_in_a_stream_cut_between_tokens(thought: list[str], cuts: list[int]) -> None:
    tokens = ["<think>", *thought, "</think>", "\n\n", "4", "2"]
    ends = sorted({min(cut, len(tokens)) for cut in cuts})
    groups = [tokens[a:b] for a, b in zip([0, *ends], [*ends, len(tokens)], strict=True)]
    reader = read(*(piece({"content": "".join(group)}, *group) for group in groups))
    assert ("".join(reader.thought), "".join(reader.text)) == ("".join(thought), "42")
    assert texts(reader.tokens) == ["4", "2"]
