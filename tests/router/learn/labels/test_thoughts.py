"""What a tier thought is no part of the answer that is graded, nor of its statistics."""

import asyncio
from typing import Any

import pytest

from router.errors import BadInput
from router.learn.evidence import check_whole
from router.learn.labels import judge
from router.learn.labels.labelling import logprob_stats, outcome_of
from router.request.thought_room import USUAL

TOKENS = [{"token": t, "logprob": p} for t, p in (("41", -3.0), ("</think>", -22.0), ("42", -0.5))]


@pytest.mark.parametrize("message", [{"content": "42", "reasoning": "41"}, {"content": "42", "reasoning_content": "41"}])
def test_the_answer_alone_is_graded(message: dict[str, Any]) -> None:
    reply = {"choices": [{"message": message, "finish_reason": "stop", "logprobs": {"content": TOKENS}}]}
    found = outcome_of(reply, 0.1)
    assert (found["answer"], found["min_logprob"], found["logprob_tokens"]) == ("42", -0.5, 1)


def test_marks_in_the_text() -> None:
    assert outcome_of({"choices": [{"message": {"content": "<think>41</think>42"}}]}, 0.1)["answer"] == "42"
    assert outcome_of({"choices": [{"message": {"content": "<think>41"}, "finish_reason": "length"}]}, 0.1)["answer"] == ""


def test_tokens_that_cannot_be_told_are_no_statistics() -> None:
    assert logprob_stats({"message": {"content": "42", "reasoning": "41"}, "logprobs": {"content": [{"logprob": -0.1}]}}) == {}


class Thinks:
    async def ask(self, tier: str, messages: list[dict[str, Any]], max_tokens: int) -> dict[str, Any]:
        return {"choices": [{"message": {"content": "<think>Yes or no?</think>\nYes."}}]}


def test_a_judge_that_thinks_first_is_understood() -> None:
    asked = asyncio.run(judge.judge(Thinks(), "large", [{"role": "user", "content": "?"}], "a", "b"))
    assert asked == 1.0


class Limited:
    """A judge that thinks so many tokens before it says yes. parsed: its server tells the thought apart."""

    def __init__(self, tokens: int, parsed: bool) -> None:
        self.tokens, self.parsed, self.asked = tokens, parsed, list[int]()

    async def ask(self, tier: str, messages: list[dict[str, Any]], max_tokens: int) -> dict[str, Any]:
        self.asked.append(max_tokens)
        cut = max_tokens <= self.tokens
        thought = "Hm " * min(max_tokens, self.tokens)
        if self.parsed:
            message = {"content": None if cut else "Yes.", "reasoning": thought}
        else:
            message = {"content": thought if cut else f"{thought}</think>\n\nYes."}
        return {"choices": [{"message": message, "finish_reason": "length" if cut else "stop"}]}


@pytest.mark.parametrize("parsed", [True, False])
def test_a_judge_has_room_to_think(parsed: bool) -> None:
    client = Limited(500, parsed)
    assert asyncio.run(judge.judge(client, "large", [{"role": "user", "content": "?"}], "a", "b")) == 1.0
    assert client.asked == [judge.VERDICT_TOKENS, judge.VERDICT_TOKENS + USUAL] * 2


def test_a_judge_that_does_not_think_is_asked_once() -> None:
    client = Limited(0, True)
    assert asyncio.run(judge.judge(client, "large", [{"role": "user", "content": "?"}], "a", "b")) == 1.0
    assert client.asked == [judge.VERDICT_TOKENS] * 2


def test_an_answer_that_was_cut_in_its_thought_is_marked() -> None:
    message = {"content": None, "reasoning": "41"}
    usage = {"prompt_tokens": 1, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 9}}
    found = outcome_of({"choices": [{"message": message, "finish_reason": "length"}], "usage": usage}, 0.1)
    assert (found["cut_in_thought"], found["thought_tokens"]) == (True, 9)
    whole = {"choices": [{"message": {**message, "content": "42"}, "finish_reason": "length"}], "usage": usage}
    assert "cut_in_thought" not in outcome_of(whole, 0.1)


@pytest.mark.parametrize("cut, refused", [(5, False), (6, True)])
def test_train_refuses_tables_of_cut_thoughts(cut: int, refused: bool) -> None:
    table = {"score|small": [1.0] * 100, "cut_in_thought|small": [True] * cut + [None] * (100 - cut), "_line": list(range(100))}
    if not refused:
        check_whole([table], ["small", "large"])
        return
    with pytest.raises(BadInput, match="6 of 100 answers were cut within their thought"):
        check_whole([table], ["small", "large"])
