"""Makes a new replica do slow first-time work before it is ready: vLLM compiles log-probabilities and guided decoding when they
are first asked for, which takes seconds. The replica asks itself as the cascade and the plans will ask it."""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from router.cascade.flow import with_logprobs

log = logging.getLogger("stepdown")
SCHEMA = {"type": "object", "properties": {"a": {"enum": ["b"]}}, "required": ["a"], "additionalProperties": False}
GUIDED = {"type": "json_schema", "json_schema": {"name": "warm_up", "schema": SCHEMA, "strict": True}}


def bodies(model: str) -> list[dict[str, Any]]:
    """Requests of a few tokens, one for each kind of compilation."""
    plain = {"model": model, "messages": [{"role": "user", "content": "1"}], "max_tokens": 4, "temperature": 0}
    return [with_logprobs(plain), {**plain, "response_format": GUIDED}]


async def warm_up(model: str, chat: Callable[[dict[str, Any]], AsyncGenerator[Any]]) -> None:
    """Send each request once to `chat`, which yields the engine's answers. If a model cannot do one of them (it may have no
    chat template), that stays cold, and the client's own request gets the error."""
    for body in bodies(model):
        try:
            async with aclosing(chat(body)) as items:
                async for _ in items:
                    pass
        except Exception as error:  # noqa: BLE001 - whatever it is, the replica still serves other requests
            log.warning("warm-up of %s: %s: %s", model, type(error).__name__, error)
