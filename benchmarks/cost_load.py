"""Mixed requests at full speed while processes are killed: the load that benchmarks/cost.py checks afterwards."""

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
from postgres import Postgres

PREAMBLE = "Add the numbers and say the sum. " * 9  # more than a block of the prefix cache, and within every window
KINDS = ("single", "single", "single", "composite", "chain")
WAYS = ("auto", "auto", "auto", "auto:cheap", "auto:quality", "large")
INGRESS, REPLICA, DATABASE = "ingress", "replica", "database"
VICTIMS = (INGRESS, REPLICA, DATABASE, INGRESS, REPLICA)


@dataclass
class Seen:
    """What the clients saw."""

    completed: dict[str, int] = field(default_factory=dict)
    """trace id -> total tokens of the response's usage"""
    usd: dict[str, float] = field(default_factory=dict)
    """trace id -> what the response said it cost, where it did"""
    failed: Counter[str] = field(default_factory=Counter)


def bodies(n: int, seed: int) -> list[dict[str, Any]]:
    from deployments.pocket.tasks import fresh

    chance = random.Random(seed)
    kinds = [chance.choice(KINDS) for _ in range(n)]
    prompts = {kind: iter(fresh(kind, kinds.count(kind), seed)) for kind in set(kinds)}  # type: ignore[arg-type]
    return [body(next(prompts[kind]).prompt, chance) for kind in kinds]


def body(prompt: str, chance: random.Random) -> dict[str, Any]:
    """One in twenty begins like others do, for the prefix cache; it goes to a tier by name, since it makes no sense."""
    common = chance.random() < 0.05
    return {
        "model": "medium" if common else chance.choice(WAYS),
        "messages": [{"role": "user", "content": (PREAMBLE if common else "") + prompt}],
        "temperature": 0,
        **({"stream": True, "stream_options": {"include_usage": True}} if chance.random() < 0.5 else {"stream": False}),
    }


async def ask(client: httpx.AsyncClient, url: str, key: str, body: dict[str, Any], seen: Seen) -> None:
    """One request; a response counts as completed when its end was there and said no error."""
    try:
        headers = {"authorization": f"Bearer {key}"}
        async with client.stream("POST", f"{url}/chat/completions", json=body, headers=headers) as answer:
            text = (await answer.aread()).decode()
    except httpx.HTTPError as error:
        seen.failed[type(error).__name__] += 1
        return
    usage = usage_of(text, body["stream"]) if answer.status_code == 200 else None
    if usage is None:
        seen.failed[f"{answer.status_code} {said(text)}"] += 1
        return
    trace = answer.headers["x-stepdown-trace-id"]
    seen.completed[trace] = tokens_of(usage)
    if "stepdown" in usage:
        seen.usd[trace] = usage["stepdown"]["cost_usd"]


def said(text: str) -> str:
    """The code of our error, or how somebody else's begins: Ray's and HAProxy's are not JSON."""
    found = re.search(r'"code": ?"(\w+)"', text)
    return found[1] if found else text[:60]


def tokens_of(usage: dict[str, Any]) -> int:
    """Tokens of all calls of the request."""
    return int(usage.get("stepdown", {}).get("total", usage)["total_tokens"])


def usage_of(text: str, stream: bool) -> dict[str, Any] | None:
    """None: it did not come to its end, or the end is an error."""
    if not stream:
        return dict(json.loads(text)["usage"])
    parts = [part.removeprefix("data: ") for part in text.split("\n\n") if part.startswith("data: ")]
    if not parts or parts[-1] != "[DONE]" or '"error"' in parts[-2][:12]:
        return None
    return json.loads(parts[-2]).get("usage") or None


async def load(url: str, keys: list[str], asked: list[dict[str, Any]], at_once: int, seen: Seen, progress: list[int]) -> None:
    queue = list(reversed(asked))
    async with httpx.AsyncClient(timeout=180) as client:

        async def worker(key: str) -> None:
            while queue:
                failed = seen.failed.total()
                await ask(client, url, key, queue.pop(), seen)
                progress[0] += 1
                if seen.failed.total() > failed:  # the run is not to be over before what was killed is back
                    await asyncio.sleep(0.5)

        await asyncio.gather(*(worker(keys[n % len(keys)]) for n in range(at_once)))


def budgeted(address: str) -> str:
    """A key of the ledger there, with a budget that is not met."""
    from deployments.keys import key_store
    from router.config import Ledger
    from router.limits.key_limits import Key

    engine = key_store.open_key_store(Ledger(url=address))
    _, secret = key_store.create(engine, Key("", "budgeted", usd_per_day=100.0), time.time())
    engine.dispose()
    return secret


# -- killing ---------------------------------------------------------------------------------------------------------------


def pids(words: str) -> list[int]:
    found = subprocess.run(["pgrep", "-f", words], capture_output=True, text=True).stdout.split()
    return [int(pid) for pid in found if int(pid) != os.getpid()]


def kill(victim: str, database: Postgres, chance: random.Random) -> str:
    """kill -9; a database is started again after two seconds, the rest is Ray's to start again."""
    if victim == DATABASE:
        os.kill(int((database.folder / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        time.sleep(3)  # its children notice by themselves
        database.start()
        return "postgresql"
    name = "ingress" if victim == INGRESS else f"tier-{chance.choice(['small', 'medium'])}"
    killed = pids(f"^ray::ServeReplica:stepdown:{name}") or pids(f"ServeReplica:stepdown:{name}")
    for pid in killed[:1]:
        os.kill(pid, signal.SIGKILL)
    return f"{name}{'' if killed else ' (not found)'}"


async def killing(database: Postgres, progress: list[int], total: int, kills: int, seed: int) -> list[str]:
    """At random places of the run."""
    chance = random.Random(seed)
    places = sorted(chance.sample(range(total // 10, total * 9 // 10), kills))
    done = []
    for place, victim in zip(places, VICTIMS, strict=False):
        while progress[0] < place:
            await asyncio.sleep(0.05)
        done.append(await asyncio.to_thread(kill, victim, database, chance))
    return done
