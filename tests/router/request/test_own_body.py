"""A tier's own fields in each request to it, and what of the client's word is left."""

from router.reasoning_settings import Reasoning, fixed
from router.request.own_body import written

CHAT = {"model": "small", "messages": [{"role": "user", "content": "1"}]}
OFF = {"chat_template_kwargs": {"enable_thinking": False}}
ON = {"chat_template_kwargs": {"enable_thinking": True}}
PARSED = Reasoning(parser="qwen3", switch="chat_template")


def sent(body, own, settings=None, thought=None):
    return written(body, "small", fixed(settings, own, thought), own)


def test_a_tier_without_fields_of_its_own_gets_the_very_object():
    assert sent(CHAT, {}) is CHAT


def test_fields_are_laid_over_the_clients_one_by_one():
    asked = {**CHAT, "priority": 3, "chat_template_kwargs": {"enable_thinking": True, "tone": "dry"}}
    assert sent(asked, {**OFF, "priority": 1}) == {
        **CHAT,
        "priority": 1,
        "chat_template_kwargs": {"enable_thinking": False, "tone": "dry"},
    }


def test_how_a_text_is_sampled_the_client_says_and_the_tier_only_by_default():
    own = {"temperature": 0.6, "top_p": 0.95}
    assert sent({**CHAT, "temperature": 0}, own) == {**CHAT, "temperature": 0, "top_p": 0.95}
    assert sent({**CHAT, "temperature": None}, own)["temperature"] == 0.6


def test_no_client_makes_a_rung_think_that_does_not():
    for wish in ({"reasoning_effort": "high"}, ON, {"thinking_token_budget": 50}, {"reasoning_effort": "high", **ON}):
        got = sent({**CHAT, **wish}, OFF, PARSED)
        assert got["chat_template_kwargs"] == {"enable_thinking": False}
        assert not got.keys() & {"reasoning_effort", "thinking_token_budget"}
        assert "reasoning_effort" not in sent({**CHAT, **wish}, OFF)


def test_no_client_stops_a_rung_thinking_and_a_shorter_thought_it_may_ask_for():
    for wish in ({"reasoning_effort": "none"}, OFF):
        assert sent({**CHAT, **wish}, ON, PARSED, 64) == {**CHAT, **ON, "thinking_token_budget": 64}
    assert sent({**CHAT, "thinking_token_budget": 9}, ON, PARSED, 64)["thinking_token_budget"] == 9
    assert sent({**CHAT, "thinking_token_budget": 99}, ON, PARSED, 64)["thinking_token_budget"] == 64
    assert sent({**CHAT, "max_tokens": 40}, ON, PARSED, 64)["thinking_token_budget"] == 20


def test_efforts_are_sent_as_the_tier_has_them():
    own = {"reasoning_effort": "low"}
    assert sent({**CHAT, "reasoning_effort": "high"}, own) == {**CHAT, **own}
    assert sent({**CHAT, "reasoning_effort": "high"}, own, Reasoning(parser="openai_gptoss", switch="effort")) == {**CHAT, **own}


def test_a_switch_that_the_settings_do_not_know_is_one_too():
    named = Reasoning(parser="qwen3")
    assert sent({**CHAT, "reasoning_effort": "high"}, OFF, named) == {**CHAT, **OFF}
    assert sent({**CHAT, "reasoning_effort": "none"}, ON, named) == {**CHAT, **ON}


def test_a_completion_gets_no_fields_of_chats():
    text = {"model": "small", "prompt": "1"}
    assert sent(text, {**OFF, "reasoning_effort": "low", "top_k": 5}, PARSED) == {**text, "top_k": 5}


def test_the_settings_and_the_clients_body_stay_as_they_are():
    asked, own = {**CHAT, "chat_template_kwargs": {"a": 1}}, {"chat_template_kwargs": {"b": 2}}
    sent(asked, own)
    assert asked["chat_template_kwargs"] == {"a": 1} and own["chat_template_kwargs"] == {"b": 2}
