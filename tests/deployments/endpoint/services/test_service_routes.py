"""Embeddings, rerank and score through the endpoint: openai's client as it is, keys, budgets, ledger, costs, metrics."""

import asyncio
import contextlib
import json
import time
from collections import Counter
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live import ladder, serving
from scripted_tier import Said, ScriptedTier
from sqlalchemy import select
from starlette.testclient import TestClient

from deployments.app import SERVICES
from deployments.costs.report import report
from deployments.endpoint.accounts import Accounts, without_books
from deployments.endpoint.ingress import Ingress
from deployments.endpoint.services.service_call import ServiceCall
from deployments.keys import key_store
from deployments.keys.admission import Keys
from deployments.keys.key_store import hashed
from deployments.ledger import schema
from deployments.ledger.ledger import Ledger
from deployments.monitoring.metrics import Metrics
from deployments.services.service import Service
from router.config import Ledger as Settings
from router.engine import Router
from router.errors import TierFailed
from router.limits.key_limits import Key
from router.services.body import parse

PRICE = {"usd_per_1m_input": 1000}
ECHO = {"engine": "echo", "context": 100, "price": PRICE, "dimensions": 4}
EMBED = {**ECHO, "name": "embed", "kind": "embeddings"}
SORT = {**ECHO, "name": "sort", "kind": "rerank"}
ALIASES = {"text-embedding-*": "embed", "my-embed": "embed", "embed": "large", "gpt-*": "auto"}
CONFIG = ladder(("small", "large"), services=[EMBED, SORT], aliases=ALIASES)
KEY = {"authorization": "Bearer right"}
CHAT = {"model": "large", "messages": [{"role": "user", "content": "one two"}]}


class Scripted(Service):
    """A service that does as the test says: `answer` is its bytes, an exception, or a time to wait."""

    name = "embed"

    def __init__(self, answer: Any) -> None:
        self.answer, self.seen = answer, []

    async def ask(self, asked, call_id=""):
        self.seen.append((asked.raw, call_id))
        if isinstance(self.answer, float):
            await asyncio.sleep(self.answer)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def document(*vectors, **fields) -> bytes:
    return json.dumps({"object": "list", "data": [{"embedding": v} for v in vectors], "model": "up", **fields}).encode()


def made(config=CONFIG, **services):
    """(router, services): echo ones where the test gives none."""
    router = Router(config, None, dict.fromkeys(config.names, lambda text: len(text.split())))
    return router, {s.name: services.get(s.name) or SERVICES[s.engine].make(s, None, 5.0) for s in config.services}


def client(config=CONFIG, accounts=None, **services) -> TestClient:
    router, those = made(config, **services)
    tiers = {name: quiet(name) for name in config.names}
    ingress = Ingress(router, tiers, accounts or without_books(hashed("right")), 400_000, those)
    return TestClient(ingress.app(), headers=KEY, raise_server_exceptions=False)


def quiet(name: str) -> ScriptedTier:
    return ScriptedTier(name, lambda body: Said("x y"))


@pytest.fixture(scope="module")
def plain():
    with client() as opened:
        yield opened


# -- clients -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sdk():
    router, services = made()
    with serving(router, {name: quiet(name) for name in CONFIG.names}, None, services) as url:
        yield openai.OpenAI(base_url=url, api_key="x", max_retries=0)


def test_openais_client_reads_base64_by_default_and_floats_when_it_asks_for_them(sdk):
    default = sdk.embeddings.create(model="embed", input=["a", "b"])
    floats = sdk.embeddings.create(model="embed", input=["a", "b"], encoding_format="float")
    assert [one.embedding for one in default.data] == [one.embedding for one in floats.data]
    assert len(default.data) == 2 and len(default.data[0].embedding) == 4 and default.model == "embed"
    assert default.usage.prompt_tokens == default.usage.total_tokens == 1
    raw = sdk.embeddings.with_raw_response.create(model="embed", input="a")
    assert json.loads(raw.http_request.content)["encoding_format"] == "base64"
    assert isinstance(raw.http_response.json()["data"][0]["embedding"], str)
    assert raw.headers["x-stepdown-service"] == "embed" and len(raw.headers["x-stepdown-trace-id"]) == 32


@pytest.mark.parametrize("given", ["a", [7, 8], [[7], [8, 9]]])
def test_openais_client_may_send_texts_and_token_ids_and_ask_for_dimensions(sdk, given):
    found = sdk.embeddings.create(model="embed", input=given, dimensions=3)
    assert {len(one.embedding) for one in found.data} == {3}
    assert len(found.data) == (2 if isinstance(given[0], list) else 1)


def test_openais_client_hears_what_is_wrong(sdk):
    with pytest.raises(openai.BadRequestError, match=r"`input\[1\]` is an empty text"):
        sdk.embeddings.create(model="embed", input=["a", ""])
    with pytest.raises(openai.NotFoundError, match="service for embeddings"):
        sdk.chat.completions.create(model="embed", messages=CHAT["messages"])
    assert {"embed", "sort"} <= {model.id for model in sdk.models.list()}


# -- paths -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_documents_are_put_in_order(plain, path):
    answer = plain.post(path, json={"model": "sort", "query": "b", "documents": ["a", "b"], "top_n": 1})
    assert answer.json()["results"][0]["index"] == 1 and answer.json()["model"] == "sort"


def test_without_a_service_of_that_kind_it_is_said_how_to_configure_one(plain):
    error = plain.post("/v1/score", json={"model": "auto", "text_1": "a", "text_2": "b"}).json()["error"]
    assert error["code"] == "model_not_found" and "`services`" in error["message"] and "kind: score" in error["message"]


@pytest.mark.parametrize(
    ("path", "model", "words"),
    [
        ("embeddings", "auto", "'auto' answers chats; /v1/embeddings is answered by embed"),
        ("embeddings", "small", "'small' answers chats"),
        ("embeddings", "sort", "'sort' is a service for rerank"),
        ("embeddings", "claude", "unknown model 'claude'; /v1/embeddings is answered by embed"),
        (
            "chat/completions",
            "sort",
            "'sort' is a service for rerank, to be asked at POST /v1/rerank; chats are answered by auto",
        ),
        ("decision", "embed", "'embed' is a service for embeddings"),
    ],
)
def test_a_name_of_something_else_is_told_what_it_is(plain, path, model, words):
    answer = plain.post(f"/v1/{path}", json={"input": "a", **CHAT, "model": model})
    assert answer.status_code == 404 and words in answer.json()["error"]["message"]


def test_an_alias_stands_for_a_service_and_the_answer_has_the_name_that_was_asked_for(plain):
    answer = plain.post("/v1/embeddings", json={"model": "text-embedding-3-small", "input": "a"})
    assert answer.json()["model"] == "text-embedding-3-small" and answer.headers["x-stepdown-service"] == "embed"
    assert plain.post("/v1/embeddings", json={"model": "embed", "input": "a"}).status_code == 200  # a service is never an alias
    assert plain.get("/v1/models/my-embed").json()["id"] == "my-embed"
    assert plain.post("/v1/chat/completions", json={**CHAT, "model": "my-embed"}).status_code == 404


def test_services_are_listed_and_have_no_place_on_the_ladder(plain):
    names = [model["id"] for model in plain.get("/v1/models").json()["data"]]
    assert names[4:] == ["small", "large", "embed", "sort", "my-embed"]
    assert plain.get("/v1/models/embed").json()["id"] == "embed"
    status = plain.get("/v1/status").json()
    assert status["services"] == {"embed": {"kind": "embeddings", "state": "ready"}, "sort": {"kind": "rerank", "state": "ready"}}
    assert status["tiers"] == ["small", "large"] and set(status["ladder"]) == {"small", "large"}
    assert "embed" not in json.dumps(plain.post("/v1/decision", json={**CHAT, "model": "auto"}).json())


def test_a_failing_service_has_its_circuit_and_no_tier_notices():
    with client(embed=Scripted(TierFailed("embed", "told to fail", 500))) as opened:
        codes = [opened.post("/v1/embeddings", json={"model": "embed", "input": "a"}).json()["error"]["code"] for _ in range(5)]
        assert codes[0] == "tier_failed" and codes[-1] == "tier_unavailable"
        status = opened.get("/v1/status").json()
        assert status["services"]["embed"]["state"] == "circuit open" and status["services"]["sort"]["state"] == "ready"
        assert {its["state"] for its in status["ladder"].values()} == {"ready"}
        assert opened.get("/readyz").status_code == 200


def test_an_answer_that_takes_too_long_is_given_up():
    slow = ladder(("small", "large"), services=[EMBED], server={"request_timeout_s": 0.05})
    with client(slow, embed=Scripted(5.0)) as opened:
        answer = opened.post("/v1/embeddings", json={"model": "embed", "input": "a"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")


def test_without_a_key_there_is_nothing(plain):
    assert plain.post("/v1/embeddings", json={"model": "embed", "input": "a"}, headers={"authorization": ""}).status_code == 401


BODIES = st.dictionaries(
    st.sampled_from(["model", "input", "query", "documents", "text_1", "text_2", "encoding_format", "dimensions", "top_n"]),
    st.sampled_from(
        ["embed", "sort", "a", "", "base64", 1, 0, -1, 2.5, None, True, [], ["a"], [1], [[1]], [["a"]], {}, {"a": 1}, [None]]
    ),
)


@given(
    st.sampled_from(["v1/embeddings", "v1/rerank", "v2/rerank", "v1/score"]),
    BODIES.map(lambda body: json.dumps(body).encode()) | st.binary(max_size=30),
)
@pytest.mark.slow
def test_any_body_is_answered_or_refused(plain, path, raw):
    answer = plain.post(f"/{path}", content=raw)
    assert answer.status_code in (200, 400, 404)
    assert answer.status_code == 200 or (answer.json()["error"]["message"] and "Traceback" not in answer.text)


# -- books -------------------------------------------------------------------------------------------------------------------


class Noted:
    """A metric of Ray's that remembers."""

    values: Counter = Counter()

    def __init__(self, name, measure):
        self.name = name

    def inc(self, value, tags):
        self.values[(self.name, *tags.values())] += value

    def observe(self, value, tags):
        self.values[(self.name, *tags.values())] += 1

    set = inc


@pytest.fixture
def books(tmp_path):
    return Ledger(Settings(journal_s=0, url=f"sqlite:///{tmp_path / 'ledger.db'}", store="all"))


def accounts(ledger, metrics=None) -> Accounts:
    tiers = {tier.name: tier for tier in CONFIG.tiers}
    return Accounts(Keys(ledger.engine), ledger, metrics, tiers=tiers, models={"embed": "echo#1"})


@pytest.fixture
def opening(books):
    """Opens the endpoint and makes a key with these limits: a client that sends it."""
    with contextlib.ExitStack() as stack:

        def opened(key: Key, metrics=None, **services) -> TestClient:
            found = stack.enter_context(client(accounts=accounts(books, metrics), **services))
            _, secret = key_store.create(books.engine, key, time.time())
            found.headers["authorization"] = f"Bearer {secret}"
            return found

        yield opened


def rows(ledger, table):
    with ledger.engine.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(select(table))]


@pytest.mark.parametrize(
    ("answer", "tokens", "estimated"),
    [
        (document([1], usage={"prompt_tokens": 7}), 7, False),
        (document([1]), 2, True),
        (document([1], usage={"prompt_tokens": 10**6}), 2, True),
    ],
)
def test_an_answer_leaves_one_trace_and_one_call(opening, books, answer, tokens, estimated):
    opened = opening(Key("", "team"), embed=Scripted(answer))
    answered = opened.post("/v1/embeddings", json={"model": "embed", "input": "abcdefgh"})
    (trace,), (call,) = rows(books, schema.traces), rows(books, schema.calls)
    assert (trace["path"], trace["tier"], trace["flow"], trace["status"]) == ("embeddings", "embed", "service", 200)
    assert trace["counterfactual_usd"] is None and trace["prompt"] is None and trace["wanted"] == "embed"
    assert (call["role"], call["tier"], call["outcome"], call["model"]) == ("embedding", "embed", "answered", "echo#1")
    assert (call["input_tokens"], call["output_tokens"], call["estimated"]) == (tokens, 0, estimated)
    assert call["cost_usd"] == pytest.approx(tokens * 1e-3) == trace["cost_usd"] == float(answered.headers["x-stepdown-cost-usd"])
    assert call["id"] == f"{answered.headers['x-stepdown-trace-id']}/embedding" and call["busy_s"] is None


@pytest.mark.parametrize(
    ("fails", "status", "outcome"),
    [(TierFailed("embed", "no", 500), 502, "tier_failed"), (TierFailed("embed", "no", 400), 400, "request_refused")],
)
def test_a_failure_is_written_down_and_costs_nothing(opening, books, fails, status, outcome):
    opened = opening(Key("", "team", usd_per_day=1.0), embed=Scripted(fails))
    assert opened.post("/v1/embeddings", json={"model": "embed", "input": "a"}).status_code == status
    (trace,), (call,) = rows(books, schema.traces), rows(books, schema.calls)
    assert (trace["status"], trace["tier"], trace["cost_usd"]) == (status, "", 0)
    assert (call["outcome"], call["cost_usd"]) == (outcome, 0)
    (budget,) = rows(books, schema.budgets)
    assert budget["spent_usd"] == budget["reserved_usd"] == 0


def test_a_budget_is_reserved_by_what_is_counted_and_settled_by_what_is_reported(opening, books):
    service = Scripted(document([1], usage={"prompt_tokens": 7}))
    opened = opening(Key("", "team", usd_per_day=0.03), embed=service)
    body = {"model": "embed", "input": "abcdefgh"}  # at most 8 bytes and 16 marks: 24 tokens, 0.024 USD
    assert opened.post("/v1/embeddings", json=body).status_code == 200
    (budget,) = rows(books, schema.budgets)
    assert budget["spent_usd"] == pytest.approx(0.007) and budget["reserved_usd"] == 0
    refused = opened.post("/v1/embeddings", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
    assert "may cost 0.024 USD" in refused.json()["error"]["message"] and len(service.seen) == 1


def test_rates_count_requests_and_the_tokens_that_were_read(opening, books):
    opened = opening(Key("", "team", tokens_per_minute=40), embed=Scripted(document([1], usage={"total_tokens": 20})))
    body = {"model": "embed", "input": "abcd"}  # at most 20 and the one that every request counts
    assert [opened.post("/v1/embeddings", json=body).status_code for _ in range(2)] == [200, 429]
    _, other = key_store.create(books.engine, Key("", "other", requests_per_minute=1), time.time())
    sent = [opened.post("/v1/embeddings", json=body, headers={"authorization": f"Bearer {other}"}).status_code for _ in range(2)]
    assert sent == [200, 429]


@pytest.mark.parametrize(
    ("key", "status"),
    [
        (Key("", "team", tiers=frozenset({"embed"})), 200),
        (Key("", "team", tiers=frozenset({"small"})), 403),
        (Key("", "team", targets=frozenset({"cheap"})), 403),
        (Key("", "team"), 200),
    ],
)
def test_a_key_may_ask_for_the_services_in_its_list(opening, books, key, status):
    opened = opening(key)
    assert opened.post("/v1/embeddings", json={"model": "embed", "input": "a"}).status_code == status


def test_costs_show_a_service_and_count_it_into_no_saving(opening, books):
    opened = opening(Key("", "team"))
    assert opened.post("/v1/chat/completions", json=CHAT).status_code == 200
    before = report(books.engine, CONFIG, 0, time.time() + 1)
    assert opened.post("/v1/embeddings", json={"model": "embed", "input": "a" * 400}).status_code == 200
    after = report(books.engine, CONFIG, 0, time.time() + 1)
    for name in ("saving_usd", "covered_usd", "counterfactual_usd", "attempts", "escalations", "audits"):
        assert after["totals"][name] == before["totals"][name], name
    assert after["totals"]["cost_usd"] == pytest.approx(before["totals"]["cost_usd"] + 0.1)
    assert after["covers"]["of_cost"] == before["covers"]["of_cost"] == 1 and after["curve"]["live"] == before["curve"]["live"]
    assert [row["tier"] for row in after["by"]["tier"]] == ["large", "embed"] and after["services"] == ["embed", "sort"]
    (row,) = [row for row in after["by"]["tier"] if row["tier"] == "embed"]
    assert (row["requests"], row["input_tokens"], row["saving_usd"]) == (1, 100, 0)


def test_metrics_count_it_as_a_call_and_as_no_decision(opening, books):
    Noted.values = Counter()
    metrics = Metrics(CONFIG.tiers, Noted)
    opened = opening(Key("", "team"), metrics)
    opened.post("/v1/embeddings", json={"model": "embed", "input": "a" * 8})
    metrics.flush()
    found = Noted.values
    assert found["stepdown_requests", "embed", "asked for", "2xx"] == 1
    assert found["stepdown_calls", "embed", "embedding", "answered"] == 1
    assert found["stepdown_input_tokens", "embed", "embedding"] == 2
    assert found["stepdown_cost_usd", "embed", "embedding"] == pytest.approx(0.002)
    counted = {name for name, *_ in found}
    assert counted.isdisjoint({"stepdown_decision_seconds", "stepdown_counterfactual_usd", "stepdown_compared_usd"})


def test_a_request_that_is_cancelled_is_paid_for_by_an_estimate(books):
    async def left():
        (service,) = [s for s in CONFIG.services if s.name == "embed"]
        books_of = accounts(books)
        await books_of.open(lambda: Router(CONFIG, None, dict.fromkeys(CONFIG.names, len)).flows.promises)
        call = ServiceCall(
            books_of, Key("k", "k"), service, parse("embeddings", b'{"model": "embed", "input": "abcdefgh"}'), 60.0
        )
        task = asyncio.ensure_future(call.answered(asyncio.sleep(9)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        call.left()
        await books_of.close()

    asyncio.run(left())
    (trace,), (call,) = rows(books, schema.traces), rows(books, schema.calls)
    assert (trace["status"], call["outcome"], call["input_tokens"], call["estimated"]) == (499, "cancelled", 2, True)
