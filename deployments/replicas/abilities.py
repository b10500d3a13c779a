"""Lets a new replica try once what a tier may be asked to do, before it is ready.

It tells the router what the tier cannot do (`router/decide/abilities.py`), and does what is slow the first time: vLLM compiles
log-probabilities and guided decoding when they are first asked for, which takes seconds. Each try is a real request of a few
tokens, as clients, the cascade and the plans send them, for what vLLM refuses depends on the model, its tokenizer, its chat
template and the engine's options together.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from deployments.replicas.request_faults import Refusal
from router.cascade.flow import with_logprobs
from router.types import Path

log = logging.getLogger("stepdown")
TRY_S = 60.0  # for one request: the first of its kind may compile something
REASON_CHARS = 200
SCHEMA = {"type": "object", "properties": {"a": {"enum": ["b"]}}, "required": ["a"], "additionalProperties": False}
GUIDED = {"type": "json_schema", "json_schema": {"name": "warm_up", "schema": SCHEMA, "strict": True}}
TOOL = {"type": "function", "function": {"name": "a", "parameters": {"type": "object", "properties": {}}}}
CALL_TOKENS = 64  # a call of that tool takes fewer; vLLM may fail to read one that is cut off
PICTURE = (  # white, 64 x 64: some models take none that are smaller
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAATUlEQVR42u3PQQ0AAAgEILV/5zOFDzdoQCepz6aeExAQEBAQEBAQEBAQ"
    "EBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQELi3cqoDfaKuZM4AAAAASUVORK5CYII="
)
OURS = (
    (("must provide a chat template",), "its tokenizer has no chat template; set engine_kwargs.chat_template to one"),
    (("tool-call-parser",), "it has no tool parser (engine_kwargs.enable_auto_tool_choice and tool_call_parser)"),
    (("logprobs", "max allowed"), "engine_kwargs.max_logprobs is less than 2"),
    (("not a multimodal model",), "its model reads text only"),
    (("At most 0 image",), "its engine takes no picture (engine_kwargs.limit_mm_per_prompt)"),
)
"""what vLLM says, by words in it, and what we say: where to look"""
NO_SIGN = ("context length", "max_model_len", "maximum model length")
"""in a refusal of a request that was too long for a small window: it says nothing of the ability"""

Ask = Callable[[Path, dict[str, Any]], AsyncGenerator[Any]]
"""Sends one request to the engine. Yields its answers; a Refusal is the last."""


def bodies(model: str) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Ability -> the request that tries it. `chat` comes first of the chats, as the others need it."""
    text = {"model": model, "prompt": "1", "max_tokens": 1, "temperature": 0}
    plain = {"model": model, "messages": [{"role": "user", "content": "1"}], "max_tokens": 4, "temperature": 0}
    picture = [{"type": "image_url", "image_url": {"url": PICTURE}}, {"type": "text", "text": "1"}]
    tools = {**plain, "tools": [TOOL]}
    return {
        "completions": ("completions", text),
        "chat": ("chat/completions", plain),
        "logprobs": ("chat/completions", with_logprobs(plain)),
        "json": ("chat/completions", {**plain, "response_format": GUIDED}),
        "tools": ("chat/completions", {**tools, "tool_choice": "auto"}),
        "tool_choice": ("chat/completions", {**tools, "tool_choice": "required", "max_tokens": CALL_TOKENS}),
        "images": ("chat/completions", {**plain, "messages": [{"role": "user", "content": picture}]}),
    }


def without_chat(model: str) -> dict[str, tuple[Path, dict[str, Any]]]:
    """The abilities that a model has without chat too, and the requests that try them."""
    path, text = bodies(model)["completions"]
    return {"logprobs": (path, {**text, "logprobs": 2}), "json": (path, {**text, "response_format": GUIDED, "max_tokens": 4})}


class Untried(Exception):
    """A try said nothing about the ability: the engine failed, was too slow, or its window is too small."""


async def tried(model: str, ask: Ask) -> dict[str, str]:
    """Ability -> why the model cannot; empty: it can. One whose try said nothing is left out, which never stops a start."""
    found: dict[str, str] = {}
    wanted = bodies(model)
    while wanted:
        ability = next(iter(wanted))
        path, body = wanted.pop(ability)
        try:
            found[ability] = await refusal(ask, path, body)
        except TimeoutError:  # each further try would take as long
            log.warning("what tier %s can do is not known: no answer to a request of a few tokens in %g s", model, TRY_S)
            break
        except Untried as error:
            log.warning("whether tier %s can do %s is not known: %s", model, ability, error)
        if ability == "chat" and found.get("chat"):
            found |= {other: found["chat"] for other in wanted}
            wanted = without_chat(model)
    for ability, why in found.items():
        if why:
            log.warning("tier %s, %s: %s", model, ability, why)
    return found


async def refusal(ask: Ask, path: Path, body: dict[str, Any]) -> str:
    """Why the engine refuses the request; empty: it answers. Raises Untried, TimeoutError."""
    last = None
    try:
        async with asyncio.timeout(TRY_S), aclosing(ask(path, body)) as answers:
            async for answer in answers:
                last = answer
    except TimeoutError:
        raise
    except ImportError as error:  # a backend of the configuration that is not installed
        return f"{type(error).__name__}: {error}"[:REASON_CHARS]
    except Exception as error:  # whatever an engine raises, the replica may still serve other requests
        raise Untried(f"{type(error).__name__}: {error}") from error
    if not isinstance(last, Refusal):
        return ""
    said = str(json.loads(last.text)["error"].get("message"))
    if last.status >= 500 or last.status == 429 or any(words in said for words in NO_SIGN):
        raise Untried(f"status {last.status}: {said}")
    return next((ours for words, ours in OURS if all(word in said for word in words)), said[:REASON_CHARS])
