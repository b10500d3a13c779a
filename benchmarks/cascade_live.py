"""Compares cascade and routing with routing alone on a live ladder.

Run as: python -m benchmarks.cascade_live --url URL --api-key KEY

Every prompt is sent to each tier by name and to `auto`, which judges answers. Routing alone decides before any answer, so at
temperature 0 its result follows from the tiers' own answers: the same artefact decides with `escalation.mode: pre`
at every target, and the answer and its price are those that the chosen tier gave. Prints one JSON line for each.
"""

import argparse
import asyncio
import json
import uuid
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from deployments.cli.demo import spent
from deployments.pocket.tasks import Task, fresh
from deployments.tiers.token_counters import counters
from router.config import Config, load_config
from router.costs.prices import per_token
from router.engine import Router, load_artefact
from router.types import Request

AT_ONCE = 16
TARGETS = ("cheap", "balanced", "quality", *(f"{share:g}" for share in np.linspace(0.5, 0.99, 50).round(3)))


@dataclass(frozen=True, slots=True)
class Asked:
    """One way of asking: (n,) each."""

    right: np.ndarray
    usd: np.ndarray

    def told(self, way: str, large: "Asked") -> dict[str, Any]:
        gap = self.right.astype(float) - large.right
        return {
            "way": way,
            "n": len(self.right),
            "exact_match": round(float(self.right.mean()), 4),
            "minus_large": round(float(gap.mean()), 4),
            "cost_of_large": round(float(self.usd.sum() / large.usd.sum()), 4),
        }


def body_of(task: Task, way: str) -> dict[str, Any]:
    return {"model": way, "messages": [{"role": "user", "content": task.prompt}], "temperature": 0}


async def ask(url: str, key: str, way: str, tasks: list[Task], config: Config) -> Asked:
    """Raises httpx.HTTPError."""
    gate, prices = asyncio.Semaphore(AT_ONCE), {tier.name: per_token(tier) for tier in config.tiers}
    async with httpx.AsyncClient(timeout=300, headers={"authorization": f"Bearer {key}"}) as client:

        async def one(task: Task) -> tuple[bool, float]:
            async with gate:
                new = {"x-session-id": uuid.uuid4().hex}  # else a prompt asked again keeps its tier, like a conversation
                response = await client.post(f"{url}/chat/completions", json=body_of(task, way), headers=new)
            answer = response.raise_for_status().json()
            text = answer["choices"][0]["message"]["content"] or ""
            return text.strip() == task.answer, spent(answer["usage"], prices[answer["model"]])

        found = await asyncio.gather(*map(one, tasks))
    return Asked(np.array([right for right, _ in found]), np.array([usd for _, usd in found]))


def routed(config: Config, tasks: list[Task], tiers: dict[str, Asked], target: str) -> Asked:
    """What routing alone comes to, which gives each prompt to one tier."""
    before = config.model_copy(update={"escalation": config.escalation.model_copy(update={"mode": "pre"})})
    router = Router(before, load_artefact(before), counters(before))
    chosen = [router.decide(Request("chat/completions", body_of(task, f"auto:{target}"))).tier for task in tasks]
    rows = list(enumerate(chosen))
    return Asked(np.array([tiers[tier].right[i] for i, tier in rows]), np.array([tiers[tier].usd[i] for i, tier in rows]))


def main() -> None:
    wanted = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    wanted.add_argument("--url", required=True)
    wanted.add_argument("--api-key", default="")
    wanted.add_argument("--config", default="pocket")
    wanted.add_argument("--n", type=int, default=1000)
    wanted.add_argument("--seed", type=int, default=20261125)
    wanted.add_argument("--targets", nargs="*", default=["cheap", "balanced", "quality"], help="asked live")
    given = wanted.parse_args()
    config, tasks = load_config(given.config), fresh("single", given.n, given.seed)

    def live(way: str) -> Asked:
        return asyncio.run(ask(given.url, given.api_key, way, tasks, config))

    tiers = {name: live(name) for name in config.names}
    large = tiers[config.names[-1]]
    for name, asked in tiers.items():
        print(json.dumps(asked.told(name, large)), flush=True)
    for target in given.targets:
        print(json.dumps(live(f"auto:{target}").told(f"cascade auto:{target}", large)), flush=True)
    for target in TARGETS:
        print(json.dumps(routed(config, tasks, tiers, target).told(f"routing auto:{target}", large)), flush=True)


if __name__ == "__main__":
    main()
