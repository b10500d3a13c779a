"""What a tier thought is no part of the answer that is graded, nor of its statistics."""

import asyncio
from typing import Any

import pytest

from router.learn.labels import judge
from router.learn.labels.labelling import logprob_stats, outcome_of

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
