"""A replica of a service, with vLLM's own types of requests and Ray's own replica class. The model behind is made up;
tests/e2e/test_services.py asks a real one."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from deployments.replicas.replica_health import FAILURES_IN_A_ROW
from router.errors import BadConfig
from router.service_settings import VllmService

pytestmark = pytest.mark.slow  # importing Ray's replica and vLLM's types takes ten seconds
COMMON = {"name": "it", "engine": "vllm", "source": "x", "context": 100, "price": {"usd_per_1m_input": 1}}


class Model:
    """vLLM's answering code: raises `fault`, or answers and remembers what it was asked."""

    def __init__(self) -> None:
        self.fault, self.asked = None, []

    async def __call__(self, request, raw_request=None):
        self.asked.append(request)
        if self.fault:
            raise self.fault
        return SimpleNamespace(body=b'{"data":[{}]}')


def replica(kind: str = "embeddings", **engine):
    from deployments.replicas.vllm_service import SERVINGS, PoolingServer

    made = object.__new__(type("Replica", (PoolingServer,), {"__del__": lambda self: None}))
    made.service = VllmService(**COMMON, kind=kind)
    made.engine = SimpleNamespace(**engine or {SERVINGS[kind]: Model()})
    return made


def answers(made, kind: str, **body):
    async def asked():
        return [item async for item in made.openai(kind, json.dumps({"model": "it", **body}), "trace/embedding")]

    return asyncio.run(asked())


@pytest.mark.parametrize(
    ("kind", "body", "type_"),
    [
        ("embeddings", {"input": "a", "encoding_format": "base64", "dimensions": 3}, "EmbeddingCompletionRequest"),
        ("embeddings", {"input": [[1, 2], [3]]}, "EmbeddingCompletionRequest"),
        ("rerank", {"query": "q", "documents": ["a"], "top_n": 1}, "RerankRequest"),
        ("score", {"text_1": "q", "text_2": ["a"]}, "ScoreTextRequest"),
        ("score", {"queries": "q", "documents": "a"}, "ScoreQueriesDocumentsRequest"),
    ],
)
def test_vllm_gets_its_own_type_of_request_and_its_bytes_come_back(kind, body, type_):
    made = replica(kind)
    assert answers(made, kind, **body) == [(200, '{"data":[{}]}', "")]
    (model,) = vars(made.engine).values()
    assert type(model.asked[0]).__name__ == type_


@pytest.mark.parametrize("body", [{}, {"input": "a", "dimensions": "x"}, {"input": "a", "encoding_format": "hex"}])
def test_an_odd_request_is_refused_with_vllms_reason(body):
    ((status, text, _),) = answers(replica(), "embeddings", **body)
    assert status == 400 and json.loads(text)["error"]["message"]


def test_a_request_that_the_model_cannot_answer_is_refused_and_other_failures_are_the_replicas():
    made = replica()
    (model,) = vars(made.engine).values()
    model.fault = ValueError("this model has no matryoshka")
    ((status, text, _),) = answers(made, "embeddings", input="a")
    assert status == 400 and "matryoshka" in text
    model.fault = OSError("gone")
    for _ in range(FAILURES_IN_A_ROW):
        with pytest.raises(OSError):
            answers(made, "embeddings", input="a")
    with pytest.raises(RuntimeError, match="times in a row"):
        made.streak.check()


@pytest.mark.parametrize("kind", ["embeddings", "rerank", "score"])
def test_a_start_tries_the_kind_once_and_says_what_cannot_be(kind):
    made = replica(kind)
    asyncio.run(made.look())
    (model,) = vars(made.engine).values()
    assert len(model.asked) == 1
    model.fault = ValueError("no such pooling")
    with pytest.raises(BadConfig, match=f"services.it.kind: {kind}, which its model refuses: .*no such pooling"):
        asyncio.run(made.look())
    with pytest.raises(BadConfig, match=f"services.it.kind: {kind}, which its model cannot do"):
        asyncio.run(replica(kind, other=None).look())


def test_its_deployment_pools_and_keeps_what_the_settings_say():
    from deployments.replicas.vllm_tier import settings_of

    service = VllmService(**COMMON, kind="embeddings", engine_kwargs={"dtype": "float32"}, cpus=0.5, env={"A": "b"})
    found = settings_of(service, 7.0, runner="pooling")
    assert found["engine_kwargs"]["runner"] == "pooling" and found["engine_kwargs"]["dtype"] == "float32"
    assert found["engine_kwargs"]["max_model_len"] == 100 and found["placement_group_config"] == {"bundles": [{"CPU": 0.5}]}
    assert found["deployment_config"]["graceful_shutdown_timeout_s"] == 7.0 and found["runtime_env"] == {"env_vars": {"A": "b"}}
