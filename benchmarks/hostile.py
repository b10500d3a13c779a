"""One client sends only hostile requests while another sends good ones: `python -m benchmarks.hostile --minutes 10`.

It runs the pocket ladder. First the good client alone for half the time, then both for the whole of it. Prints one JSON line; the
exit code is 1 if a good request failed or the good client's p99 rose by more than `MOST_RATIO`.

Both clients have 8 connections, each of which sends its next request after its last is answered. The hostile one waits `PAUSE_S`
before each, so it sends at most 8 a second, and asks for few tokens: the ladder shares two cores, and any further client who was
answered without a pause would double the good one's times, hostile or not. It goes through `hostile_requests`, each by `auto` and
by name, whole and streamed, and runs in a process of its own, so that what it does does not count as the server's time.
"""

import asyncio
import json
import multiprocessing
import random
import statistics
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import click
import httpx

from benchmarks.chaos_ladders import NAMES, Pocket
from benchmarks.hostile_requests import CHAT, Hostile, all_of_them

CONNECTIONS = 8
PAUSE_S = 1.0  # before each hostile request of a connection
MOST_RATIO = 1.5
WARM_S = 10.0  # good requests that are not measured: the first compile and connect
TIMEOUT_S = 120.0


@dataclass
class Good:
    """What the good client saw."""

    took_s: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def ms(self, percent: int) -> float:
        return round(1e3 * statistics.quantiles(self.took_s, n=100)[percent - 1], 1) if len(self.took_s) > 1 else 0.0


def clients(url: str, key: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    return httpx.AsyncClient(
        base_url=url.removesuffix("/v1"), timeout=TIMEOUT_S, limits=limits, headers={"authorization": f"Bearer {key}"}
    )


async def good(url: str, key: str, seconds: float) -> Good:
    from deployments.pocket.tasks import fresh

    prompts, chance, seen = [task.prompt for task in fresh("single", 200, 7)], random.Random(1), Good()
    until = time.monotonic() + seconds

    async def worker(client: httpx.AsyncClient) -> None:
        while time.monotonic() < until:
            body = {"model": chance.choice(["auto", "auto", "auto", *NAMES]), "stream": chance.random() < 0.5, "temperature": 0}
            began = time.monotonic()
            why = await once(client, {**body, "messages": [{"role": "user", "content": chance.choice(prompts)}]})
            seen.took_s.append(time.monotonic() - began)
            if why:
                seen.failed.append(why)

    async with clients(url, key) as client:
        await asyncio.gather(*(worker(client) for _ in range(CONNECTIONS)))
    return seen


async def once(client: httpx.AsyncClient, body: dict[str, Any]) -> str:
    """What was wrong with the answer; empty: nothing."""
    try:
        answer = await client.post(CHAT, json=body)
    except httpx.HTTPError as error:
        return type(error).__name__
    ended = answer.text.rstrip().endswith("data: [DONE]") and '"error"' not in answer.text
    whole = ended if body["stream"] else "choices" in answer.text
    return "" if answer.status_code == 200 and whole else f"{answer.status_code} {answer.text[-200:]}"


def hostile(url: str, key: str, seconds: float) -> Counter[str]:
    """Hostile answers by status, or by what became of the connection. Runs in a process of its own."""
    return asyncio.run(send_hostile(url, key, seconds))


async def send_hostile(url: str, key: str, seconds: float) -> Counter[str]:
    until, seen, at = time.monotonic() + seconds, Counter[str](), 0
    turns = list(product(("auto", *NAMES), (False, True), all_of_them()))
    random.Random(2).shuffle(turns)  # else all dear ones would come together

    async def worker(client: httpx.AsyncClient) -> None:
        nonlocal at
        while time.monotonic() < until:
            model, stream, request = turns[at % len(turns)]
            at += 1
            if stream and not request.streams:
                continue
            await asyncio.sleep(PAUSE_S)
            status = await sent(client, request, request.sent_as(model, stream))
            seen[status] += 1
            if status.startswith("5"):
                print(f"{status}: {request.name}, {model}, stream: {stream}", file=sys.stderr)

    async with clients(url, key) as client:
        await asyncio.gather(*(worker(client) for _ in range(CONNECTIONS)))
    return seen


async def sent(client: httpx.AsyncClient, request: Hostile, raw: bytes) -> str:
    try:
        headers = {"content-type": "application/json", **request.headers}
        return str((await client.post(request.path, content=raw, headers=headers)).status_code)
    except httpx.HTTPError as error:
        return type(error).__name__


async def both(url: str, key: str, seconds: float) -> tuple[Good, Counter[str]]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        answers = asyncio.get_running_loop().run_in_executor(process, hostile, url, key, seconds)
        return await good(url, key, seconds), await answers


@click.command()
@click.option("--minutes", type=float, default=10.0, show_default=True, help="With the hostile client; half of that without it.")
def main(minutes: float) -> None:
    with Pocket() as ladder, ladder.served() as (url, key):
        asyncio.run(good(url, key, WARM_S))
        click.echo("the ladder is ready", err=True)
        alone = asyncio.run(good(url, key, 30 * minutes))
        click.echo(f"alone: p99 {alone.ms(99)} ms of {len(alone.took_s)} requests", err=True)
        beside, answers = asyncio.run(both(url, key, 60 * minutes))
    ratio = beside.ms(99) / alone.ms(99) if alone.ms(99) else 0.0
    shown = {
        "good": len(alone.took_s) + len(beside.took_s),
        "failed": len(alone.failed) + len(beside.failed),
        "failures": [*alone.failed, *beside.failed][:5],
        "p50_ms": {"alone": alone.ms(50), "beside": beside.ms(50)},
        "p99_ms": {"alone": alone.ms(99), "beside": beside.ms(99)},
        "p99_ratio": round(ratio, 2),
        "hostile": sum(answers.values()),
        "hostile_by_status": dict(sorted(answers.items())),
        "hostile_5xx": sum(n for status, n in answers.items() if status.startswith("5")),
    }
    print(json.dumps(shown))
    sys.exit(int(bool(alone.failed or beside.failed) or ratio > MOST_RATIO))


if __name__ == "__main__":
    main()
