"""An engine without a model, for both sides of `benchmarks.front`: as many tokens as are asked for, 50 a second for each request.

So that what a token costs between the engine and the client is measured where hundreds of them are generated at once, which no
model on a processor does. Ray loads it by RAYLLM_VLLM_ENGINE_CLS.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any

from ray.llm._internal.serve.core.engine.protocol import LLMEngine
from ray.serve.llm.openai_api_models import ChatCompletionResponse, CompletionResponse

from deployments.tiers.tier import event

PER_S = 50.0
MOST = 16  # tokens where a request names no number
PROMPT_TOKENS = 21


class Engine(LLMEngine):
    """llm_config: Ray's, of which only the name of the model is used."""

    def __init__(self, llm_config: Any) -> None:
        self.model = llm_config.model_id

    async def start(self) -> None:
        """There is nothing to load."""

    def routing_stats(self) -> dict[str, Any]:
        return {}

    async def resolve_lora(self, lora_model: Any) -> None:
        """It has no weights to change."""

    async def chat(self, request: Any, raw_request_info: Any = None) -> AsyncGenerator[Any]:
        async for item in answered(self.model, request, "chat.completion", ChatCompletionResponse):
            yield item

    async def completions(self, request: Any, raw_request_info: Any = None) -> AsyncGenerator[Any]:
        async for item in answered(self.model, request, "text_completion", CompletionResponse):
            yield item

    async def embeddings(self, request: Any, raw_request_info: Any = None) -> AsyncGenerator[Any]:
        raise NotImplementedError("the scripted engine answers chats and completions")
        yield

    async def transcriptions(self, request: Any, raw_request_info: Any = None) -> AsyncGenerator[Any]:
        raise NotImplementedError("the scripted engine answers chats and completions")
        yield

    async def reset_prefix_cache(self) -> None:
        """It has none."""


async def answered(model: str, request: Any, kind: str, whole: Any) -> AsyncGenerator[Any]:
    """The events of a stream, each in its time, or one document at once."""
    chat = kind == "chat.completion"
    tokens = getattr(request, "max_completion_tokens", None) or request.max_tokens or MOST
    usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": PROMPT_TOKENS + tokens}
    frame = {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}

    def choice(text: str, finish: str | None, key: str) -> dict[str, Any]:
        said: dict[str, Any] = {key: {"role": "assistant", "content": text}} if chat else {"text": text}
        return {"index": 0, "logprobs": None, "finish_reason": finish, **said}

    if not request.stream:
        yield whole.model_validate({**frame, "choices": [choice("is " * tokens, "length", "message")], "usage": usage})
        return
    pieces = {**frame, "object": "chat.completion.chunk" if chat else kind}
    began = time.monotonic()
    for n in range(tokens):
        await asyncio.sleep(max(0.0, began + n / PER_S - time.monotonic()))
        yield event({**pieces, "choices": [choice("is ", None, "delta")]}).decode()
    yield event({**pieces, "choices": [choice("", "length", "delta")]}).decode()
    if request.stream_options and request.stream_options.include_usage:
        yield event({**pieces, "choices": [], "usage": usage}).decode()
    yield "data: [DONE]\n\n"
