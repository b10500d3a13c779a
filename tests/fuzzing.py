"""What the fuzz tests share: bodies nobody should send, a router with every flow switched on, and a count of cases."""

import json
from collections import Counter
from functools import cache
from typing import Any

from hypothesis import strategies as st

from classifiers import load
from router.config import SHIPPED, Config
from router.engine import Router

cases: Counter[str] = Counter()
"""test -> inputs tried in this process; `make fuzz` reports the sum"""

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
CONFIG = {
    "tiers": [
        {"name": "small", "engine": "echo", "context": 600, "tools": False, "price": PRICE},
        {"name": "medium", "engine": "echo", "context": 2_000, "price": PRICE},
        {"name": "large", "engine": "echo", "context": 100_000, "price": PRICE},
    ],
    "routing": {"target": "quality"},
    "escalation": {"mode": "buffer"},
    "delegation": {"mode": "auto", "min_input_tokens": 1, "min_answer_tokens": 1, "offload_min_tokens": 1, "min_saving": 0},
    "server": {"max_body_bytes": 400_000},
}

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "</s>", "<s>", "[INST]", "<tool_call>", "{{s1}}", "call_sd_x_0")
HARD_TEXTS = st.sampled_from(
    [
        *SPECIAL,
        "\x00",
        "\r\nset-cookie: a=b",
        "\u202e\u2066",
        "a\u0300" * 50,
        "🏳️‍🌈",
        "\ufeff",
        "\ud800",
        "\udfff\ud800",
        "x" * 9_000,
        "1. a\n2. b\n3. c\n4. d",
        "- q?\n" * 20,
        "```\n" * 9,
        "stepdown:delegate",
        "stepdown_delegate",
        "auto:0.5",
        "auto:nan",
        "auto:",
        "required",
        "none",
        "json_schema",
        "text",
        "image_url",
        "function",
    ]
)
TEXTS = st.text(max_size=40) | st.text(st.characters(categories=["Cs", "Cc", "Cf", "Lo"]), max_size=10) | HARD_TEXTS
FLAT_TEXTS = st.text(st.characters(max_codepoint=0x17F), max_size=30)
NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 1e308, 2**63, 2**31, -1, 0, 1, 10**9, 10**9 + 1])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
KEYS = st.text(max_size=6) | st.sampled_from(["type", "name", "function", "parameters", "id", "role", "content", "text", "url"])
ANY = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)


def rarely(good: st.SearchStrategy[Any], odd: st.SearchStrategy[Any] = ANY) -> st.SearchStrategy[Any]:
    """Mostly good: a body with one fault gets further in than one with ten."""
    return st.integers(0, 11).flatmap(lambda n: odd if n == 11 else good)


TEXT = rarely(TEXTS)
FUNCTION = st.fixed_dictionaries({"name": TEXT}, optional={"parameters": ANY, "description": TEXT, "strict": ANY})
PART = st.fixed_dictionaries(
    {"type": rarely(st.sampled_from(["text", "text", "image_url", "input_image", "refusal"])), "text": TEXT},
    optional={"image_url": ANY},
)
CALLED = st.fixed_dictionaries({"name": TEXT, "arguments": TEXT})
CALL = st.fixed_dictionaries(
    {"id": rarely(TEXTS | st.just("call_sd_")), "type": rarely(st.just("function")), "function": rarely(CALLED)}
)
MESSAGE = st.fixed_dictionaries(
    {
        "role": rarely(st.sampled_from(["user", "user", "system", "developer", "assistant", "tool", "function"])),
        "content": rarely(TEXTS | st.none() | st.lists(PART, max_size=3)),
    },
    optional={"tool_calls": rarely(st.lists(CALL, max_size=3)), "tool_call_id": TEXT, "name": TEXT},
)
LIMITS = st.dictionaries(st.sampled_from(["max_subtasks", "max_cost_usd", "deadline_s"]), rarely(st.integers(1, 9)), max_size=3)
OURS = st.sampled_from(["stepdown:delegate", "stepdown:escalate", "stepdown:x"])
TOOL = rarely(
    st.fixed_dictionaries({"type": rarely(st.just("function")), "function": rarely(FUNCTION)})
    | st.fixed_dictionaries({"type": OURS}, optional={"parameters": rarely(LIMITS)})
)
SCHEMA = st.sampled_from(
    [
        {"type": "object", "properties": {"a": {"type": "integer"}}},
        {"$ref": "#"},
        {"$ref": "http://127.0.0.1:1/x"},
        {"type": 7},
        {"pattern": "("},
        {"patternProperties": {"(": True}},
        {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    ]
)
FORMAT = st.fixed_dictionaries(
    {"type": rarely(st.sampled_from(["text", "json_object", "json_schema"]))},
    optional={"json_schema": rarely(st.fixed_dictionaries({"schema": rarely(SCHEMA)}, optional={"name": TEXT}))},
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["auto", "auto:cheap", "auto:0.9", "small", "large", "gpt-9"]) | TEXTS,
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries({"include_usage": ANY}),
    "tools": st.lists(TOOL, max_size=3),
    "tool_choice": st.sampled_from(["auto", "none", "required"]) | TOOL,
    "functions": st.lists(FUNCTION, max_size=2),
    "response_format": FORMAT,
    "max_tokens": st.integers(0, 3_000),
    "max_completion_tokens": st.integers(0, 3_000),
    "temperature": st.floats(0, 2),
    "n": st.integers(1, 3),
    "logprobs": st.booleans(),
    "top_logprobs": st.integers(0, 5),
    **dict.fromkeys(["parallel_tool_calls", "prompt_logprobs", "echo", "stop", "seed", "user", "of_tomorrow"], ANY),
}
USER = {"role": "user", "content": "What is 2 plus 3?"}
LONG = {"role": "user", "content": "Translate each line:\n" + "\n".join(f"{i}. the house number {i} is red" for i in range(9))}
PROMPTS = rarely(TEXTS | st.lists(TEXTS, min_size=1, max_size=3) | st.lists(st.integers(), min_size=1, max_size=9))


@st.composite
def bodies(draw: st.DrawFn, asked: dict[str, st.SearchStrategy[Any]]) -> dict[str, Any]:
    """`asked`: the fields that make it a request; up to four more are drawn, and one in twelve of all is anything."""
    more = draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=4, unique=True))
    return (
        {"model": "auto"}
        | {name: draw(rarely(made)) for name, made in asked.items()}
        | {name: draw(rarely(FIELDS[name])) for name in more}
    )


CHATS = bodies({"messages": st.lists(MESSAGE, min_size=1, max_size=4) | st.just([USER]) | st.just([LONG])})
COMPLETIONS = bodies({"prompt": PROMPTS}) | bodies({"prompt": PROMPTS, "messages": st.lists(MESSAGE, max_size=2)})


@st.composite
def raw_json(draw: st.DrawFn, made: st.SearchStrategy[dict[str, Any]]) -> bytes:
    """A body as bytes: as clients write it, or with what no JSON library writes by itself."""
    body = draw(made)
    text = json.dumps(body, ensure_ascii=draw(st.booleans()))
    kind = draw(st.sampled_from(["plain", "plain", "plain", "twice", "deep", "huge", "cut", "encoded"]))
    if kind == "twice":  # the same key again, with another value
        key = draw(st.sampled_from(sorted(body)))
        text = f"{text[:-1]}, {json.dumps(key)}: {json.dumps(draw(ANY))}}}"
    if kind == "deep":
        depth = draw(st.sampled_from([90, 130, 300, 500, 700, 950, 5_000]))
        left, right = draw(st.sampled_from([("[", "]"), ('{"a":', "}")]))
        key = draw(st.sampled_from(["deep", "tools", "response_format", "stop", "prompt"]))
        text = f'{text[:-1]}, "{key}": {left * depth}1{right * depth}}}'
    if kind == "huge":
        number = draw(st.sampled_from(["1e999", "-1e999", "9" * 4_000, "9" * 5_000, "1e-999", "0." + "1" * 5_000]))
        key = draw(st.sampled_from(["temperature", "max_tokens", "n", "seed", "x"]))
        text = f'{text[:-1]}, "{key}": {number}}}'
    raw = text.encode("utf-8", "surrogatepass")
    if kind == "cut":
        return raw[: draw(st.integers(0, len(raw)))]
    return text.encode("utf-16", "surrogatepass") if kind == "encoded" else raw


@cache
def router(mode: str = "auto") -> Router:
    """Of three tiers, on the shipped artefact, with escalation and delegation on."""
    config = Config.model_validate({**CONFIG, "delegation": {**CONFIG["delegation"], "mode": mode}})
    artefact = load(SHIPPED.parent / "pocket" / "router", config.names)
    return Router(config, artefact, dict.fromkeys(config.names, lambda text: len(text) // 3 + 8), SPECIAL)
