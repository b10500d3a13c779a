"""A kept answer's thought is neither compared nor judged nor played as the answer."""

from typing import Any

import pytest

from router.flywheel.grading import blind_judge
from router.flywheel.grading.comparing import equal, fault
from router.flywheel.rows.outcome_rows import whole
from router.flywheel.served import Answer

BESIDE: dict[str, Any] = {"content": "The answer is 42.", "reasoning": "or 41?"}
WITHIN: dict[str, Any] = {"content": "<think>or 41?</think>The answer is 42."}


def answer(finish: str = "stop", **message: Any) -> Answer:
    return Answer("small", "fill", {"role": "assistant", **message}, finish)


@pytest.mark.parametrize("message", [BESIDE, WITHIN])
def test_the_answer_without_its_thought(message: dict[str, Any]) -> None:
    found = answer(**message)
    assert (found.text, found.thought) == ("The answer is 42.", "or 41?")
    assert whole(found.text) == blind_judge.said(found) == "The answer is 42."
    assert equal(found, answer(content="It is 42, so the answer is 42."), {}) is True
    assert equal(found, answer(content="The answer is 41."), {}) is False


@pytest.mark.parametrize("message", [{"content": None, "reasoning": "42"}, {"content": "<think>42"}])
def test_a_cut_thought_is_no_answer(message: dict[str, Any]) -> None:
    assert fault(answer("length", **message), {"max_tokens": 9}) == "it was cut within its thought"
    assert fault(answer("stop", **message), {}) == "it is empty"


def test_json_is_checked_without_the_thought() -> None:
    body = {"response_format": {"type": "json_object"}}
    assert fault(answer(content='<think>{</think>{"a": 1}'), body) == ""
    assert fault(answer(content="{}", reasoning="no JSON"), body) == ""
