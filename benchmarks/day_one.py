"""Day one: a ladder without a router and without a graded row learns from what it serves until it saves by itself.

Run as: python -m benchmarks.day_one [--prompts 2000] [--graded 500]

Serves the pocket ladder without an artefact, with `learning.start: auto`, and sends fresh single prompts as a client would: in
bursts, with idle time between, in which the server asks the other tiers and grades. The server then trains, certifies, shadows
and promotes by itself. Once it has promoted, further prompts are sent to `auto` and to `large` and graded by exact match; they
say `store: false`, so nothing is learned from them. Prints one JSON line. Exit code 1: nothing was promoted in time.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from deployments.cli.demo import spent
from deployments.pocket.tasks import Task, fresh
from deployments.serve.background import served
from router.config import Config, load_config
from router.costs.prices import per_token

SEED = 20261201
AT_ONCE = 4
LOOK_S = 2.0
SECTIONS: dict[str, Any] = {
    "learning": {"collect": "consented", "start": "auto", "own_key": "all", "fill_share": 1.0, "fill_usd_day": 100.0},
    "flywheel": {"margin": 0.02, "canary_s": 0.0, "canary_requests": 100, "canary_share": 0.5, "promote": "auto"},
}


def configured(folder: Path, target: str) -> Path:
    """The pocket ladder's file, without its artefact and with learning on."""
    settings = load_config("pocket").model_dump(mode="json", exclude_defaults=True)
    settings |= SECTIONS | {
        "routing": {"target": target},
        "escalation": {"mode": "buffer"},
        "delegation": {"mode": "off"},
        "ledger": {"url": f"sqlite:///{folder / 'ledger.db'}"},
    }
    file = folder / "day_one.yaml"
    file.write_text(yaml.safe_dump(Config.model_validate(settings).model_dump(mode="json", exclude_defaults=True)))
    return file


@dataclass
class Watched:
    """What the status page said of learning, as it changed."""

    began: float = field(default_factory=time.monotonic)
    stages: list[list[Any]] = field(default_factory=list)
    """[seconds since the start, stage]"""
    counts: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self.began, 1)

    def take(self, status: dict[str, Any]) -> None:
        self.last = status.get("learning") or {}
        self.counts = self.last.get("counts") or self.counts
        stage = (self.last.get("run") or {}).get("stage") or "collecting"
        if not self.stages or self.stages[-1][1] != stage:
            self.stages.append([self.seconds, stage])
            print(f"{self.seconds:7.0f} s  {stage}  {json.dumps(self.last.get('progress'))[:300]}", file=sys.stderr)

    @property
    def promoted(self) -> bool:
        return "promoted" in (self.last.get("bundles") or {})

    @property
    def waiting(self) -> int:
        return int(self.counts.get("waiting") or 0)


class Client:
    """Sends prompts to one endpoint. url: up to /v1."""

    def __init__(self, http: httpx.AsyncClient, url: str, config: Config) -> None:
        self.http, self.url = http, url
        self.prices = {tier.name: per_token(tier) for tier in config.tiers}
        self.failed = 0

    async def ask(self, task: Task, model: str, **more: Any) -> tuple[bool, float, str]:
        """(whether the answer is right, USD, what is promised of it). A failed request is wrong and costs nothing."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": task.prompt}],
            "temperature": 0,
            "max_tokens": 64,
            **more,
        }
        reply = await self.http.post(f"{self.url}/chat/completions", json=body, headers={"x-session-id": uuid.uuid4().hex})
        if reply.status_code != 200:
            self.failed += 1
            return False, 0.0, "failed"
        answer = reply.json()
        text = answer["choices"][0]["message"]["content"] or ""
        usd = spent(answer["usage"], self.prices[answer["model"]])
        return text.strip() == task.answer, usd, reply.headers.get("x-stepdown-certificate", "none")

    async def all(self, tasks: list[Task], model: str, **more: Any) -> list[tuple[bool, float, str]]:
        """AT_ONCE at a time."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(task: Task) -> tuple[bool, float, str]:
            async with gate:
                return await self.ask(task, model, **more)

        return list(await asyncio.gather(*map(one, tasks)))

    async def status(self) -> dict[str, Any]:
        reply = await self.http.get(f"{self.url}/status")
        return dict(reply.raise_for_status().json())


async def learned(client: Client, tasks: list[Task], options: argparse.Namespace, watched: Watched) -> list[float]:
    """Send the prompts in bursts, with idle time between, and wait for the promotion. Returns the USD of each answer."""
    paid: list[float] = []
    for start in range(0, len(tasks), options.burst):
        paid += [usd for _, usd, _ in await client.all(tasks[start : start + options.burst], "auto")]
        await asyncio.sleep(options.idle)
        watched.take(await client.status())
        while watched.waiting > options.behind and not watched.promoted:  # a real client leaves nights and weekends
            await asyncio.sleep(LOOK_S)
            watched.take(await client.status())
    until = time.monotonic() + options.patience
    while not watched.promoted and time.monotonic() < until:
        await asyncio.sleep(LOOK_S)
        watched.take(await client.status())
    return paid


def share(values: list[bool]) -> float:
    return round(sum(values) / max(1, len(values)), 4)


async def measured(url: str, key: str, options: argparse.Namespace) -> dict[str, Any]:
    """The whole benchmark against a served ladder."""
    config, watched = load_config("pocket"), Watched()
    tasks = fresh("single", options.prompts + options.graded, options.seed)
    async with httpx.AsyncClient(timeout=300, headers={"authorization": f"Bearer {key}"}) as http:
        client = Client(http, url, config)
        paid = await learned(client, tasks[: options.prompts], options, watched)
        ready = watched.seconds
        await asyncio.sleep(2 * LOOK_S)  # every ingress reads its bundles within two seconds
        auto, large = [await client.all(tasks[options.prompts :], way, store=False) for way in ("auto", "large")]
        watched.take(await client.status())
        status = await client.status()
    cost = {way: sum(usd for _, usd, _ in found) for way, found in (("auto", auto), ("large", large))}
    right = {way: share([ok for ok, _, _ in found]) for way, found in (("auto", auto), ("large", large))}
    states = [state for _, _, state in auto]
    return {
        "benchmark": "day_one",
        "prompts": options.prompts,
        "graded": options.graded,
        "promoted": watched.promoted,
        "exact_match": right,
        "of_large": round(right["auto"] / right["large"], 4) if right["large"] else None,
        "cost_ratio": round(cost["auto"] / cost["large"], 4) if cost["large"] else None,
        "certificate": {state: states.count(state) for state in dict.fromkeys(states)},
        "certificates": {name: found.get("state") for name, found in (status.get("certificates") or {}).items()},
        "usd": {
            "collected": round(sum(paid), 9),
            "fill": watched.counts.get("fill_usd"),
            "judge": watched.counts.get("judge_usd"),
            "saved_a_request": round((cost["large"] - cost["auto"]) / max(1, options.graded), 12),
        },
        "counts": watched.counts,
        "seconds": {"until_promoted": ready, "all": watched.seconds},
        "stages": watched.stages,
        "failed": client.failed,
    }


def with_own_ladder(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="stepdown-day-one-") as folder:
        file = configured(Path(folder), options.target)
        with served(str(file), timeout_s=900) as (url, key):
            return asyncio.run(measured(url, key, options))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, default=2000, help="sent before the graded ones")
    parser.add_argument("--graded", type=int, default=500)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--target", default="balanced", help="what auto means")
    parser.add_argument("--burst", type=int, default=40, help="prompts between two idle times")
    parser.add_argument("--idle", type=float, default=3.0, help="least seconds of an idle time")
    parser.add_argument(
        "--behind", type=int, default=80, help="an idle time lasts until no more requests than these wait for filling in"
    )
    parser.add_argument("--patience", type=float, default=900.0, help="seconds to wait for the promotion after the last prompt")
    parser.add_argument("--url", help="a ladder that runs, up to /v1  [default: the pocket ladder is started]")
    parser.add_argument("--api-key", default="")
    options = parser.parse_args()
    found = asyncio.run(measured(options.url, options.api_key, options)) if options.url else with_own_ladder(options)
    print(json.dumps(found))
    sys.exit(0 if found["promoted"] else 1)


if __name__ == "__main__":
    main()
