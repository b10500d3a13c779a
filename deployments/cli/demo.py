"""stepdown demo: fresh graded prompts through a live ladder; what routing kept and what it saved."""

import asyncio
import json
import uuid
from dataclasses import dataclass
from typing import Any

import click

from router.costs.prices import per_token, token_cost_usd
from router.types import Usage


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one way of asking came to, over all prompts."""

    way: str
    right: float
    """share of exact matches, 0 to 1"""
    usd: float
    """tokens times list price"""
    tiers: dict[str, int]
    """answers by tier"""
    delegated: int = 0
    """answers put together from subtasks"""


@click.command()
@click.option("--url", default=None, help="A running endpoint, up to /v1; by default the demo starts the pocket ladder itself.")
@click.option("--api-key", envvar="STEPDOWN_API_KEY", default=None, help="Its key.")
@click.option("--config", default="pocket", show_default=True, help="The ladder, for its tiers and prices.")
@click.option("--kind", type=click.Choice(["single", "composite", "chain"]), default="single", show_default=True)
@click.option("--n", default=500, show_default=True, help="Fresh prompts.")
@click.option("--seed", default=20261124, show_default=True, help="Another seed, other prompts.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line a row.")
def demo(url: str | None, api_key: str | None, config: str, kind: str, n: int, seed: int, as_json: bool) -> None:
    """Ask a live ladder N fresh prompts: with auto and with each tier alone; compare exact match and cost."""
    from router.config import load_config

    if url:
        outcomes = measure(url, api_key or "", load_config(config), kind, n, seed)
    else:
        outcomes = with_own_server(load_config(config), config, kind, n, seed)
    for outcome in outcomes:
        click.echo(json.dumps(row(outcome, outcomes[-1])) if as_json else line(outcome, outcomes[-1]))


def with_own_server(loaded: Any, config: str, kind: str, n: int, seed: int) -> list[Outcome]:
    """Start `stepdown serve`, measure, stop it."""
    from deployments.serve.background import served

    with served(config) as (url, key):
        return measure(url, key, loaded, kind, n, seed)


def measure(url: str, key: str, config: Any, kind: str, n: int, seed: int) -> list[Outcome]:
    """The large tier comes last: it is what the others are compared with."""
    from deployments.pocket.tasks import fresh

    tasks = fresh(kind, n, seed)  # type: ignore[arg-type]
    ways = ["auto:cheap", "auto", "auto:quality", *config.names]
    return [asyncio.run(ask_all(url, key, way, tasks, config)) for way in ways]


async def ask_all(url: str, key: str, way: str, tasks: list[Any], config: Any, at_once: int = 16) -> Outcome:
    import httpx

    prices = {tier.name: per_token(tier) for tier in config.tiers}
    gate = asyncio.Semaphore(at_once)
    right, usd, delegated, tiers = 0, 0.0, 0, dict.fromkeys(config.names, 0)
    async with httpx.AsyncClient(timeout=120, headers={"authorization": f"Bearer {key}"}) as client:

        async def ask(task: Any) -> None:
            nonlocal right, usd, delegated
            body = {"model": way, "messages": [{"role": "user", "content": task.prompt}], "temperature": 0}
            async with gate:
                new = {"x-session-id": uuid.uuid4().hex}  # else a prompt asked again keeps its tier, like a conversation
                response = await client.post(f"{url}/chat/completions", json=body, headers=new)
            response.raise_for_status()
            answer = response.json()
            right += (answer["choices"][0]["message"]["content"] or "").strip() == task.answer
            usd += spent(answer["usage"], prices[answer["model"]])
            delegated += (answer["usage"].get("stepdown") or {}).get("delegation") in ("done", "partial")
            tiers[answer["model"]] += 1

        await asyncio.gather(*map(ask, tasks))
    return Outcome(way, right / len(tasks), usd, tiers, delegated)


def spent(usage: dict[str, Any], prices: tuple[float, float]) -> float:
    """USD of a request: what all its calls cost, or its tokens at the prices of the tier that answered."""
    if "stepdown" in usage:
        return float(usage["stepdown"]["cost_usd"])
    return token_cost_usd(Usage(usage["prompt_tokens"], usage["completion_tokens"]), prices)


def row(outcome: Outcome, large: Outcome) -> dict[str, Any]:
    """One way beside always asking the large tier."""
    return {
        "way": outcome.way,
        "exact_match": round(outcome.right, 4),
        "of_large": round(outcome.right / large.right, 4) if large.right else None,
        "cost_of_large": round(outcome.usd / large.usd, 4),
        "tiers": outcome.tiers,
        "delegated": outcome.delegated,
    }


def line(outcome: Outcome, large: Outcome) -> str:
    data = row(outcome, large)
    shares = "  ".join(f"{tier} {count}" for tier, count in outcome.tiers.items() if count)
    shares += f"  delegated {outcome.delegated}" if outcome.delegated else ""
    of_large = f"{data['of_large']:.3f}" if data["of_large"] is not None else "-"
    return (
        f"{outcome.way:13} exact match {outcome.right:.3f} ({of_large} of {large.way})   "
        f"cost {data['cost_of_large']:.3f} of {large.way}   {shares}"
    )
