"""stepdown demo: send fresh graded prompts through a live ladder; how much quality routing kept and how much it saved."""

import asyncio
import json
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import click
import httpx

from deployments.cli.shared import LADDER, POSITIVE, SEEDS
from deployments.pocket.commands import KIND
from deployments.pocket.tasks import Kind, Task, fresh
from deployments.serve.background import served
from router.config import Config, load_config
from router.costs.prices import per_token, token_cost_usd
from router.errors import BadInput
from router.learn.labels.ladder_client import CHAT, address_of, answer_in, headers_of, reason_in
from router.types import Usage


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of sending all prompts to one model."""

    model: str
    """a tier, or a way of routing"""
    right: float
    """share of exact matches, 0 to 1"""
    usd: float
    """tokens times list price"""
    tiers: dict[str, int]
    """answers by tier"""
    delegated: int = 0
    """answers put together from subtasks"""


@click.command()
@click.option("--url", default=None, help="A running endpoint, with or without /v1.  [default: start the pocket ladder]")
@click.option("--api-key", envvar="STEPDOWN_API_KEY", default=None, help="Key of that endpoint.")
@LADDER
@KIND
@click.option("--n", type=POSITIVE, default=500, show_default=True, help="Number of prompts.")
@click.option("--seed", type=SEEDS, default=20261124, show_default=True, help="Another seed gives other prompts.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line for each model.")
def demo(url: str | None, api_key: str | None, config: str, kind: Kind, n: int, seed: int, as_json: bool) -> None:
    """Send N fresh prompts to a live ladder, with auto and with each tier alone; compare exact match and cost."""
    ladder, tasks = load_config(config), fresh(kind, n, seed)
    if url:
        outcomes = measure(url, api_key or "", ladder, tasks)
    else:
        with served(config) as (url, key):
            outcomes = measure(url, key, ladder, tasks)
    for outcome in outcomes:
        click.echo(json.dumps(row(outcome, outcomes[-1])) if as_json else line(outcome, outcomes[-1]))


def measure(url: str, key: str, config: Config, tasks: list[Task]) -> list[Outcome]:
    """The large tier comes last: the others are compared with it. url: with or without /v1. Raises BadInput."""
    models = ["auto:cheap", "auto", "auto:quality", *config.names]
    try:
        return [asyncio.run(ask_all(url, key, model, tasks, config)) for model in models]
    except httpx.RequestError as error:
        raise BadInput(f"{url}: no answer ({error or type(error).__name__}); is it running?") from None


async def ask_all(url: str, key: str, model: str, tasks: list[Task], config: Config, at_once: int = 16) -> Outcome:
    prices = {tier.name: per_token(tier) for tier in config.tiers}
    gate, url = asyncio.Semaphore(at_once), address_of(url)
    right, usd, delegated, tiers = 0, 0.0, 0, dict.fromkeys(config.names, 0)
    async with httpx.AsyncClient(timeout=120, headers=headers_of(key)) as client:

        async def ask(task: Task) -> None:
            nonlocal right, usd, delegated
            body = {"model": model, "messages": [{"role": "user", "content": task.prompt}], "temperature": 0}
            async with gate:
                new = {"x-session-id": uuid.uuid4().hex}  # else a repeated prompt keeps its tier, as a conversation does
                response = await client.post(f"{url}{CHAT}", json=body, headers=new)
            answer = answer_of(url, response, prices)
            right += (answer["choices"][0]["message"]["content"] or "").strip() == task.answer
            usd += spent(answer["usage"], prices[answer["model"]])
            delegated += (answer["usage"].get("stepdown") or {}).get("delegation") in ("done", "partial")
            tiers[answer["model"]] += 1

        await asyncio.gather(*map(ask, tasks))
    return Outcome(model, right / len(tasks), usd, tiers, delegated)


def answer_of(url: str, response: httpx.Response, tiers: Collection[str]) -> dict[str, Any]:
    """The endpoint's answer, by one of `tiers`. Raises BadInput."""
    answer = answer_in(response) if response.status_code == 200 else None
    if answer is None:
        raise BadInput(f"{url}: HTTP {response.status_code}: {reason_in(response)}; expected a chat completion")
    if answer.get("model") not in tiers or not isinstance(answer.get("usage"), dict):
        raise BadInput(f"{url}: {answer.get('model')!r:.60} answered; expected {', '.join(tiers)} and its usage; see --config")
    return answer


def spent(usage: dict[str, Any], prices: tuple[float, float]) -> float:
    """USD of a request: the cost of all its calls, or its tokens at the prices of the tier that answered."""
    if "stepdown" in usage:
        return float(usage["stepdown"]["cost_usd"])
    return token_cost_usd(Usage(usage["prompt_tokens"], usage["completion_tokens"]), prices)


def row(outcome: Outcome, large: Outcome) -> dict[str, Any]:
    """An outcome compared with always asking the large tier."""
    return {
        "way": outcome.model,
        "exact_match": round(outcome.right, 4),
        "of_large": round(outcome.right / large.right, 4) if large.right else None,
        "cost_of_large": round(outcome.usd / large.usd, 4) if large.usd else None,
        "tiers": outcome.tiers,
        "delegated": outcome.delegated,
    }


def line(outcome: Outcome, large: Outcome) -> str:
    data = row(outcome, large)
    shares = "  ".join(f"{tier} {count}" for tier, count in outcome.tiers.items() if count)
    shares += f"  delegated {outcome.delegated}" if outcome.delegated else ""
    of_large = f"{data['of_large']:.3f}" if data["of_large"] is not None else "-"
    cost = f"{data['cost_of_large']:.3f}" if data["cost_of_large"] is not None else "-"
    return (
        f"{outcome.model:13} exact match {outcome.right:.3f} ({of_large} of {large.model})   "
        f"cost {cost} of {large.model}   {shares}"
    )
