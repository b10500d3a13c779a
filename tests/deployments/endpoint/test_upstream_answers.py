"""A remote tier whose server says anything at all: another tier answers, or the client gets a 502; nobody is billed falsely."""

import asyncio
import contextlib
import json
import uuid

import httpx
import pytest
from live import OneFlow, ladder, serving, stage
from scripted_tier import Said, ScriptedTier
from sqlalchemy import select
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from deployments.app import TIERS
from deployments.endpoint.accounts import Accounts
from deployments.keys.admission import Keys
from deployments.ledger import schema
from deployments.ledger.ledger import Ledger
from router.cascade.flow import Cascade
from router.config import Escalation, RemoteTier
from router.config import Ledger as Settings
from router.engine import Router
from router.types import Accept, GoUp

pytestmark = pytest.mark.slow

CHAT = {"model": "auto", "messages": [{"role": "user", "content": "what is the capital of Colombia"}]}
PRICE = {"usd_per_1m_input": 20, "usd_per_1m_output": 20}
STREAMED = pytest.mark.parametrize("stream", [False, True])


def said(content="Bogota", finish="stop", usage=None) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}
    return json.dumps({"id": "1", "object": "chat.completion", "model": "theirs", "choices": [choice], "usage": usage}).encode()


def chunk(content=None, finish=None, **more) -> bytes:
    choice = {"index": 0, "delta": {} if content is None else {"content": content}, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "1", "model": "theirs", "choices": [choice], **more}).encode() + b"\n\n"


def usage_of(prompt, completion) -> dict:
    return {"prompt_tokens": prompt, "completion_tokens": completion}


class Broken(Exception):
    """The upstream cuts the connection."""


def upstream(*parts: bytes | float, media: str = "text/event-stream", headers=None, status: int = 200) -> str:
    """The address of a server that answers so, waiting where a number stands."""

    async def body():
        for part in parts:
            if isinstance(part, bytes):
                yield part
            else:
                await asyncio.sleep(part)

    async def answer(request):
        return StreamingResponse(body(), status, headers, media)

    name = uuid.uuid4().hex
    stage().apps[name] = Starlette(routes=[Route("/{rest:path}", answer, methods=["POST"])])
    return f"http://127.0.0.1:{stage().port}/{name}"


class Sure:
    """Accepts whatever a tier answered."""

    def next(self, answers):
        return Accept(next(iter(answers))) if answers else GoUp(("large",), "no usable answer")


class Place:
    """An endpoint whose tier `broken` is a remote one with that address, between or above scripted tiers."""

    def __init__(self, url: str, folder, broken: str = "large", mode: str = "", first_token_s: float = 5.0) -> None:
        config = ladder()
        self.ledger = Ledger(Settings(journal_s=0, url=f"sqlite:///{folder / 'ledger.db'}", store="all"))
        self.tiers = {name: ScriptedTier(name, lambda body: Said("from another tier")) for name in config.names}
        settings = RemoteTier(name=broken, engine="remote", context=100_000, price=PRICE, url=url, model="theirs")
        self.tiers[broken] = TIERS["remote"].make(settings, None, first_token_s, None)
        self.router = OneFlow(config, self.cascade) if mode else Router(config, None, dict.fromkeys(config.names, words))
        self.mode = mode
        self.accounts = Accounts(Keys(None, insecure=True), self.ledger, tiers={tier.name: tier for tier in config.tiers})

    def cascade(self, router, request, decided):
        settings = Escalation(mode=self.mode, holdback_tokens=2)
        return Cascade(request.body, router.names, Sure(), settings, request.stream).run(["small"])

    @contextlib.contextmanager
    def client(self):
        with serving(self.router, self.tiers, self.accounts) as url, httpx.Client(base_url=url, timeout=20) as client:
            yield client

    def ask(self, **changes) -> httpx.Response:
        with self.client() as client:
            return client.post("/chat/completions", json=CHAT | changes)

    def rows(self, table) -> list[dict]:
        asyncio.run(self.ledger.settled())
        with self.ledger.engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(select(table))]


def words(text: str) -> int:
    return len(text.split())


def text_of(answer: httpx.Response) -> str:
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return answer.json()["choices"][0]["message"]["content"]
    return "".join(e["choices"][0]["delta"].get("content") or "" for e in events(answer) if e.get("choices"))


def events(answer: httpx.Response) -> list:
    parts = [part.removeprefix("data: ") for part in answer.text.split("\n\n") if part.startswith("data: ")]
    assert parts[-1] == "[DONE]"
    return [json.loads(part) for part in parts[:-1]]


BROKEN = {
    "a page": [b"<html><body>Bad Gateway</body></html>"],
    "nothing": [],
    "null": [b"null"],
    "no choices": [b'{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 5}}'],
    "an error": [b'{"error": {"message": "out of memory"}}'],
    "Latin-1": [said().replace(b"ota", b"ot\xe1")],
    "cut": [said()[:-9]],
    "an error event": [b'data: {"error": {"message": "out of memory"}}\n\ndata: [DONE]\n\n'],
    "only done": [b"data: [DONE]\n\n"],
    "a role only": [chunk(""), b"data: [DONE]\n\n"],
    "half an event": [b'data: {"id": "1", "choi'],
}
ENDLESS = [b"x" * 1_000_000] * 40


@STREAMED
@pytest.mark.parametrize("parts", BROKEN.values(), ids=BROKEN)
def test_the_next_tier_answers_for_one_that_says_nothing_usable(tmp_path, parts, stream):
    place = Place(upstream(*parts), tmp_path)
    answer = place.ask(stream=stream)
    assert (answer.status_code, text_of(answer)) == (200, "from another tier")
    assert answer.headers["x-stepdown-degraded"] == "large tier_failed"
    (trace,) = place.rows(schema.traces)
    assert (trace["status"], trace["tier"]) == (200, answer.headers["x-stepdown-tier"])
    (call,) = [c for c in place.rows(schema.calls) if c["tier"] == "large"]
    assert (call["outcome"], call["cost_usd"]) == ("tier_failed", 0)


@STREAMED
@pytest.mark.parametrize("parts", BROKEN.values(), ids=BROKEN)
def test_without_another_tier_it_is_a_502_with_a_trace_id_and_a_row(tmp_path, parts, stream):
    place = Place(upstream(*parts), tmp_path)
    answer = place.ask(model="large", stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "tier_failed")
    (trace,) = place.rows(schema.traces)
    assert (trace["id"], trace["status"], trace["error"]) == (answer.headers["x-stepdown-trace-id"], 502, "tier_failed")


@STREAMED
def test_an_answer_without_end_is_given_up(tmp_path, stream):
    place = Place(upstream(*ENDLESS), tmp_path)
    assert place.ask(model="large", stream=stream).status_code == 502


@STREAMED
@pytest.mark.parametrize("headers", [{"content-encoding": "gzip"}, {"content-encoding": "br"}, {"content-length": "100000"}])
def test_a_body_that_its_headers_belie_is_the_tiers_failure(tmp_path, headers, stream):
    """content-length: the connection ends before all of it has come."""
    part = said() if "content-length" not in headers else said()[:50]
    place = Place(upstream(part, headers=headers), tmp_path)
    answer = place.ask(stream=stream)
    assert (answer.status_code, text_of(answer)) == (200, "from another tier")


def test_three_broken_answers_open_the_circuit(tmp_path):
    place = Place(upstream(b"<html>"), tmp_path)
    with place.client() as client:
        codes = [client.post("/chat/completions", json=CHAT | {"model": "large"}).json()["error"]["code"] for _ in range(4)]
    assert codes == ["tier_failed"] * 3 + ["tier_unavailable"]


def test_a_document_in_place_of_a_stream_is_streamed_and_billed(tmp_path):
    place = Place(upstream(said(usage=usage_of(6, 3)), media="application/json"), tmp_path)
    answer = place.ask(stream=True)
    assert (text_of(answer), answer.headers["x-stepdown-tier"]) == ("Bogota", "large")
    (call,) = place.rows(schema.calls)
    assert (call["input_tokens"], call["output_tokens"], call["estimated"]) == (6, 3, False)


@pytest.mark.parametrize(
    "rest",
    [[], [b"data: [DONE]\n\n"], [b"<html>\n\n"], [b'data: {"choices": [}\n\n'], [b'data: {"error": {"message": "no"}}\n\n']],
    ids=["nothing", "done", "a page", "a broken event", "an error"],
)
def test_a_stream_that_is_cut_ends_in_an_error_event(tmp_path, rest):
    place = Place(upstream(chunk("Bog"), 0.05, *rest), tmp_path)
    answer = place.ask(stream=True)
    assert answer.status_code == 200
    *said, last = events(answer)
    assert last["error"]["code"] == "tier_failed" and text_of(answer) == "Bog"
    (trace,), (call,) = place.rows(schema.traces), place.rows(schema.calls)
    assert (trace["status"], trace["error"], call["outcome"]) == (502, "tier_failed", "tier_failed")
    assert call["output_tokens"] > 0 and call["cost_usd"] > 0


@pytest.mark.parametrize("parts", [[30.0], [b": waiting\n\n", 0.05] * 200], ids=["silence", "comments"])
@STREAMED
def test_the_limit_of_the_first_token_holds_for_remote_tiers(tmp_path, parts, stream):
    if not stream and len(parts) > 1:
        pytest.skip("a document has no comments")
    place = Place(upstream(*parts), tmp_path, first_token_s=0.3)
    answer = place.ask(stream=stream)
    assert (answer.status_code, text_of(answer)) == (200, "from another tier")
    assert answer.headers["x-stepdown-degraded"].startswith("large tier_")
    assert answer.elapsed.total_seconds() < 10


@pytest.mark.parametrize("mode", ["buffer", "holdback"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "parts", [*BROKEN.values(), [chunk("Bog")], [chunk("Bog"), b"data: [DONE]\n\n"]], ids=[*BROKEN, "a", "b"]
)
def test_in_a_cascade_it_is_no_usable_answer(tmp_path, parts, stream, mode):
    place = Place(upstream(*parts), tmp_path, broken="small", mode=mode)
    answer = place.ask(stream=stream)
    assert (answer.status_code, text_of(answer)) == (200, "from another tier")
    assert {c["tier"]: c["outcome"] for c in place.rows(schema.calls)}["small"] in ("backend failed", "tier_failed")


def test_a_cascade_whose_answer_is_cut_after_it_was_accepted_ends_in_an_error_event(tmp_path):
    parts = [chunk("one "), chunk("two "), chunk("three "), 0.3, b"data: [DONE]\n\n"]
    place = Place(upstream(*parts), tmp_path, broken="small", mode="holdback")
    answer = place.ask(stream=True)
    assert events(answer)[-1]["error"]["code"] == "tier_failed" and text_of(answer) == "one two three "
    (trace,), (call,) = place.rows(schema.traces), place.rows(schema.calls)
    assert (trace["status"], call["outcome"]) == (502, "tier_failed")


FIGURES = {
    "negative": usage_of(-500, -700),
    "absurd": usage_of(10**12, 10**12),
    "true": usage_of(True, True),
    "texts": usage_of("5", "5"),
    "no tokens for text": usage_of(6, 0),
    "a list": [5, 5],
    "more cached than prompt": {**usage_of(6, 3), "prompt_tokens_details": {"cached_tokens": 10**9}},
    "negative cached": {**usage_of(6, 3), "prompt_tokens_details": {"cached_tokens": -(10**9)}},
}


@STREAMED
@pytest.mark.parametrize("mode", ["", "buffer"])
@pytest.mark.parametrize("figures", FIGURES.values(), ids=FIGURES)
def test_no_figure_bends_a_bill(tmp_path, figures, stream, mode):
    parts = [chunk("Bog"), chunk("ota", "stop"), chunk(usage=figures), b"data: [DONE]\n\n"]
    place = Place(upstream(*parts) if stream else upstream(said(usage=figures)), tmp_path, "small" if mode else "large", mode)
    answer = place.ask(stream=stream)
    assert (answer.status_code, text_of(answer)) == (200, "Bogota")
    (trace,), (call,) = place.rows(schema.traces), place.rows(schema.calls)
    assert 0 < call["input_tokens"] <= 100 and 0 <= call["output_tokens"] <= 100
    assert 0 <= call["cached_tokens"] <= call["input_tokens"]
    assert 0 < trace["cost_usd"] < 0.01
    assert call["estimated"] == (figures not in (FIGURES["more cached than prompt"], FIGURES["negative cached"]))
