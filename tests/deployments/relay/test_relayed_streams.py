"""Streams that go the short way, over real connections on both sides, beside the same streams going the long way."""

import asyncio
import contextlib
import json
import socket
import time

import httpx
import pytest
from live import PRICES, serving
from raw_upstream import DONE, END, FIRST, HEAD, USAGE, chunked, close, event, reset, upstream
from sqlalchemy import select

from deployments.app import TIERS
from deployments.endpoint.accounts import Accounts
from deployments.keys.admission import Keys
from deployments.ledger import schema
from deployments.ledger.ledger import Ledger
from deployments.relay import client_socket
from deployments.relay.relay import Relay
from deployments.tiers.remote_tier import RemoteTier
from router.config import Config
from router.config import Ledger as Settings
from router.engine import Router

pytestmark = pytest.mark.slow

CHAT = {"model": "auto", "messages": [{"role": "user", "content": "one two three"}], "stream": True}
WORDS = [f"word{i} " for i in range(8)]
TEXT = [chunked(event(word)) for word in WORDS]
POST = b"POST /v1/chat/completions HTTP/%b\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
BEGIN = [HEAD, chunked(FIRST), chunked(event("one ")), 0.05]
"""after it, usual events go the short way"""
END_OF_EVENT = b"\n\n"
FINISH = [chunked(event(finish="stop")), chunked(USAGE), chunked(DONE), END]


def words(text: str) -> int:
    return len(text.split())


class Place:
    """An endpoint with one remote tier at a raw upstream. relayed: events that went the short way."""

    def __init__(self, url, folder, upstream, **sections) -> None:
        self.url, self.upstream = url, upstream
        self.relayed = 0

    def client(self, **more):
        return httpx.Client(base_url=self.url, timeout=20, **more)

    def ask(self, script, **changes) -> httpx.Response:
        self.upstream.script = script
        with self.client() as client:
            path = "/completions" if "prompt" in changes else "/chat/completions"
            base = {k: v for k, v in CHAT.items() if k != "messages" or "prompt" not in changes}
            return client.post(path, json=base | changes)

    def row(self, table=schema.calls) -> dict:
        """The last one."""
        return self.rows(1, table)[-1]

    def rows(self, least: int, table=schema.calls) -> list[dict]:
        """All of them, once there are so many."""
        until = time.monotonic() + 10
        while True:
            asyncio.run(self.ledger.settled())
            with self.ledger.engine.connect() as connection:
                found = [dict(row._mapping) for row in connection.execute(select(table))]
            if len(found) >= least or time.monotonic() > until:
                return found
            time.sleep(0.05)


@contextlib.contextmanager
def place(folder, monkeypatch, store="nothing", server=None, **tier):
    with upstream() as raw:
        price = {"usd_per_1m_input": PRICES["large"], "usd_per_1m_output": PRICES["large"]}
        settings = {
            "name": "large",
            "engine": "remote",
            "context": 100_000,
            "price": price,
            "url": raw.url,
            "model": "theirs",
            **tier,
        }
        config = Config.model_validate({"tiers": [settings], "server": server or {}})
        ledger = Ledger(Settings(journal_s=0, url=f"sqlite:///{folder / 'ledger.db'}", store=store))
        tiers = {t.name: TIERS["remote"].make(t, None, 5.0, None) for t in config.tiers}
        accounts = Accounts(Keys(None, insecure=True), ledger, tiers={t.name: t for t in config.tiers})
        router = Router(config, None, {"large": words})
        with serving(router, tiers, accounts) as url:
            made = Place(url, folder, raw)
            made.ledger = ledger
            take = Relay.take

            def counted(self, part, changed=None):
                taken = take(self, part, changed)
                made.relayed += part.count(END_OF_EVENT) if taken else 0
                return taken

            monkeypatch.setattr(Relay, "take", counted)
            yield made


@pytest.fixture
def here(tmp_path, monkeypatch):
    with place(tmp_path, monkeypatch) as made:
        yield made


@contextlib.contextmanager
def long_way():
    """Everything goes as before: through aiohttp, and through all of uvicorn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client_socket, "known_kind", lambda: None)
        patch.setattr(RemoteTier, "small_client", lambda self: None)
        yield


def slowly(parts, wait_s=0.02):
    return [item for part in parts for item in (part, wait_s)]


def text_of(body: str) -> str:
    events = [json.loads(part[6:]) for part in body.split("\n\n") if part.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for e in events for choice in e.get("choices") or [])


def tokens(row: dict) -> tuple:
    return row["outcome"], row["input_tokens"], row["output_tokens"], row["estimated"]


def test_usual_events_go_the_short_way_and_are_metered_as_ever(here):
    answer = here.ask([*BEGIN, *slowly(TEXT), *FINISH])
    assert here.relayed > 0
    assert text_of(answer.text) == "one " + "".join(WORDS)
    assert answer.text.endswith("data: [DONE]\n\n") and '"model":"large"' in answer.text and "theirs" not in answer.text
    row, trace = here.row(), here.row(schema.traces)
    assert tokens(row) == ("answered", 3, 5, False) and trace["status"] == 200
    assert 0 < row["first_token_s"] < row["took_s"] and trace["first_byte_s"] > 0


@pytest.mark.parametrize("more", [{"usage": None}, {"system_fingerprint": 'a "model":"theirs"'}, {"choices": None}])
def test_fields_that_do_not_change_keep_nothing_from_the_short_way(here, more):
    if more == {"choices": None}:  # log-probabilities and reasoning beside the text
        rest = {"logprobs": None, "finish_reason": None}
        choices = [{"index": 0, "delta": {"content": word, "reasoning": None}, **rest} for word in WORDS]
        parts = [chunked(event(choices=[choice])) for choice in choices]
    else:
        parts = [chunked(event(word, **more)) for word in WORDS]
    answer = here.ask([*BEGIN, *slowly(parts), *FINISH])
    assert here.relayed > 0 and text_of(answer.text) == "one " + "".join(WORDS)


def test_completions_go_the_short_way_too(here):
    def made(text, finish=None):
        return chunked(event(choices=[{"index": 0, "text": text, "finish_reason": finish}]))

    script = [HEAD, made("one "), 0.05, *slowly(map(made, WORDS)), made("", "stop"), chunked(USAGE), chunked(DONE), END]
    answer = here.ask(script, prompt="one two three")
    assert here.relayed > 0 and answer.text.count('"text"') == len(WORDS) + 2
    assert tokens(here.row()) == ("answered", 3, 5, False)


@pytest.mark.parametrize("last", [close, reset, END, chunked(b'data: {"error":{"message":"no"}}\n\n')])
def test_what_went_the_short_way_is_paid_for_where_the_answer_breaks_off(here, last):
    answer = here.ask([*BEGIN, *slowly(TEXT), last, END])
    assert here.relayed > 0
    assert text_of(answer.text) == "one " + "".join(WORDS) and '"code": "tier_failed"' in answer.text
    trace = here.row(schema.traces)
    assert (trace["status"], trace["error"]) == (502, "tier_failed")
    assert tokens(here.row()) == ("tier_failed", 3, 1 + len(WORDS), True) and here.row()["cost_usd"] > 0


def test_a_client_that_leaves_pays_for_the_pieces_it_got(here):
    here.upstream.script = [*BEGIN, *slowly(TEXT), *[chunked(event("more ")), 0.02] * 500]
    with here.client() as client, client.stream("POST", "/chat/completions", json=CHAT) as answer:
        seen = ""
        for text in answer.iter_text():
            seen += text
            if "word7" in seen:
                break
    assert here.upstream.left.wait(10)
    assert here.relayed > 0
    assert len(here.rows(1)) == 1
    outcome, prompt, completion, estimated = tokens(here.row())
    assert (outcome, prompt, estimated) == ("cancelled", 3, True) and 1 + len(WORDS) <= completion < 100
    assert here.row(schema.traces)["status"] == 499


def test_the_upstream_waits_for_a_client_that_does_not_read(here):
    sent = []
    block = chunked(event("x" * 20_000))
    counting = [item for _ in range(1_000) for item in (block, lambda: sent.append(1))]
    here.upstream.script = [*BEGIN, *slowly(TEXT), *counting, *FINISH]
    host, _, port = here.url.split("/")[2].partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        raw = json.dumps(CHAT).encode()
        client.sendall(POST % (b"1.1", len(raw)) + raw)
        first, before = 0, -1
        while first != before:
            time.sleep(1.0)
            first, before = len(sent), first
        assert 0 < first < 900  # of 20 MB; what is under way fills the sockets' buffers
        got = b""
        while not got.endswith(b"0\r\n\r\n"):
            got += client.recv(1_000_000)
    assert got.count(b"x" * 20_000) == 1_000 and here.relayed > 0
    assert tokens(here.row()) == ("answered", 3, 5, False)


def test_the_deadline_ends_a_stream_on_the_short_way(tmp_path, monkeypatch):
    with place(tmp_path, monkeypatch, server={"request_timeout_s": 1.2}) as here:
        began = time.monotonic()
        answer = here.ask([*BEGIN, *[chunked(event("more ")), 0.05] * 200])
        assert time.monotonic() - began > 1.1
        assert '"code": "deadline_exceeded"' in answer.text and here.relayed > 0
        assert here.upstream.left.wait(10)
        outcome, _, completion, estimated = tokens(here.row())
        assert estimated and 1 < completion < 40 and outcome == "cancelled"


def test_a_tier_is_silent_from_its_last_word_on_the_short_way_on(tmp_path, monkeypatch):
    with place(tmp_path, monkeypatch, server={"stream_idle_s": 1.0}) as here:
        began = time.monotonic()
        answer = here.ask([*BEGIN, *[chunked(event("more ")), 0.1] * 15, 10.0])
        assert time.monotonic() - began > 1.5 + 1.0  # it spoke for longer than it may be silent
        assert answer.text.count('"more ') == 15 and "tier_silent" in answer.text and here.relayed > 0
        assert here.row()["output_tokens"] == 16


def test_the_replica_that_was_asked_second_and_answers_first_is_relayed(tmp_path, monkeypatch):
    with place(tmp_path, monkeypatch, hedge_after_s=0.2) as here:
        here.upstream.first = [[5.0]]  # the replica asked first says nothing
        answer = here.ask([*BEGIN, *slowly(TEXT), *FINISH])
        assert here.relayed > 0 and text_of(answer.text) == "one " + "".join(WORDS)
        told = {row["id"].partition("/")[2]: tokens(row) for row in here.rows(2)}
        assert told == {"final": ("cancelled", 3, 0, True), "final-hedge": ("answered", 3, 5, False)}


def spoken(delta: dict) -> list:
    choices = [{"index": 0, "delta": delta, "finish_reason": None}]
    return [*BEGIN, *slowly([chunked(event(choices=choices))] * 8), *FINISH]


CALLED = {"tool_calls": [{"index": 0, "function": {"arguments": "x"}}]}
LONG = {
    "kept": {"store": "all"},
    "renamed": {"server": {"reasoning": "hide"}},
    "thoughts in the text": {"reasoning": {}},
    "several": {},
    "another protocol": {},
    "old HTTP": {},
    "a tool": {},
    "reasoning": {},
}


@pytest.mark.parametrize("how", LONG)
def test_what_is_kept_changed_or_written_otherwise_goes_the_long_way(tmp_path, monkeypatch, how):
    with place(tmp_path, monkeypatch, **LONG[how]) as here:
        here.upstream.script = parts = [*BEGIN, *slowly(TEXT), *FINISH]
        if how == "another protocol":
            with here.client() as client:
                answer = client.post("/responses", json={"model": "auto", "input": "one", "stream": True})
        elif how == "old HTTP":
            answer = httpx.Response(200, content=asked_plainly(here).partition(b"\r\n\r\n")[2])
            assert b"\r\n" not in answer.content
        elif how in ("a tool", "reasoning"):
            answer = here.ask(spoken(CALLED if how == "a tool" else {"reasoning": "word"}))
            assert answer.text.count('"x"' if how == "a tool" else '"word"') == 8
        else:
            answer = here.ask(parts, **({"n": 2} if how == "several" else {}))
        assert answer.status_code == 200 and here.relayed == 0
        assert how in ("a tool", "reasoning") or all(word.strip() in answer.text for word in WORDS)


def asked_plainly(here) -> bytes:
    host, _, port = here.url.split("/")[2].partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        raw, got = json.dumps(CHAT).encode(), b""
        client.sendall(POST % (b"1.0", len(raw)) + raw)
        while more := client.recv(100_000):
            got += more
    return got
