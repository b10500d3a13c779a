"""One wish to think, written as each tier understands it."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.request.thinking import Wish, opened, thinks, wish_of, written
from router.tier_settings import Reasoning

USER = {"role": "user", "content": "6 * 7"}


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [USER], **more}


def sent(how: Reasoning | None, **more: Any) -> dict[str, Any]:
    """The fields that a tier gets beside the messages."""
    return {k: v for k, v in written(chat(**more), "small", how).items() if k not in ("model", "messages")}


def kwargs(on: bool, **more: Any) -> dict[str, Any]:
    return {"chat_template_kwargs": {**more, "enable_thinking": on}}


OFF = {"chat_template_kwargs": {"enable_thinking": False}}
ON = {"chat_template_kwargs": {"enable_thinking": True}}


# -- what is asked for -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields, wish",
    [
        ({}, Wish()),
        ({"reasoning_effort": "none"}, Wish(False, "none")),
        ({"reasoning_effort": "low"}, Wish(True, "low")),
        (OFF, Wish(False)),
        (ON | {"reasoning_effort": "none"}, Wish(True, "none")),
        (OFF | {"reasoning_effort": "high"}, Wish(False, "high")),
        ({"thinking_token_budget": 100}, Wish(True, "", 100)),
        ({"thinking_token_budget": 0}, Wish(False, "", 0)),
        (ON | {"thinking_token_budget": 0}, Wish(False, "", 0)),
        ({"reasoning_effort": "none", "thinking_token_budget": 100}, Wish(False, "none", 100)),
    ],
)
def test_what_a_chat_asks_for(fields: dict[str, Any], wish: Wish) -> None:
    assert wish_of(chat(**fields)) == wish


JUNK = st.sampled_from([None, True, 3, -1, 1.5, "", [], {}, ["none"], {"effort": "low"}])


@settings(max_examples=100)
@given(
    JUNK.filter(lambda v: type(v) is not str),
    JUNK.filter(lambda v: type(v) is not int),
    JUNK.filter(lambda v: type(v) is not bool),
)
def test_wrong_types_ask_for_nothing(effort: Any, budget: Any, on: Any) -> None:
    body = chat(reasoning_effort=effort, thinking_token_budget=budget, chat_template_kwargs={"enable_thinking": on})
    assert wish_of(body) == Wish()
    assert wish_of(chat(chat_template_kwargs=effort, thinking_token_budget=-1)) == Wish()


# -- as a tier gets it -----------------------------------------------------------------------------------------------------


def test_a_tier_without_the_setting_gets_the_very_same_body() -> None:
    body = chat(reasoning_effort="low", thinking_token_budget=9, include_reasoning=False, **OFF)
    assert written(body, "small", None) is body


def test_a_completion_stays_as_it_is() -> None:
    body = {"prompt": "a", "reasoning_effort": "low"}
    assert written(body, "small", Reasoning(switch="effort")) is body


@pytest.mark.parametrize(
    "asked, default, got",
    [
        ({}, "on", ON),
        ({}, "off", OFF),
        ({"reasoning_effort": "none"}, "on", OFF),
        ({"reasoning_effort": "high"}, "off", ON),
        (OFF, "on", OFF),
        ({"chat_template_kwargs": {"enable_thinking": "maybe", "other": 1}}, "on", kwargs(True, other=1)),
    ],
)
def test_by_the_chat_template(asked: dict[str, Any], default: Any, got: dict[str, Any]) -> None:
    assert sent(Reasoning(switch="chat_template", default=default, parser="qwen3"), **asked) == got


@pytest.mark.parametrize(
    "asked, default, got",
    [
        ({}, "on", {}),
        ({}, "off", {"reasoning_effort": "none"}),
        ({"reasoning_effort": "minimal"}, "on", {"reasoning_effort": "minimal"}),
        (OFF, "on", {"reasoning_effort": "none"}),
        (ON, "on", {}),
        (ON, "off", {"reasoning_effort": "medium"}),
        ({"reasoning_effort": 3, "chat_template_kwargs": {"other": 1}}, "on", {"chat_template_kwargs": {"other": 1}}),
    ],
)
def test_by_effort(asked: dict[str, Any], default: Any, got: dict[str, Any]) -> None:
    assert sent(Reasoning(switch="effort", default=default, parser="gpt"), **asked) == got


def test_a_tier_without_a_switch_is_told_nothing() -> None:
    assert sent(Reasoning(), reasoning_effort="low", thinking_token_budget=9, include_reasoning=False, **OFF) == {}


def test_a_budget_of_nothing_ends_the_thought_where_nothing_else_does() -> None:
    assert sent(Reasoning(parser="qwen3"), reasoning_effort="none") == {"thinking_token_budget": 0}


@pytest.mark.parametrize(
    "how, asked, budget",
    [
        (Reasoning(parser="qwen3"), {}, None),
        (Reasoning(parser="qwen3"), {"thinking_token_budget": 900}, 900),
        (Reasoning(parser="qwen3", budget=500), {"thinking_token_budget": 900}, 500),
        (Reasoning(parser="qwen3", budget=500), {"thinking_token_budget": 90}, 90),
        (Reasoning(parser="qwen3", budget=500), {"max_tokens": 300}, 150),
        (Reasoning(parser="qwen3", budget=500), {"max_completion_tokens": 4000}, 500),
        (Reasoning(parser="qwen3"), {"max_tokens": 300}, None),
        (Reasoning(), {"thinking_token_budget": 900}, None),  # vLLM refuses one without a parser
        (Reasoning(budget=500), {"thinking_token_budget": 900}, 500),  # a remote server that the operator knows
        (Reasoning(parser="qwen3", budget=500, switch="chat_template"), {"reasoning_effort": "none"}, None),
    ],
)
def test_a_budget_is_at_most_half_of_the_answers_limit(how: Reasoning, asked: dict[str, Any], budget: int | None) -> None:
    assert sent(how, **asked).get("thinking_token_budget") == budget


FORMS = [
    {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}},
    {"response_format": {"type": "json_object"}},
    {"structured_outputs": {"choice": ["a"]}},
    {"tool_choice": "required"},
    {"tool_choice": {"type": "function", "function": {"name": "a"}}},
]


@pytest.mark.parametrize("form", FORMS)
def test_without_a_parser_nothing_is_thought_before_a_form(form: dict[str, Any]) -> None:
    assert sent(Reasoning(switch="chat_template"), **form, **ON)["chat_template_kwargs"] == {"enable_thinking": False}
    assert sent(Reasoning(switch="effort"), **form, reasoning_effort="high")["reasoning_effort"] == "none"
    assert sent(Reasoning(switch="chat_template", parser="qwen3"), **form)["chat_template_kwargs"] == {"enable_thinking": True}


def test_a_free_answer_and_tools_are_no_form() -> None:
    for free in ({"response_format": {"type": "text"}}, {"tools": [{}], "tool_choice": "auto"}):
        assert sent(Reasoning(switch="chat_template"), **free)["chat_template_kwargs"] == {"enable_thinking": True}


WISHES = st.fixed_dictionaries(
    {},
    optional={
        "reasoning_effort": st.sampled_from(["none", "minimal", "low", "medium", "high"]),
        "thinking_token_budget": st.integers(0, 4000),
        "chat_template_kwargs": st.fixed_dictionaries({}, optional={"enable_thinking": st.booleans()}),
        "max_tokens": st.integers(2, 4000),
        "response_format": st.just({"type": "json_object"}),
    },
)
SETTINGS = st.builds(
    Reasoning,
    parser=st.sampled_from([None, "qwen3"]),
    switch=st.sampled_from(["chat_template", "effort", "none"]),
    default=st.sampled_from(["on", "off"]),
    budget=st.sampled_from([None, 2, 1000]),
    opened=st.booleans(),
)


@settings(max_examples=100)
@given(WISHES, SETTINGS)
def test_what_was_written_is_read_as_what_was_asked(fields: dict[str, Any], how: Reasoning) -> None:
    body = chat(**fields)
    got = written(body, "small", how)
    assert thinks(got, how) == thinks(body, how)
    assert written(got, "small", how) == got
    assert got.get("thinking_token_budget", 0) <= fields.get("max_tokens", 1 << 30) // 2


@pytest.mark.parametrize(
    "how, asked, within",
    [
        (Reasoning(opened=True), {}, True),
        (Reasoning(opened=True, default="off", switch="chat_template"), {}, False),
        (Reasoning(opened=True, switch="chat_template"), {"reasoning_effort": "none"}, False),
        (Reasoning(opened=True), {"reasoning_effort": "none"}, True),  # it thinks whatever one asks
        (Reasoning(opened=True), FORMS[0], False),
        (Reasoning(opened=True, parser="qwen3"), {}, False),
        (Reasoning(), {}, False),
    ],
)
def test_whether_an_answer_begins_within_the_thought(how: Reasoning, asked: dict[str, Any], within: bool) -> None:
    assert opened(written(chat(**asked), "small", how), how) is within


# -- history ---------------------------------------------------------------------------------------------------------------

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def said(thought: str, tier: str | None = None, **more: Any) -> dict[str, Any]:
    own = {} if tier is None else {"reasoning_tier": tier}
    return {"role": "assistant", "content": "4", "reasoning": thought, **own, **more}


def history(*messages: dict[str, Any], **more: Any) -> Any:
    return written({"messages": list(messages), **more}, "small", None)["messages"]


def test_a_thought_goes_back_to_its_tier_within_the_turn() -> None:
    result = {"role": "tool", "tool_call_id": "c", "content": "42"}
    own = said("own", "small", tool_calls=[CALL])
    foreign = said("foreign", "large", tool_calls=[CALL], reasoning_content="foreign")
    unknown = said("unknown", tool_calls=[CALL])
    assert history(USER, own, result, foreign, result, unknown, result) == [
        USER,
        {k: v for k, v in own.items() if k != "reasoning_tier"},
        result,
        {"role": "assistant", "content": "4", "tool_calls": [CALL]},
        result,
        unknown,
        result,
    ]


def test_finished_turns_lose_their_thoughts() -> None:
    assert history(USER, said("done", "small"), USER, said("now", "small")) == [
        USER,
        {"role": "assistant", "content": "4"},
        USER,
        {"role": "assistant", "content": "4", "reasoning": "now"},
    ]


@pytest.mark.parametrize("wish", [{"preserve_thinking": True}, {"clear_thinking": False}])
def test_a_client_may_want_them_kept(wish: dict[str, Any]) -> None:
    kept = [USER, said("done", "small"), USER]
    assert history(*kept, chat_template_kwargs=wish)[1] == {"role": "assistant", "content": "4", "reasoning": "done"}


def test_a_message_that_was_only_a_thought_says_nothing() -> None:
    only = {"role": "assistant", "content": None, "reasoning": "cut"}
    assert history(USER, only, USER)[1] == {"role": "assistant", "content": ""}
    calling = {"role": "assistant", "content": None, "reasoning": "cut", "tool_calls": [CALL]}
    assert history(USER, calling, USER)[1] == {"role": "assistant", "content": None, "tool_calls": [CALL]}


def test_fields_of_other_roles_are_the_clients_own() -> None:
    odd = {"role": "user", "content": "a", "reasoning": "b", "reasoning_tier": "c"}
    assert history(odd, odd) == [{"role": "user", "content": "a", "reasoning": "b"}] * 2


def test_a_history_without_thoughts_is_the_very_same() -> None:
    body = {"messages": [USER, {"role": "assistant", "content": "4"}, USER]}
    assert written(body, "small", None) is body


@pytest.mark.parametrize("tier", [3, ["small"], {"a": 1}])
def test_a_strange_tier_is_another(tier: Any) -> None:
    assert history(USER, said("a", tier)) == [USER, {"role": "assistant", "content": "4"}]
