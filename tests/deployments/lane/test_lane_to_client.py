"""A stream from a replica through a lane to a client of a real server: the short way says the same as the long one."""

import asyncio
import contextlib
import json
import threading

import httpx
import pytest
from laid_lanes import Cluster, Handle, one
from live import PRICES, serving
from sqlalchemy import select
from waiting import until

from deployments.endpoint.accounts import Accounts
from deployments.keys.admission import Keys
from deployments.lane import sockets
from deployments.lane.lanes import Lanes
from deployments.ledger import schema
from deployments.ledger.ledger import Ledger
from deployments.relay import client_socket
from deployments.relay.relay import Relay
from deployments.replicas.replica_health import health_of
from deployments.replicas.replica_rank import ReplicaRank
from deployments.tiers.serve_tier import CallPolicy, ServeTier
from router.config import Config
from router.config import Ledger as Settings
from router.engine import Router

pytestmark = pytest.mark.slow
CHAT = {"model": "large", "messages": [{"role": "user", "content": "one two three"}], "stream": True}
WORDS = [f"word{n} " for n in range(30)]
MEASURED = json.dumps({"replica": "r", "busy_s": 0.5, "cached_tokens": 3, "late": {}})


def event(**changes):
    choice = {"index": 0, "delta": {}, "finish_reason": None} | changes.pop("choice", {})
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "large", "choices": [choice]} | changes
    return f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n"


def said():
    """As a vLLM replica says it, its events by themselves."""
    yield 200, event(choice={"delta": {"role": "assistant", "content": ""}}), ""
    for word in WORDS:
        yield 200, event(choice={"delta": {"content": word}}), ""
    yield 200, event(choice={"finish_reason": "stop"}), ""
    usage = {"prompt_tokens": 3, "completion_tokens": len(WORDS), "total_tokens": 3 + len(WORDS)}
    yield 200, event(choices=[], usage=usage), ""
    yield 200, "data: [DONE]\n\n", MEASURED


class Beside:
    """A replica in a thread of its own, as another process would be."""

    def __init__(self) -> None:
        self.loop, self.ended, self.stops_at = asyncio.new_event_loop(), 0, -1
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.cluster = Cluster()
        self.end = asyncio.run_coroutine_threadsafe(self.cluster.start(), self.loop).result(10)
        self.end.answer = self.openai

    async def openai(self, path, raw, call_id="", missed=(), hint=""):
        try:
            for n, item in enumerate(said()):
                yield item
                await asyncio.sleep(60 if n == self.stops_at else 0.005)
        finally:
            self.ended += 1

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.end.close(1.0), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)


@contextlib.contextmanager
def place(folder, monkeypatch):
    """(client, ledger, events that went the short way)."""
    monkeypatch.setattr(sockets.tempfile, "gettempdir", lambda: "/tmp" if len(str(folder)) > 60 else str(folder))
    beside = Beside()
    price = {"usd_per_1m_input": PRICES["large"], "usd_per_1m_output": PRICES["large"]}
    settings = {"name": "large", "engine": "echo", "context": 100_000, "price": price}
    config = Config.model_validate({"tiers": [settings]})
    ledger = Ledger(Settings(journal_s=0, url=f"sqlite:///{folder / 'ledger.db'}"))
    lanes = Lanes("here", lambda: beside.cluster.running, ReplicaRank(health_of("tier-to-client")))
    tier = ServeTier("large", Handle(beside.cluster.replicas[0]), one, CallPolicy(20.0), lanes=lanes)
    tier.handle.replica.items = list(said())
    accounts = Accounts(Keys(None, insecure=True), ledger, tiers={t.name: t for t in config.tiers})
    short = []
    take = Relay.take

    def counted(self, part, changed=None):
        taken = take(self, part, changed)
        short.extend([part] if taken else [])
        return taken

    monkeypatch.setattr(Relay, "take", counted)
    try:
        router = Router(config, None, {"large": lambda text: len(text.split())})
        with serving(router, {"large": tier}, accounts) as url, httpx.Client(base_url=url, timeout=20) as client:
            client.beside = beside
            yield client, ledger, short
    finally:
        beside.close()


def row(ledger):
    """The last call."""
    asyncio.run(ledger.settled())
    with ledger.engine.connect() as connection:
        return [dict(found._mapping) for found in connection.execute(select(schema.calls))][-1]


def events(text):
    """What the client got, without what differs from request to request."""
    found = [part[6:] for part in text.split("\n\n") if part.startswith("data: ")]
    return [part if part == "[DONE]" else {k: v for k, v in json.loads(part).items() if k != "id"} for part in found]


def test_the_short_way_says_and_writes_down_the_same_as_the_long_one(tmp_path, monkeypatch):
    with place(tmp_path, monkeypatch) as (client, ledger, short):
        client.post("/chat/completions", json=CHAT)  # by the handle, while the lane is found
        by_lane = client.post("/chat/completions", json=CHAT)
        first = row(ledger)
        assert len(short) > len(WORDS) / 2
        assert "".join(
            e["choices"][0]["delta"].get("content") or "" for e in events(by_lane.text)[:-1] if e["choices"]
        ) == "".join(WORDS)
        went = len(short)
        monkeypatch.setattr(client_socket, "known_kind", lambda: None)
        by_reader = client.post("/chat/completions", json=CHAT)
        second = row(ledger)
        assert len(short) == went and events(by_reader.text) == events(by_lane.text)
        same = ("output_tokens", "input_tokens", "outcome", "cost_usd", "cached_tokens", "replica")
        assert [first.get(name) for name in same] == [second.get(name) for name in same]
        assert first["output_tokens"] == len(WORDS)


def test_who_leaves_in_the_middle_of_the_short_way_stops_the_replica_and_is_counted(tmp_path, monkeypatch):
    with place(tmp_path, monkeypatch) as (client, ledger, short):
        client.post("/chat/completions", json=CHAT)
        client.beside.stops_at = 12
        with client.stream("POST", "/chat/completions", json=CHAT) as answer:
            for part in answer.iter_text():
                if "word9" in part:
                    break
        found = until(lambda: (last := row(ledger))["outcome"] != "answered" and last)
        assert until(lambda: client.beside.ended) == 1  # the first call went by the handle
        assert short and found["outcome"] == "cancelled" and 5 <= found["output_tokens"] < len(WORDS)
