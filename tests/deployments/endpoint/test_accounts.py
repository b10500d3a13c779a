"""What a request leaves behind: its rows are there, once and with the right sums, whatever became of it."""

import asyncio
import json
import time

import httpx
import pytest
from live import OneFlow, ladder, serving
from scripted_tier import Said, ScriptedTier, asked
from sqlalchemy import select
from starlette.testclient import TestClient

from deployments.endpoint.accounts import Accounts
from deployments.endpoint.ingress import Ingress
from deployments.keys.admission import Keys
from deployments.ledger import schema
from deployments.ledger.ledger import Ledger
from router.config import Ledger as Settings
from router.engine import Router
from router.errors import LedgerDown, TierFailed
from router.types import Call, Commit, Step

CHAT = {"model": "large", "messages": [{"role": "user", "content": "one two three"}]}
NAMES = ("small", "medium", "large")


def words(body) -> Said:
    return Said("four five six seven")


@pytest.fixture
def ledger(tmp_path):
    return Ledger(Settings(journal_s=0, url=f"sqlite:///{tmp_path / 'ledger.db'}", store="all"))


def rows(ledger, table):
    with ledger.engine.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(select(table))]


def accounts(ledger) -> Accounts:
    config = ladder()
    return Accounts(Keys(None, insecure=True), ledger, tiers={tier.name: tier for tier in config.tiers})


def plain(**scripts) -> tuple[Router, dict]:
    config = ladder()
    router = Router(config, None, dict.fromkeys(config.names, lambda text: len(text.split())))
    return router, {name: ScriptedTier(name, scripts.get(name, words)) for name in NAMES}


@pytest.fixture
def endpoint(ledger):
    """(client, tiers): an endpoint without Ray whose requests are written down."""
    router, tiers = plain(medium=lambda body: Said(error=TierFailed("medium", "told to fail")))
    app = Ingress(router, tiers, accounts(ledger), 1_000_000).app()
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client, tiers


def post(client, body):
    return client.post("/v1/chat/completions", json=body)


@pytest.mark.parametrize("stream", [False, True])
def test_a_plain_answer_leaves_one_trace_and_one_call(endpoint, ledger, stream):
    client, _ = endpoint
    answer = post(client, {**CHAT, "stream": stream})
    (trace,), (call,) = rows(ledger, schema.traces), rows(ledger, schema.calls)
    assert trace["id"] == answer.headers["x-stepdown-trace-id"] == call["trace_id"]
    assert (trace["status"], trace["tier"], trace["flow"], trace["stream"]) == (200, "large", "direct", stream)
    assert (trace["prompt"], trace["answer"]) == ("one two three", "four five six seven")
    assert (call["input_tokens"], call["output_tokens"], call["outcome"], call["role"]) == (3, 4, "answered", "final")
    assert call["cost_usd"] == pytest.approx(7 * 20e-6) == trace["cost_usd"]
    assert trace["took_s"] >= trace["first_byte_s"] >= 0


def test_a_stream_is_passed_on_as_it_is(endpoint):
    client, _ = endpoint
    text = post(client, {**CHAT, "stream": True, "stream_options": {"include_usage": True}}).text
    events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert events[-1] == "[DONE]" and text.count("[DONE]") == 1
    assert json.loads(events[-2])["usage"]["completion_tokens"] == 4
    assert "".join(json.loads(e)["choices"][0]["delta"].get("content") or "" for e in events[:-2]) == "four five six seven"


def test_usage_that_the_client_declined_is_still_written_down(endpoint, ledger):
    client, _ = endpoint
    text = post(client, {**CHAT, "stream": True, "stream_options": {"include_usage": False}}).text
    assert "usage" not in text
    assert rows(ledger, schema.calls)[0]["output_tokens"] == 4


def test_an_answer_that_speaks_of_usage_and_done_is_not_mistaken(ledger):
    said = 'say "usage": {"a": 1} and [DONE] and "error": {}'
    router, tiers = plain(large=lambda body: Said(said))
    with TestClient(Ingress(router, tiers, accounts(ledger), 1_000_000).app()) as client:
        text = post(client, {**CHAT, "stream": True}).text
    events = [json.loads(e.removeprefix("data: ")) for e in text.split("\n\n") if e and e != "data: [DONE]"]
    assert "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e["choices"]) == said


@pytest.mark.parametrize("stream", [False, True])
def test_a_failed_call_is_written_down_too(endpoint, ledger, stream):
    client, _ = endpoint
    assert post(client, {**CHAT, "model": "medium", "stream": stream}).status_code == 502
    (trace,), (call,) = rows(ledger, schema.traces), rows(ledger, schema.calls)
    assert (trace["status"], trace["error"], trace["tier"]) == (502, "tier_failed", "")
    assert (call["outcome"], call["input_tokens"], call["cost_usd"]) == ("tier_failed", 0, 0.0)


def test_an_answer_in_place_of_a_tier_that_is_down_leaves_both_calls(ledger):
    router, tiers = plain(large=lambda body: Said(error=TierFailed("large", "told to fail")))
    with TestClient(Ingress(router, tiers, accounts(ledger), 1_000_000).app()) as client:
        post(client, {**CHAT, "model": "auto"})
    (trace,) = rows(ledger, schema.traces)
    assert (trace["status"], trace["tier"]) == (200, "medium")
    assert {c["tier"]: c["outcome"] for c in rows(ledger, schema.calls)} == {"large": "tier_failed", "medium": "answered"}


def test_a_stream_that_breaks_off_is_counted_up_to_there(ledger):
    router, tiers = plain(large=lambda body: Said("a b c d", dies_after=2))
    with TestClient(Ingress(router, tiers, accounts(ledger), 1_000_000).app()) as client:
        text = post(client, {**CHAT, "stream": True}).text
    assert '"error"' in text and text.endswith("data: [DONE]\n\n")
    (trace,), (call,) = rows(ledger, schema.traces), rows(ledger, schema.calls)
    assert (trace["status"], call["outcome"], call["output_tokens"], call["estimated"]) == (502, "tier_failed", 2, True)


def two_steps(router, request, decided):
    """Ask small, reject, ask large."""

    def flow():
        yield Step((Call("first", "small", "attempt", request.body),))
        yield Step((Call("last", "large", "attempt", request.body, hold=1),), outcomes={"first": "low confidence"})
        return Commit("last", outcomes={"last": "accepted"}, report={"escalations": 1})

    return flow()


@pytest.mark.parametrize("stream", [False, True])
def test_every_call_of_a_flow_is_a_row(ledger, stream):
    config, tiers = ladder(), {name: ScriptedTier(name, words) for name in NAMES}
    app = Ingress(OneFlow(config, two_steps), tiers, accounts(ledger), 1_000_000).app()
    with TestClient(app) as client:
        answer = post(
            client, {**CHAT, "model": "auto", **({"stream": True, "stream_options": {"include_usage": True}} if stream else {})}
        )
    (trace,) = rows(ledger, schema.traces)
    found = {call["id"].split("/")[1]: call for call in rows(ledger, schema.calls)}
    assert {name: call["outcome"] for name, call in found.items()} == {"first": "low confidence", "last": "accepted"}
    assert trace["tier"] == "large" and trace["answer"] == "four five six seven"
    assert trace["cost_usd"] == pytest.approx(sum(call["cost_usd"] for call in found.values())) == pytest.approx(7 * 21e-6)
    text = answer.text
    usage = json.loads(text.split("\n\n")[-3].removeprefix("data: ") if stream else text)["usage"]
    assert usage["stepdown"]["total"]["total_tokens"] == sum(
        call["input_tokens"] + call["output_tokens"] for call in found.values()
    )
    assert usage["stepdown"]["cost_usd"] == pytest.approx(trace["cost_usd"])


@pytest.mark.slow
@pytest.mark.parametrize("flow", [False, True])
def test_a_client_that_leaves_is_written_down_with_what_was_made(ledger, flow):
    slow = {"large": lambda body: Said("a b c d e f g h", token_s=0.2)}
    config = ladder()
    router = OneFlow(config, two_steps) if flow else plain()[0]
    tiers = {name: ScriptedTier(name, slow.get(name, words)) for name in NAMES}
    with serving(router, tiers, accounts(ledger)) as url:
        body = {**CHAT, "model": "auto" if flow else "large", "stream": True}
        with httpx.stream("POST", f"{url}/chat/completions", json=body, timeout=10) as answer:
            for line in answer.iter_lines():
                if '"content": "b' in line:
                    break
        until = time.monotonic() + 5
        while not rows(ledger, schema.traces) and time.monotonic() < until:
            time.sleep(0.05)
    (trace,) = rows(ledger, schema.traces)
    last = next(call for call in rows(ledger, schema.calls) if call["tier"] == "large")
    assert (trace["status"], last["outcome"], last["estimated"]) == (499, "cancelled", True)
    assert 2 <= last["output_tokens"] < 8
    assert tiers["large"].running == 0


def test_no_request_begins_that_could_not_be_written_down(endpoint, ledger, monkeypatch):
    def down():
        raise LedgerDown("told to be down")

    client, tiers = endpoint
    monkeypatch.setattr(ledger, "check", down)
    answer = post(client, CHAT)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert answer.json()["error"]["code"] == "ledger_unavailable"
    assert tiers["large"].bodies == []


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_could_not_be_written_down_is_an_error(endpoint, ledger, monkeypatch, stream):
    async def down(trace, now):
        raise LedgerDown("told to be down")

    client, _ = endpoint
    monkeypatch.setattr(ledger, "record", down)
    answer = post(client, {**CHAT, "stream": stream})
    assert "ledger_unavailable" in answer.text
    assert answer.status_code == (200 if stream else 503)


@pytest.mark.slow
def test_requests_side_by_side_each_leave_their_rows(ledger):
    router, tiers = plain(large=lambda body: Said(asked(body), token_s=0.01))
    with serving(router, tiers, accounts(ledger)) as url:

        async def one(client, i):
            return await client.post(f"{url}/chat/completions", json={**CHAT, "stream": i % 2 == 0}, timeout=30)

        async def many():
            async with httpx.AsyncClient() as client:
                return await asyncio.gather(*(one(client, i) for i in range(40)))

        answers = asyncio.run(many())
    assert {a.headers["x-stepdown-trace-id"] for a in answers} == {t["id"] for t in rows(ledger, schema.traces)}
    assert len(rows(ledger, schema.calls)) == 40
    assert sum(h["calls"] for h in rows(ledger, schema.hourly)) == 40


def test_the_key_that_asked_is_in_every_row(endpoint, ledger):
    client, _ = endpoint
    post(client, CHAT)
    assert {r["key_id"] for t in (schema.traces, schema.calls) for r in rows(ledger, t)} == {"nobody"}


def test_the_cost_page_tells_what_was_asked_and_the_ladder_as_it_is(endpoint):
    client, _ = endpoint
    post(client, CHAT)
    figures, live = client.get("/costs.json").json(), client.get("/costs/live.json").json()
    assert figures["totals"]["cost_usd"] == pytest.approx(7 * 20e-6)
    assert [(t["tier"], t["replicas"], t["running"], t["queue"]) for t in live["tiers"]] == [(n, 1, 0, 0) for n in NAMES]
    assert live["ledger"] == "ok"


@pytest.mark.slow
def test_what_is_under_way_is_seen(ledger):
    router, tiers = plain(large=lambda body: Said("a b c d", token_s=0.1, wait_s=0.3))
    with serving(router, tiers, accounts(ledger)) as url:
        seen = []
        with httpx.stream("POST", f"{url}/chat/completions", json={**CHAT, "stream": True}, timeout=10) as answer:
            for _ in answer.iter_lines():
                live = httpx.get(url.replace("/v1", "/costs/live.json")).json()
                seen.append(next(t for t in live["tiers"] if t["tier"] == "large"))
    assert {(t["running"], t["queue"]) for t in seen} >= {(1, 0)}


def test_the_counterfactual_is_what_was_paid_where_the_top_tier_answered(endpoint, ledger):
    client, _ = endpoint
    post(client, CHAT)
    (trace,) = rows(ledger, schema.traces)
    assert trace["counterfactual_usd"] == pytest.approx(trace["cost_usd"]) and not trace["counterfactual_estimated"]


def test_the_counterfactual_of_a_smaller_tiers_answer_is_the_top_tiers_price(endpoint, ledger):
    client, _ = endpoint
    post(client, {**CHAT, "model": "small"})
    (trace,) = rows(ledger, schema.traces)
    assert trace["counterfactual_usd"] == pytest.approx(20 * trace["cost_usd"]) and trace["counterfactual_estimated"]
