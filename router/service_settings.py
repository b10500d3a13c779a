"""The settings of one service: a model that makes vectors of texts or judges them. Part of the YAML file that router/config.py
reads.

A service stands beside the ladder: `auto` never chooses it, nothing answers in its place, and a request names it in `model`.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from router.engine_settings import ModelSource, Served, Settings, Upstream, VllmReplicas, by_engine

Kind = Literal["embeddings", "rerank", "score"]
"""what a service does: the last part of its path, /v1/embeddings and so on"""


class ServicePrice(Settings):
    """What a service costs. It reads and writes nothing, so output has no price."""

    usd_per_1m_input: Annotated[float, Field(ge=0)]
    """USD per million input tokens"""


class Service(Served):
    """The settings that all engines share. A subclass with a literal `engine` is an engine's settings, as with tiers."""

    kind: Kind
    """embeddings: a vector for each text; rerank: documents in the order of their relevance; score: how alike two texts are"""
    price: ServicePrice
    """what it costs"""
    context: Annotated[int, Field(gt=0)]
    """tokens that one text may have; of rerank and score, two texts together"""


class VllmService(VllmReplicas, Service):
    """A service on vLLM replicas that Ray Serve runs, with `runner: pooling`."""

    engine: Literal["vllm"]
    """vllm"""

    @model_validator(mode="after")
    def pools(self) -> "VllmService":
        if (runner := self.engine_kwargs.get("runner", "pooling")) != "pooling":
            raise ValueError(f"engine_kwargs.runner: found {runner!r}; a service needs pooling, which is set by itself")
        return self


class RemoteService(Upstream, Service):
    """A service behind any URL that answers as vLLM, OpenAI (embeddings), Jina or Cohere (rerank) do."""

    engine: Literal["remote"]
    """remote"""


class EchoService(Service):
    """A service without a model: its vectors are hashes of the texts, so they say nothing but that two texts are the same. For
    tests and demos of the plumbing."""

    engine: Literal["echo"]
    """echo"""
    dimensions: Annotated[int, Field(ge=1, le=4096)] = 64
    """length of a vector, unless the request asks for another"""

    @property
    def model_source(self) -> ModelSource:
        return ModelSource(self.engine, settings={"dimensions": self.dimensions})


AnyService = Annotated[SerializeAsAny[Service], BeforeValidator(by_engine(Service))]
