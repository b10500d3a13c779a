"""What an engine does for the first time takes seconds: vLLM compiles the choice of log-probabilities and of guided tokens when
they are first asked for. So a replica asks itself before it is ready, in the ways in which the cascade and plans will ask it."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from router.cascade.flow import with_logprobs

log = logging.getLogger("stepdown")
SCHEMA = {"type": "object", "properties": {"a": {"enum": ["b"]}}, "required": ["a"], "additionalProperties": False}
GUIDED = {"type": "json_schema", "json_schema": {"name": "warm_up", "schema": SCHEMA, "strict": True}}


def bodies(model: str) -> list[dict[str, Any]]:
    """Requests of a few tokens, one for each thing to be compiled."""
    plain = {"model": model, "messages": [{"role": "user", "content": "1"}], "max_tokens": 4, "temperature": 0}
    return [with_logprobs(plain), {**plain, "response_format": GUIDED}]


async def warm_up(model: str, chat: Callable[[dict[str, Any]], AsyncIterator[Any]]) -> None:
    """Ask each once. chat: yields what the engine answers. What a model cannot do (it has no chat template, say) is left
    cold: it is the client's request that must tell."""
    for body in bodies(model):
        try:
            async with aclosing(chat(body)) as items:  # type: ignore[type-var]
                async for _ in items:
                    pass
        except Exception as error:  # noqa: BLE001 - whatever it is, the replica serves other requests all the same
            log.warning("warm-up of %s: %s: %s", model, type(error).__name__, error)
