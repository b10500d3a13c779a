"""One count of a request: everything that a tier may read is in it, wherever the client puts it."""

import json

import pytest

from deployments.tiers.token_counters import estimate
from router.config import Config, EchoTier, Price, RemoteTier
from router.decide import policy
from router.engine import Router
from router.errors import ContextTooLong
from router.request.token_bounds import LONG_ARGUMENTS, Reader, prompts_of, surely_too_long, text_length
from router.request.wire import facts, parse

HEX = "3f9a07c1be" * 138  # 1,380 characters
USER = {"role": "user", "content": "hi"}


def words(text: str) -> int:
    return len(text.split())


words.exact = True


def chat(*messages, **more):
    return {"model": "auto", "messages": list(messages) or [USER], **more}


def call(arguments, name="f"):
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}],
    }


LONG = "word " * 500
BODIES = {
    "content": chat({"role": "user", "content": LONG}),
    "parts": chat({"role": "user", "content": [{"type": "text", "text": LONG}]}),
    "refusal part": chat({"role": "assistant", "content": [{"type": "refusal", "refusal": LONG}]}, USER),
    "tool call": chat(call(json.dumps({"q": LONG})), USER),
    "broken tool call": chat(call(LONG), USER),
    "name of a tool": chat(call("{}", LONG), USER),
    "function_call": chat({"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": LONG}}, USER),
    "name": chat({"role": "user", "content": "x", "name": LONG}),
    "tool_call_id": chat({"role": "tool", "content": "x", "tool_call_id": LONG}),
    "reasoning": chat({"role": "assistant", "content": "x", "reasoning": LONG}, USER),
    "reasoning_content": chat({"role": "assistant", "content": "x", "reasoning_content": LONG}, USER),
    "refusal": chat({"role": "assistant", "content": None, "refusal": LONG}, USER),
    "a field of tomorrow": chat({"role": "user", "content": "x", "tomorrow": [{"x": LONG}]}),
    "tools": chat(tools=[{"type": "function", "function": {"name": "f", "description": LONG}}]),
    "functions": chat(functions=[{"name": "f", "description": LONG}]),
    "documents": chat(documents=[{"title": "x", "text": LONG}]),
    "chat_template_kwargs": chat(chat_template_kwargs={"date": LONG}),
    "response_format": chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"title": LONG}}}),
}
TEXTS = {
    "prompt": {"model": "auto", "prompt": LONG},
    "prompts": {"model": "auto", "prompt": ["x", LONG]},
    "ids": {"model": "auto", "prompt": [7] * 500},
    "lists of ids": {"model": "auto", "prompt": [[7], [7] * 500]},
    "suffix": {"model": "auto", "prompt": "x", "suffix": LONG},
}


@pytest.mark.parametrize("count", [words, estimate])
@pytest.mark.parametrize("body", [*BODIES.values(), *TEXTS.values()], ids=[*BODIES, *TEXTS])
def test_wherever_a_text_stands_it_is_counted(body, count):
    assert Reader(count, 100_000).total(body) >= 500
    assert max(Reader(count, 100_000).expected(prompt) for prompt in prompts_of(body)) >= 400


def tier(name, context, **more):
    return EchoTier(name=name, engine="echo", context=context, price=Price(usd_per_accelerator_hour=1), **more)


def excluded(body, *windows, count=estimate, path="chat/completions"):
    tiers = [tier(f"t{window}", window) for window in windows]
    return policy.exclude(facts(parse(path, json.dumps(body).encode())), tiers, {t.name: count for t in tiers})


TOO_LONG = {
    "tool calls": chat(call(json.dumps({"text": "word " * 20_000})), USER),
    "functions": chat(functions=[{"name": "f", "description": "x" * 9_000}]),
    "short turns": chat(*[USER] * 400),
    "hexadecimal": chat({"role": "user", "content": HEX}),
    "digits": chat({"role": "user", "content": "8" * 600}),
    "chinese": chat({"role": "user", "content": "的" * 500}),
    "emoji": chat({"role": "user", "content": "🙂" * 250}),
    "code": chat({"role": "user", "content": "x[i]=(a*b)%c;" * 60}),
    "reasoning": chat({"role": "assistant", "content": "", "reasoning_content": LONG}, USER),
}


@pytest.mark.parametrize("body", list(TOO_LONG.values()), ids=list(TOO_LONG))
def test_what_does_not_fit_is_excluded_with_a_tokenizer_or_without(body):
    assert list(excluded(body, 512, 1_000_000)) == ["t512"]


@pytest.mark.parametrize("body", list(TOO_LONG.values()), ids=list(TOO_LONG))
def test_it_is_refused_where_there_is_no_larger_window(body):
    assert list(excluded(body, 512)) == ["t512"]


def test_a_text_that_may_fit_goes_to_a_tier_where_it_surely_does():
    english = chat({"role": "user", "content": "the quick brown fox " * 50})  # 1,000 bytes, 200 tokens
    assert list(excluded(english, 512, 2_048)) == ["t512"]


def test_where_no_window_surely_holds_it_the_tiers_that_may_are_asked():
    english = chat({"role": "user", "content": "the quick brown fox " * 50})
    assert excluded(english, 512) == {} and list(excluded(english, 100, 512)) == ["t100"]


def test_each_prompt_of_a_completion_must_fit_and_all_are_paid_for():
    body = {"model": "auto", "prompt": ["word " * 100] * 20}
    assert excluded(body, 512, count=words, path="completions") == {}
    assert Reader(words, 512).total(body) >= 2_000
    mixed = {"model": "auto", "prompt": ["the quick brown fox jumps " * 20, "8" * 470]}  # fewer characters, more tokens
    assert list(excluded(mixed, 480, 10_000, path="completions")) == ["t480"]


def test_arguments_are_counted_as_templates_write_them():
    packed = chat(call(json.dumps(list(range(1_000)), separators=(",", ":"))), USER)
    assert Reader(words, 100_000).total(packed) >= 1_000


IMAGE = {"type": "image_url", "image_url": {"url": "data:x"}}


@pytest.mark.parametrize(
    "parts, more, tokens",
    [
        ([IMAGE], {}, 16_384),
        ([IMAGE, IMAGE], {"image_tokens": 1_000}, 2_000),
        ([IMAGE] * 90, {}, 200_000),
        ([{"type": "input_audio", "input_audio": {}}], {}, 200_000),
        ([{"type": "video_url", "video_url": {}}], {}, 200_000),
        ([{"type": "file", "file": {}}], {}, 200_000),
        ([{"type": "of tomorrow"}], {}, 200_000),
    ],
)
def test_images_have_a_bound_and_all_else_may_fill_the_window(parts, more, tokens):
    reader = Reader.of(tier("a", 200_000, **more), words)
    plain = reader.total(chat({"role": "user", "content": []}))
    assert reader.total(chat({"role": "user", "content": parts})) == plain + tokens


def test_images_take_up_the_window_too():
    seeing = [tier("a", 8_192, images=True), tier("b", 32_768, images=True)]
    asked = facts(parse("chat/completions", json.dumps(chat({"role": "user", "content": [IMAGE]})).encode()))
    assert list(policy.exclude(asked, seeing, dict.fromkeys("ab", estimate))) == ["a"]
    assert policy.exclude(asked, seeing[:1], dict.fromkeys("ab", estimate)) == {}, "it may well fit"
    small = [tier("a", 8_192, images=True, image_tokens=1_000)]
    assert policy.exclude(asked, small, dict.fromkeys("ab", estimate)) == {}


def test_a_template_of_the_clients_own_may_write_anything():
    assert Reader(words, 5_000).total(chat(chat_template="{{ 'x' * 9999 }}")) >= 5_000


# -- before counting -------------------------------------------------------------------------------------------------------


def never(text: str) -> int:
    raise AssertionError("it was tokenized")


never.exact = True
never.longest = 16


def ladder(count, context=4_000) -> Router:
    price = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
    tiers = [{"name": name, "engine": "echo", "context": context, "price": price} for name in ("small", "large")]
    plan = {"mode": "plan", "min_input_tokens": 1}
    return Router(Config.model_validate({"tiers": tiers, "delegation": plan}), None, dict.fromkeys(("small", "large"), count))


@pytest.mark.parametrize("model", ["auto", "small"])
@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_a_body_that_fits_nowhere_is_refused_before_it_is_tokenized(path, model):
    text = "a" * 80_000
    body = {"model": model, **({"prompt": text} if path == "completions" else {"messages": [{"role": "user", "content": text}]})}
    with pytest.raises(ContextTooLong, match="5000 tokens"):
        ladder(never).decide(parse(path, json.dumps(body).encode()))


def test_tool_calls_that_fit_nowhere_are_not_tokenized_either():
    body = chat(call("a" * 80_000), USER)
    made = ladder(never)
    with pytest.raises(ContextTooLong):
        policy.refuse(facts(parse("chat/completions", json.dumps(body).encode())), made.tiers, made.count, {})


def test_the_length_is_told_without_counting():
    assert text_length(chat({"role": "user", "content": [{"type": "text", "text": "abc"}, IMAGE]}, USER)) == 5
    assert text_length({"prompt": ["a", "bcd", [1, 2]]}) == 3 and text_length({"prompt": [1, 2]}) == 0
    length = text_length(chat({"role": "user", "content": "a" * 180}))
    assert surely_too_long(length, [Reader(never, 10)])
    assert not surely_too_long(length, [Reader(never, 10), Reader(words, 10)])


def test_a_remote_tier_may_have_a_tokenizer(tmp_path):
    price = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
    made = RemoteTier(name="a", engine="remote", url="http://x/v1", model="m", context=10, price=price, tokenizer="t")
    assert "no file" in made.placed(tmp_path).missing()
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "tokenizer.json").write_text("{}")
    assert made.placed(tmp_path).missing() == "" and made.placed(tmp_path).model_source.tokenizer == tmp_path / "t"


def test_calls_tools_and_reasoning_are_in_the_length_that_refuses_uncounted():
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "a" * 900}}]
    body = {"messages": [{"role": "assistant", "content": None, "tool_calls": calls, "reasoning": "b" * 50}]}
    tools = [{"type": "function", "function": {"name": "f", "description": "d" * 40}}, {"type": "stepdown:delegate"}]
    assert 950 < text_length(body) < 990
    assert text_length({**body, "tools": tools}) - text_length(body) == len("function") + len("f") + 40


def test_long_arguments_are_not_read_and_still_counted_with_their_spaces():
    arguments = "[" + "1," * LONG_ARGUMENTS + "1]"
    call = {"function": {"name": "f", "arguments": arguments}}
    body = {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}]}
    (prompt,) = prompts_of(body)
    assert json.dumps(json.loads(arguments)) in prompt.text
