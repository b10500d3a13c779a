"""Services on real vLLM replicas beside a ladder: MiniLM makes vectors and puts documents in order, on processors only."""

import json
import sqlite3
import time
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import yaml

from classifiers.pretrained import minilm
from deployments.serve.background import served
from router.errors import BadInput

pytestmark = [pytest.mark.ladder, pytest.mark.skipif(not minilm.available(), reason="needs the extra `embed`")]
PRICE = {"usd_per_1m_input": 0.02}
SERVICE = {
    "engine": "vllm",
    "source": str(minilm.model_folder()) if minilm.available() else "",
    "context": 256,
    "price": PRICE,
    "cpus": 0.3,
    "engine_kwargs": {"dtype": "float32", "enforce_eager": True},
    "env": {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
}
TIER = {"name": "large", "engine": "echo", "context": 1000, "price": {"usd_per_1m_input": 1, "usd_per_1m_output": 1}}
TEXTS = ["The cat sits on the mat.", "Un chat est assis.", "Interest rates rose by half a point."]


def written(folder: Path, *services: dict) -> str:
    ledger = {"url": f"sqlite:///{folder}/ledger.db", "journal_s": 0}
    file = folder / "services.yaml"
    file.write_text(yaml.safe_dump({"tiers": [TIER], "services": list(services), "ledger": ledger}))
    return str(file)


# First, as one Ray serves one Stepdown: the other tests' server runs until the end of this file.
def test_a_model_that_cannot_do_its_kind_stops_the_start(tmp_path):
    by_token = {
        **SERVICE["engine_kwargs"],
        "pooler_config": {"task": "token_embed"},
    }  # a vector for each token, none for the text
    wrong = {**SERVICE, "name": "embed", "kind": "embeddings", "engine_kwargs": by_token}
    with pytest.raises(BadInput) as stopped, served(written(tmp_path, wrong), timeout_s=600):
        pass
    assert "the ladder did not start: services.embed.kind: embeddings, which its model cannot do" in str(stopped.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("services")


@pytest.fixture(scope="module")
def server(folder):
    """(url up to /v1, key)"""
    services = [{**SERVICE, "name": "embed", "kind": "embeddings"}, {**SERVICE, "name": "sort", "kind": "rerank"}]
    with served(written(folder, *services), 900) as found:
        yield found


@pytest.fixture(scope="module")
def sdk(server):
    return openai.OpenAI(base_url=server[0], api_key=server[1], max_retries=0)


def post(server, path: str, **body):
    return httpx.post(f"{server[0]}/{path}", json=body, headers={"authorization": f"Bearer {server[1]}"}, timeout=60)


def test_vectors_are_the_models_own_in_both_formats(sdk):
    default = [one.embedding for one in sdk.embeddings.create(model="embed", input=TEXTS).data]
    floats = [one.embedding for one in sdk.embeddings.create(model="embed", input=TEXTS, encoding_format="float").data]
    assert np.allclose(default, floats, atol=1e-6) and np.shape(default) == (3, 384)
    ours = minilm.MiniLM(minilm.model_folder()).encode(TEXTS)
    assert np.all(np.sum(np.array(default) * ours, axis=1) > 0.999)


def test_token_ids_are_read_and_the_usage_is_the_models(sdk):
    found = sdk.embeddings.create(model="embed", input=[[101, 4937, 102], [101, 3899, 2003, 102]])
    assert len(found.data) == 2 and found.usage.prompt_tokens == 7 and found.model == "embed"


def test_documents_are_put_in_order(server):
    answer = post(server, "rerank", model="sort", query="a cat on a mat", documents=TEXTS, top_n=2)
    assert answer.status_code == 200, answer.text
    assert [one["index"] for one in answer.json()["results"]][0] == 0 and len(answer.json()["results"]) == 2
    assert answer.json()["model"] == "sort"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"input": "word " * 500}, "an input is longer than the 256 tokens"),
        ({"input": "a", "dimensions": 7}, "Matryoshka"),
        ({"input": [[10**6]]}, "vocab"),
    ],
)
def test_what_the_model_cannot_read_is_the_requests_fault(server, body, words):
    answer = post(server, "embeddings", model="embed", **body)
    assert answer.status_code == 400 and words in answer.text, answer.text


def test_every_request_is_in_the_ledger_with_the_tokens_that_were_read(server, folder):
    answer = post(server, "embeddings", model="embed", input="one two three")
    tokens, trace = answer.json()["usage"]["prompt_tokens"], answer.headers["x-stepdown-trace-id"]
    with sqlite3.connect(folder / "ledger.db") as ledger:
        row = ledger.execute(
            "select role, tier, input_tokens, estimated, model from calls where trace_id = ?", (trace,)
        ).fetchone()
    assert row[:4] == ("embedding", "embed", tokens, 0) and row[4]
    assert float(answer.headers["x-stepdown-cost-usd"]) == pytest.approx(tokens * 0.02e-6)


def test_the_status_shows_them(server):
    found = httpx.get(f"{server[0]}/status", headers={"authorization": f"Bearer {server[1]}"}).json()["services"]
    assert found == {"embed": {"kind": "embeddings", "state": "ready"}, "sort": {"kind": "rerank", "state": "ready"}}


def test_many_at_once_are_answered(server):
    began = time.monotonic()
    with httpx.Client(base_url=server[0], headers={"authorization": f"Bearer {server[1]}"}, timeout=60) as client:
        sizes = [len(client.post("/embeddings", json={"model": "embed", "input": TEXTS * 20}).json()["data"]) for _ in range(5)]
    assert sizes == [60] * 5, json.dumps({"took": time.monotonic() - began})
