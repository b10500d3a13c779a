"""Clients that leave, on the pocket ladder, with openai's client as it is: one second later nothing goes on, neither in
the ingress nor in an engine, in whichever way they asked and whatever flow was answering."""

import asyncio
import json
import os
import random
import sqlite3
import time
from contextlib import suppress

import httpx
import openai
import psutil
import pytest
import waiting

from benchmarks.chaos_faults import below
from deployments.ledger.database import state_folder
from deployments.pocket.tasks import fresh

pytestmark = pytest.mark.ladder
WAYS = ["whole", "streamed", "stream()", "sync", "sync, streamed"]
CLIENTS = 16
LATER_S = 1.0
LOOK_S = 1.0
IDLE = 0.25  # processor seconds of all engines in LOOK_S: idle ones take 0.06, one that generates takes all of it
LONG = {"max_tokens": 400, "extra_body": {"ignore_eos": True}}
SINGLE = [task.prompt for task in fresh("single", 60, seed=5151)]
COMPOSITE = [task.prompt for task in fresh("composite", 60, seed=5151)]
ASKED = {
    "a plain call": ("large", SINGLE, LONG),
    "a cascade": ("auto", SINGLE, {}),
    "a delegation": ("auto", COMPOSITE, {}),
    "a delegation by a tool": ("auto", COMPOSITE, {"tools": [{"type": "stepdown:delegate"}]}),
}


class Leaving:
    """Clients that ask and are gone after a time drawn by chance."""

    def __init__(self, url, key, seed):
        self.url, self.key, self.random = url, key, random.Random(seed)

    async def leave(self, way, model, prompts, more):
        """Ask once; leave after 0 to 0.8 s, whatever has come by then."""
        body = {"model": model, "messages": [{"role": "user", "content": self.random.choice(prompts)}], "temperature": 0, **more}
        if way.startswith("sync"):
            await asyncio.to_thread(self.leave_sync, body, way == "sync, streamed")
            return
        client = openai.AsyncOpenAI(base_url=self.url, api_key=self.key, max_retries=0, timeout=60)
        with suppress(TimeoutError, openai.APIConnectionError):
            async with asyncio.timeout(self.random.uniform(0.0, 0.8)):
                await WAYS_OF[way](client, body)
        await client.close()  # its connections with it: this is what leaving is

    def leave_sync(self, body, stream):
        """A client that waits no longer for its answer, or stops reading a stream after some chunks."""
        wait = httpx.Timeout(30, read=self.random.uniform(0.01, 0.8))
        own = openai.OpenAI(base_url=self.url, api_key=self.key, max_retries=0, timeout=wait)
        with own, suppress(openai.APITimeoutError, httpx.ReadTimeout):
            answer = own.chat.completions.create(**body, stream=stream)
            for _ in range(self.random.randrange(30)) if stream else ():
                next(answer, None)

    async def all(self, way, asked):
        await asyncio.gather(*(self.leave(way, *asked) for _ in range(CLIENTS)))


async def whole(client, body):
    await client.chat.completions.create(**body)


async def streamed(client, body):
    async for _ in await client.chat.completions.create(**body, stream=True):
        pass


async def helper(client, body):
    tools = body.pop("tools", None)  # the helper takes none that is not a function
    body["extra_body"] = {**body.get("extra_body", {}), **({"tools": tools} if tools else {})}
    with suppress(openai.LengthFinishReasonError):
        async with client.chat.completions.stream(**body) as stream:
            async for _ in stream:
                pass


WAYS_OF = {"whole": whole, "streamed": streamed, "stream()": helper}


def under_way(url, key) -> int:
    """Calls that the ingress has in a tier or is about to have."""
    told = httpx.get(url.removesuffix("/v1") + "/costs/live.json", headers={"authorization": f"Bearer {key}"}).json()
    return sum(tier["running"] + tier["queue"] for tier in told["tiers"])


def engines() -> list[psutil.Process]:
    return [psutil.Process(pid) for pid in below(os.getpid(), "VLLM::EngineCore")]


def computed() -> float:
    """Seconds of processor time of all engines since they began."""
    times = [engine.cpu_times() for engine in engines()]
    return sum(t.user + t.system for t in times)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("asked", ASKED)
def test_one_second_after_clients_have_left_nothing_goes_on(ladder, way, asked):
    url, key = ladder
    assert engines(), "the engines are not seen: the test could not fail"
    for round_ in range(3):
        asyncio.run(Leaving(url, key, f"{way} {asked} {round_}").all(way, ASKED[asked]))
        time.sleep(LATER_S)
        assert under_way(url, key) == 0, f"round {round_}"
        before = computed()
        time.sleep(LOOK_S)
        assert computed() - before < IDLE, f"round {round_}: an engine goes on"


def test_calls_go_straight_to_the_one_replica_of_a_tier(ladder):
    """What was left above was left on lanes (deployments/lane/client.py), not on Serve's handles."""
    url, key = ladder
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
        for model in ("small", "medium", "large"):
            client.chat.completions.create(model=model, messages=[{"role": "user", "content": SINGLE[0]}], max_tokens=1)
    at = [c.laddr for c in psutil.net_connections("unix") if f"/stepdown-{os.getuid()}/" in (c.laddr or "")]
    assert len(set(at)) == 3 and len(at) >= 6, at  # each listens, and has at least one connection


def test_an_engine_that_goes_on_would_be_seen(ladder):
    """What the test above rests on: a call under way is counted, and its engine's time shows."""
    url, key = ladder
    body = {"model": "large", "messages": [{"role": "user", "content": SINGLE[0]}], **LONG}
    seen: list[tuple[int, float]] = []

    def shows(busy: int, took: float) -> bool:
        return 1 <= busy <= 4 and took > IDLE

    async def look():
        looked = asyncio.Event()

        async def ask_until_looked(client):
            while not looked.is_set():  # on a fast machine one answer of 400 tokens ends before the engine was looked at
                await client.chat.completions.create(**body)

        async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0) as client:
            calls = [asyncio.create_task(ask_until_looked(client)) for _ in range(4)]
            while len(seen) < 10 and not (seen and shows(*seen[-1])):
                before = await asyncio.to_thread(computed)
                await asyncio.sleep(LOOK_S)
                took = await asyncio.to_thread(computed) - before
                seen.append((await asyncio.to_thread(under_way, url, key), took))
            looked.set()
            await asyncio.gather(*calls)

    asyncio.run(look())
    assert shows(*seen[-1]), seen


def test_what_was_made_for_clients_that_left_is_written_down_once(ladder):
    """Each request that the ingress saw has its trace, with status 499 or 200, and each call its row."""
    url, key = ladder

    def written() -> list[tuple[str, int, int]]:
        with sqlite3.connect(state_folder() / "ledger.db", timeout=30) as ledger:
            rows = "SELECT status, count(*), count(DISTINCT id) FROM traces GROUP BY status"
            return list(ledger.execute(rows))

    before = {status: n for status, n, _ in written()}
    asyncio.run(Leaving(url, key, "rows").all("streamed", ASKED["a plain call"]))
    left = waiting.until(lambda: {s: n for s, n, _ in written() if n > before.get(s, 0)}, 20)
    assert set(left) <= {200, 499} and all(n == distinct for _, n, distinct in written())
    with sqlite3.connect(state_folder() / "ledger.db", timeout=30) as ledger:
        (orphans,) = ledger.execute("SELECT count(*) FROM calls WHERE trace_id NOT IN (SELECT id FROM traces)").fetchone()
    assert orphans == 0, json.dumps(left)
