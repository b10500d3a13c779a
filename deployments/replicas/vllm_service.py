"""Replicas of a service on vLLM with `runner: pooling`, through ray.serve.llm: with vllm_tier.py the only file that imports them.

Ray's own methods for embeddings and scores read vLLM's answer and write it again, and it has none for rerank; so vLLM's answering
code is called itself, and its bytes go on.
"""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from pydantic import TypeAdapter
from ray.serve.llm import LLMConfig, build_llm_deployment
from vllm.entrypoints.pooling.embed.protocol import EmbeddingRequest
from vllm.entrypoints.pooling.scoring.protocol import RerankRequest, ScoreRequest
from vllm.exceptions import VLLMError

from deployments.ids import CURRENT
from deployments.lane.frames import Item
from deployments.replicas.placement import SERVICE_PREFIX
from deployments.replicas.request_faults import ODD, Refusal, refused, with_refusals
from deployments.replicas.vllm_tier import PlainServer, settings_of
from router.errors import BadConfig
from router.service_settings import Kind, VllmService

REQUESTS: dict[str, TypeAdapter[Any]] = {
    "embeddings": TypeAdapter(EmbeddingRequest),
    "rerank": TypeAdapter(RerankRequest),
    "score": TypeAdapter(ScoreRequest),
}
SERVINGS: dict[str, str] = {
    "embeddings": "_oai_serving_embedding",
    "rerank": "_oai_serving_scores",
    "score": "_oai_serving_scores",
}
"""what Ray's engine calls vLLM's answering code; None there: the model cannot"""
TRIES: dict[Kind, dict[str, Any]] = {
    "embeddings": {"input": "1"},
    "rerank": {"query": "1", "documents": ["1"]},
    "score": {"text_1": "1", "text_2": "1"},
}


class PoolingServer(PlainServer):
    """A replica of a service, called as a tier's is. Raises BadConfig."""

    async def __init__(self, llm_config: LLMConfig, service: VllmService) -> None:  # type: ignore[misc]  # Serve awaits it
        self.service = service
        await super().__init__(llm_config)

    async def look(self) -> None:
        """Answer one small request, which also does what is slow the first time. Raises BadConfig."""
        name, kind = self.service.name, self.service.kind
        if getattr(self.engine, SERVINGS[kind], None) is None:
            raise BadConfig(f"services.{name}.kind: {kind}, which its model cannot do; name a model that was trained for it")
        async for status, text, _ in self.openai(kind, json.dumps({"model": name, **TRIES[kind]})):
            if status != 200:
                raise BadConfig(f"services.{name}.kind: {kind}, which its model refuses: {text[:500]}")

    async def openai(
        self, path: str, raw: str, call_id: str = "", missed: Sequence[str] = (), hint: str = ""
    ) -> AsyncGenerator[Item]:
        """Yield (status, text, ""): the one document of the answer. Nothing is measured of it."""
        CURRENT.set(call_id.partition("/")[0])
        try:
            request = REQUESTS[path].validate_python(json.loads(raw))
        except (VLLMError, *ODD) as error:
            refusal = refused(error)
            yield refusal.status, refusal.text, ""
            return
        try:
            async with aclosing(with_refusals(self.pooled(path, request), request)) as answers:
                async for answer in answers:
                    status, text = (answer.status, answer.text) if isinstance(answer, Refusal) else (200, answer)
                    self.streak.note(status)
                    yield status, text, ""
        except Exception:
            self.streak.note(500)
            raise

    async def pooled(self, path: str, request: Any) -> AsyncGenerator[str]:
        """vLLM's answer as JSON."""
        serving = getattr(self.engine, SERVINGS[path])
        response = await serving(request)
        yield response.body.decode()


def bind(service: VllmService, drain_s: float = 30.0) -> Any:
    """The Serve application of one service's replicas; its handle answers `openai`."""
    settings = LLMConfig(**settings_of(service, drain_s, runner="pooling"))
    return build_llm_deployment(
        settings, deployment_cls=PoolingServer, name_prefix=SERVICE_PREFIX, bind_kwargs={"service": service}
    )
