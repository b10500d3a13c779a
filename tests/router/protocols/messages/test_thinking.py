"""How much a tier reasons, by the request."""

import pytest
from messages_client import ABOUT

from router.errors import BadRequest
from router.protocols.messages import read

FIELDS = ("reasoning_effort", "thinking_token_budget")


def fields(counting=False, **more):
    limit = {} if counting else {"max_tokens": 2000}
    body = read({"model": "auto", "messages": [{"role": "user", "content": "hi"}], **limit, **more}, ABOUT, counting).body
    return {name: body[name] for name in FIELDS if name in body}


@pytest.mark.parametrize(
    "sent, expected",
    [
        ({}, {}),
        ({"thinking": None, "output_config": None}, {}),
        ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, {"reasoning_effort": "none"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 1999}}, {"thinking_token_budget": 1999}),
        ({"thinking": {"type": "adaptive"}}, {}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}, {"reasoning_effort": "high"}),
        ({"thinking": {"type": "between_tools"}}, {}),
        ({"output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"thinking_token_budget": 5, "reasoning_effort": "low"}, {"thinking_token_budget": 5, "reasoning_effort": "low"}),
    ],
)
def test_thinking(sent, expected):
    assert fields(**sent) == expected


@pytest.mark.parametrize("budget", [2000, 2001, 0, None, "1024", True, 1.5])
def test_a_budget_is_less_than_the_answer(budget):
    with pytest.raises(BadRequest) as caught:
        fields(thinking={"type": "enabled", "budget_tokens": budget})
    assert caught.value.param == "thinking.budget_tokens"


def test_counting_knows_no_limit():
    assert fields(True, thinking={"type": "enabled", "budget_tokens": 99999}) == {"thinking_token_budget": 99999}


@pytest.mark.parametrize(
    "thinking, named", [([], "thinking"), ({"type": 3}, "thinking.type"), ({"budget_tokens": 3}, "thinking.type")]
)
def test_a_wrong_field_is_named(thinking, named):
    with pytest.raises(BadRequest) as caught:
        fields(thinking=thinking)
    assert caught.value.param == named
