"""Causes random faults while clients send requests: `python -m benchmarks.chaos --minutes 20 --clients 32`, `make chaos`.

It runs a real `stepdown serve` (two ingress replicas) and breaks something every few seconds: processes are killed with
-9, the ledger is locked, settings files are damaged, clients disconnect, send slowly, flood. Every answer is compared with the
correct one. It prints one JSON line for each fault and check, and a summary last; the exit code is 1 when a check fails.

A server cannot repair a connection that is cut because the process holding it was killed with -9. An OpenAI client then
retries by itself, up to twice, if nothing had arrived yet, and so do these clients. Such cuts, and streams that were cut in the
middle, are counted separately (`cut`), and only within seconds of such a kill; at any other time they count as failures.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import click
import httpx
from sqlalchemy import Engine

from benchmarks.chaos_faults import Faults, kinds_of
from benchmarks.chaos_ladders import LADDERS, Ladder
from benchmarks.cost import rows_once
from benchmarks.cost_load import Seen, tokens_of, usage_of

TRIES, AGAIN_S = 3, 0.5  # as the openai client's defaults
LEAVES = 0.03  # share of the clients that go in the middle


@dataclass
class Told:
    """What came of all requests."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """right, refused, cut, left, failed, wrong"""
    mended: int = 0
    """answered after the client's own retry"""
    codes: Counter[str] = field(default_factory=Counter)
    tiers: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    """the first wrong or failed ones, in words"""
    seen: Seen = field(default_factory=Seen)

    def note(self, outcome: str, code: str, what: str = "") -> None:
        self.outcomes[outcome] += 1
        self.codes[code] += 1
        if outcome in ("wrong", "failed") and len(self.bad) < 20:
            self.bad.append(f"{outcome} {code}: {what[:300]}")


@dataclass
class Clients:
    """All of them, in one event loop."""

    url: str
    ladder: Ladder
    faults: Faults
    chance: random.Random
    told: Told = field(default_factory=Told)

    async def run(self, n: int, until: float) -> None:
        headers = {"authorization": f"Bearer {self.faults.key}"}
        limits = httpx.Limits(max_connections=n, max_keepalive_connections=n)
        async with httpx.AsyncClient(timeout=60, headers=headers, limits=limits) as client:
            await asyncio.gather(*(self.worker(client, until) for _ in range(n)))

    async def worker(self, client: httpx.AsyncClient, until: float) -> None:
        while time.monotonic() < until:
            body = self.ladder.body(self.chance)
            if self.chance.random() < LEAVES:
                await self.leave(client, body)
            else:
                await self.ask(client, body)

    async def leave(self, client: httpx.AsyncClient, body: dict[str, Any]) -> None:
        """Go away before or in the middle of the answer."""
        try:
            async with asyncio.timeout(self.chance.uniform(0.001, 0.3)):
                await client.post(f"{self.url}/chat/completions", json=body)
        except (TimeoutError, httpx.HTTPError):
            pass
        self.told.outcomes["left"] += 1

    async def ask(self, client: httpx.AsyncClient, body: dict[str, Any]) -> None:
        began = time.monotonic()
        for n in range(TRIES):
            outcome, code, what = await self.once(client, body)
            again = outcome == "cut" and code != "mid-stream" or code in ("503", "502", "504", "429")
            if not again or n == TRIES - 1:
                break
            await asyncio.sleep(AGAIN_S * 2**n * self.chance.uniform(0.75, 1.0))
        if outcome == "cut" and not self.faults.explains(began):
            outcome = "failed"
        self.told.mended += n > 0 and outcome == "right"
        self.told.note(outcome, code, what)

    async def once(self, client: httpx.AsyncClient, body: dict[str, Any]) -> tuple[str, str, str]:
        """(outcome, code, what was wrong) of one try."""
        text, status, headers = "", 0, {}
        try:
            async with client.stream("POST", f"{self.url}/chat/completions", json=body) as answer:
                status, headers = answer.status_code, answer.headers
                async for part in answer.aiter_text():
                    text += part
        except httpx.HTTPError as error:
            return "cut", "mid-stream" if text and body["stream"] else type(error).__name__, text[-200:]
        if status != 200:
            return self.refusal(status, text)
        return self.looked_at(body, text, headers)

    def refusal(self, status: int, text: str) -> tuple[str, str, str]:
        """Clean: OpenAI's error body with a status that says to try later. HAProxy's own error pages are cuts."""
        try:
            error = json.loads(text)["error"]
            clean = status in (429, 502, 503, 504) and error["code"] and error["message"]
        except (ValueError, KeyError, TypeError):
            return "cut", f"front {status}", text[:200]
        return ("refused" if clean else "failed"), str(status), text

    def looked_at(self, body: dict[str, Any], text: str, headers: Any) -> tuple[str, str, str]:
        answer, tier, error, whole = read(text, body["stream"])
        self.told.tiers[f"{tier}{' degraded' if 'x-stepdown-degraded' in headers else ''}"] += 1
        right = self.ladder.right(body, tier)
        if error:
            fits = right.startswith(answer)
            return ("refused" if fits and whole else "wrong"), f"in-stream {error}", text[-300:]
        if not whole:
            return ("cut" if right.startswith(answer) else "wrong"), "mid-stream", text[-300:]
        if answer != right or tier not in self.ladder.may(body):
            return "wrong", "answer", f"{tier} said {answer!r} to {body}, expected {right!r}"
        usage = usage_of(text, body["stream"])
        if usage is None or headers.get("x-stepdown-trace-id") is None:
            return "wrong", "no usage", text[-300:]
        self.told.seen.completed[headers["x-stepdown-trace-id"]] = tokens_of(usage)
        return "right", "200", ""


def read(text: str, stream: bool) -> tuple[str, str, str, bool]:
    """(answer, tier, error code, whether its end was there)"""
    if not stream:
        document = json.loads(text)
        return document["choices"][0]["message"]["content"], document["model"], "", True
    events = [part[6:] for part in text.split("\n\n") if part.startswith("data: ")]
    whole, said, tier, error = bool(events) and events[-1] == "[DONE]", "", "", ""
    for data in [json.loads(e) for e in events if e != "[DONE]" and e.endswith("}")]:
        error = error or (data.get("error") or {}).get("code", "")
        tier = data.get("model") or tier
        said += "".join((choice.get("delta") or {}).get("content") or "" for choice in data.get("choices") or [])
    return said, tier, error, whole


def slope(samples: dict[int, list[tuple[float, float]]]) -> dict[str, Any]:
    """Memory of the ingress replica that lived longest: MB each minute, and MB an hour without its first minute."""
    import numpy as np

    if not samples:
        return {"pid": None, "mb": None, "mb_per_hour": None}
    pid, found = max(samples.items(), key=lambda item: item[1][-1][0] - item[1][0][0])
    late = [(t, mb) for t, mb in found if t - found[0][0] > 60] or found
    rise = float(np.polyfit(*zip(*late, strict=True), 1)[0]) * 3600 if len(late) > 2 else 0.0
    minutes = {int((t - found[0][0]) // 60): round(mb, 1) for t, mb in reversed(found)}
    return {
        "pid": pid,
        "seconds": round(late[-1][0] - late[0][0]),
        "mb": round(late[-1][1], 1),
        "mb_per_hour": round(rise, 1),
        "mb_by_minute": list(minutes.values())[::-1],
    }


def hedges(engine: Engine) -> dict[str, int]:
    """Trace -> tokens of the call of its two that was stopped: the client is told of the answer's alone."""
    from sqlalchemy import select

    from deployments.ledger.schema import calls
    from router.trace import HEDGE

    with engine.connect() as connection:
        rows = connection.execute(select(calls.c.id, calls.c.trace_id, calls.c.outcome, calls.c.input_tokens)).all()
    twice = {row.id.removesuffix(HEDGE) for row in rows if row.id.endswith(HEDGE)}
    found: Counter[str] = Counter()
    for row in rows:
        if row.id.removesuffix(HEDGE) in twice and row.outcome not in ("answered", "accepted"):
            found[row.trace_id] += row.input_tokens
    return found


def checks(told: Told, faults: Faults, ladder: Ladder, seconds: float) -> list[dict[str, Any]]:
    counted = {name: told.outcomes[name] for name in ("right", "refused", "cut", "left", "failed", "wrong")}
    judged = counted["right"] + counted["refused"] + counted["failed"] + counted["wrong"]
    served = counted["right"] + counted["refused"]
    memory, engine = slope(faults.memory), ladder.engine()
    hedged = hedges(engine)
    rows = rows_once(engine, Seen({trace: tokens + hedged.get(trace, 0) for trace, tokens in told.seen.completed.items()}))
    engine.dispose()
    flat = memory["mb_per_hour"] is not None and memory["mb_per_hour"] * seconds / 3600 < 30
    never = [name for name in faults.kinds if not faults.done[name]]
    return [
        {
            "check": "availability",
            **counted,
            "mended_by_the_clients_retry": told.mended,
            "codes": dict(told.codes),
            "tiers": dict(told.tiers),
            "requests_a_second": round((judged + counted["cut"]) / seconds, 1),
            "availability": round(served / max(1, judged), 6),
            "availability_with_cuts": round(served / max(1, judged + counted["cut"]), 6),
            "holds": served >= 0.999 * judged and judged > 0,
        },
        {"check": "no wrong or mixed answer", "wrong": counted["wrong"], "examples": told.bad, "holds": counted["wrong"] == 0},
        rows,
        {"check": "memory of the ingress", **memory, "holds": flat},
        {"check": "slow ones are asked twice", "hedged": len(hedged), "holds": bool(hedged) or not faults.done["upstream_slow"]},
        {
            "check": "faults",
            "done": dict(faults.done),
            "never": never,
            "failed": faults.broken,
            "holds": not faults.broken and not never,
        },
    ]


@click.command()
@click.option("--minutes", default=20.0, show_default=True)
@click.option("--clients", default=32, show_default=True)
@click.option("--config", type=click.Choice(sorted(LADDERS)), default="echo", show_default=True)
@click.option("--every", default=6.0, show_default=True, help="Seconds between faults, on average.")
@click.option("--only", default="", help="Names of faults, with commas; all by default.")
@click.option("--seed", default=6, show_default=True)
def main(minutes: float, clients: int, config: str, every: float, only: str, seed: int) -> None:
    lines: list[dict[str, Any]] = []

    def say(line: dict[str, Any]) -> None:
        print(json.dumps(line), flush=True)

    with LADDERS[config]() as ladder, ladder.served() as (url, key):
        faults = Faults(url, key, ladder, random.Random(seed), say, kinds_of(only, ladder))
        asking = Clients(url, ladder, faults, random.Random(seed + 1))
        began = time.monotonic()

        async def run() -> None:
            await ladder.learn(url, key)
            until = time.monotonic() + minutes * 60
            await asyncio.gather(asking.run(clients, until), faults.run(until - 20, every), faults.watch(until))

        asyncio.run(run())
        seconds = time.monotonic() - began
        time.sleep(10)  # rows that wait in a spool
        lines = checks(asking.told, faults, ladder, seconds)
        for line in lines:
            say(line)
    say({"benchmark": "chaos", "config": config, "seconds": round(seconds), "holds": all(line["holds"] for line in lines)})
    sys.exit(0 if all(line["holds"] for line in lines) else 1)


if __name__ == "__main__":
    main()
