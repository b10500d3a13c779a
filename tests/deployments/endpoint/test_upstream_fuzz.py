"""Whatever a provider says, and whatever schema a client sends: no 500, no hang, no figure that bends a bill."""

import json
import time

import pytest
from fuzzing import PRICE, cases
from hostile_schemas import SCHEMAS, VALUES
from hypothesis import event, given
from hypothesis import strategies as st
from inprocess import KEY
from misbehaving import BEHAVIOURS, Behaviour, Upstream, as_json
from starlette.testclient import TestClient

from classifiers import load
from deployments.app import TIERS
from deployments.endpoint.accounts import Accounts
from deployments.endpoint.ingress import Ingress
from deployments.keys.admission import Keys
from deployments.keys.key_store import hashed
from router.config import SHIPPED, Config
from router.engine import Router
from router.traffic.breaker import Breaker

pytestmark = pytest.mark.slow

MOST_TOKENS = 100_000  # the larger tier's window
MOST_S = 20.0  # far above what any answer here takes, and far below what a hang takes
CALLS_OF_ONE = 12  # upper bound of the calls of one request here
NAMES = ("small", "medium", "large")


class Noted(Accounts):
    """Accounts that keep the traces."""

    def __init__(self):
        super().__init__(Keys(None, hashed("right")))
        self.traces = []

    async def finish(self, trace, grant):
        self.traces.append(trace)
        await super().finish(trace, grant)


class Served:
    """An ingress over tiers that all ask `upstream`; a new case begins with closed circuits."""

    def __init__(self, upstream):
        self.upstream, self.accounts = upstream, Noted()
        url = f"http://127.0.0.1:{upstream.port}"
        tiers = [
            {"name": name, "engine": "remote", "url": f"{url}/{name}/v1", "model": "given", "context": context, "price": PRICE}
            for name, context in zip(NAMES, (600, 2_000, MOST_TOKENS), strict=True)
        ]
        sections = {
            "routing": {"target": "quality"},
            "escalation": {"mode": "buffer"},
            "delegation": {"mode": "tool"},
            "server": {"request_timeout_s": 5, "first_token_timeout_s": 2},
        }
        config = Config.model_validate({"tiers": tiers, **sections})
        router = Router(
            config, load(SHIPPED.parent / "pocket" / "router", NAMES), dict.fromkeys(NAMES, lambda text: len(text) // 3 + 8)
        )
        made = {t.name: TIERS[t.engine].make(t, None, 2.0, None) for t in config.tiers}
        self.ingress = Ingress(router, made, self.accounts, 400_000)

    def ask(self, client, path, body, says):
        """The answer, and the trace that was written of it."""
        self.upstream.says = says
        self.accounts.traces.clear()
        fresh = Breaker(time.monotonic, lambda: 0.5)
        self.ingress.answering.breaker = fresh
        for tier in self.ingress.tiers.values():
            tier.breaker = fresh
        began = time.monotonic()
        raw = json.dumps(body).encode()  # with NaN where there is one, which is refused
        answer = client.post(f"/v1/{path}", content=raw, headers={"content-type": "application/json"})
        assert time.monotonic() - began < MOST_S
        return answer, list(self.accounts.traces)


@pytest.fixture(scope="module")
def served():
    with Upstream() as upstream:
        yield Served(upstream)


@pytest.fixture(scope="module")
def client(served):
    with TestClient(served.ingress.app(), headers=KEY, raise_server_exceptions=False) as made:
        yield made


def whole_or_failed(answer):
    """An answer that a client can read, or an error in OpenAI's form that says nothing of the operator's."""
    assert answer.status_code != 500, answer.text
    assert "sk-secret" not in answer.text
    if answer.status_code != 200:
        error = json.loads(answer.content)["error"]
        assert error["message"] and isinstance(error["message"], str)
        return "failed"
    if not answer.headers["content-type"].startswith("text/event-stream"):
        body = json.loads(answer.content)
        assert body["choices"] and all(isinstance(c.get("message", c.get("text")), dict | str) for c in body["choices"])
        sane(body.get("usage") or {})
        return "whole"
    events = [part.removeprefix("data: ") for part in answer.text.split("\n\n") if part.startswith("data: ")]
    assert events[-1] == "[DONE]", answer.text
    chunks = [json.loads(e) for e in events[:-1]]
    failed = [c for c in chunks if c.get("error")]
    finished = [c for c in chunks if any(choice.get("finish_reason") for choice in c.get("choices") or [])]
    assert failed or finished, "a stream that ends without an end looks whole"
    for chunk in chunks:
        sane(chunk.get("usage") or {})
    return "streamed, then failed" if failed else "streamed"


def sane(usage):
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert type(usage.get(name, 0)) is int and 0 <= usage.get(name, 0) <= CALLS_OF_ONE * MOST_TOKENS, usage


def true_figures(traces):
    """The rows of the ledger: every figure is bounded by what one request can be."""
    assert len(traces) == 1
    for call in traces[0].calls:
        assert 0 <= call.cached_tokens <= call.input_tokens <= MOST_TOKENS, call
        assert 0 <= call.output_tokens <= MOST_TOKENS and 0 <= call.cost_usd <= 1, call
    assert len(traces[0].calls) <= CALLS_OF_ONE


ASKED = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["auto", "auto:quality", "small", "large"]),
        "stream": st.booleans(),
        "max_tokens": st.sampled_from([1, 50]),
    },
    optional={
        "response_format": st.just({"type": "json_object"}),
        "tools": st.just([{"type": "stepdown:delegate"}]) | st.just([{"type": "function", "function": {"name": "f"}}]),
        "logprobs": st.just(True),
        "stream_options": st.fixed_dictionaries({"include_usage": st.booleans()}),
    },
)


@pytest.mark.slow
@given(ASKED, st.fixed_dictionaries(dict.fromkeys(NAMES, BEHAVIOURS)), st.booleans())
def test_any_answer_of_a_provider_becomes_an_answer_or_a_failure(served, client, asked, says, chat):
    cases["upstream"] += 1
    asked = {k: v for k, v in asked.items() if k != "stream_options" or asked["stream"]}
    if chat:
        path, body = "chat/completions", {**asked, "messages": [{"role": "user", "content": "What is 2 plus 3?"}]}
    else:
        asked = {k: v for k, v in asked.items() if k not in ("tools", "response_format", "logprobs")}
        path, body = "completions", {**asked, "prompt": "2 plus 3 is"}
    answer, traces = served.ask(client, path, body, says)
    event(whole_or_failed(answer))
    true_figures(traces)


@pytest.mark.slow
@given(SCHEMAS, VALUES, st.booleans())
def test_any_schema_of_a_client_is_judged_in_time(served, client, schema, value, stream):
    cases["schemas"] += 1
    text = json.dumps(value)
    said = Behaviour(
        parts=(as_json({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}),)
    )
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = {"model": "auto", "stream": stream, "messages": [{"role": "user", "content": "x"}], "response_format": shape}
    answer, _ = served.ask(client, "chat/completions", body, dict.fromkeys(NAMES, said))
    assert answer.status_code < 500, answer.text
    event(f"status {answer.status_code}")
