"""Runs the flows on a real server with scripted tiers and measures their cost in time and tokens.

Run as: python -m benchmarks.flows. Prints one JSON line each. The tiers are scripts (tests/deployments/scripted_tier.py), so the
figures are the product's own overhead and accounting, never a model's. For live models: `stepdown demo`.
"""

import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "deployments"))

from live import OneFlow, ladder, serving
from scripted_tier import Said, ScriptedTier, asked

from router.cascade.flow import Cascade
from router.config import Escalation
from router.engine import Router
from router.types import Accept, GoUp

MAP = '{"plan": [{"each": "c1"}]}'
DELEGATION = {
    "mode": "plan",
    "min_input_tokens": 20,
    "min_saving": 0.0,
    "offload_min_tokens": 20,
    "preview_chars": 40,
    "plan_prompt": "plan {preview}",
    "max_cost_ratio": 20.0,
}
Tiers = dict[str, ScriptedTier]


def say(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


def is_plan(body: Any) -> bool:
    return ((body.get("response_format") or {}).get("json_schema") or {}).get("name") == "plan"


def listing(parts: int, words: int = 4) -> str:
    return "Do each of these:\n" + "\n".join(f"{i}. Summarise report {i} " + "word " * words for i in range(1, parts + 1))


def words(text: str) -> int:
    return len(text.split())


def planning(worker: Callable[[Any], Said], plan: str = MAP, plan_s: float = 0.05) -> Tiers:
    """Tiers of which the large one plans and the others work."""
    large = ScriptedTier("large", lambda body: Said(plan, wait_s=plan_s) if is_plan(body) else Said("plain", wait_s=0.05))
    return {"small": ScriptedTier("small", worker), "medium": ScriptedTier("medium", worker), "large": large}


def spent(tiers: Tiers) -> tuple[int, int]:
    """Tokens in and out by the tiers' own ledgers."""
    calls = [call for tier in tiers.values() for call in tier.ledger]
    return sum(given for given, _ in calls), sum(made for _, made in calls)


async def post(url: str, client: httpx.AsyncClient, content: str, model: str = "auto") -> dict[str, Any]:
    body = {"model": model, "messages": [{"role": "user", "content": content}]}
    response = await client.post(f"{url}/chat/completions", json=body, timeout=60)
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


def in_client(work: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with httpx.AsyncClient() as client:
            return await work(client)

    return asyncio.run(run())


def parallelism() -> None:
    """Eight subtasks of 200 ms, plan 50 ms."""
    tiers = planning(lambda body: Said("done", wait_s=0.2))
    config = ladder(delegation=DELEGATION)
    with serving(Router(config, None, dict.fromkeys(config.names, words)), tiers) as url:
        in_client(lambda c: post(url, c, "warm up", "large"))
        began = time.perf_counter()
        in_client(lambda c: post(url, c, listing(8)))
        took = time.perf_counter() - began
    say(bench="parallelism", subtasks=8, wall_s=round(took, 3), one_after_the_other_s=1.65, peak=tiers["medium"].most_running)


def accounting(n: int = 100) -> None:
    """Random lists, failures, retries, escalations: what is told against what the tiers counted."""
    rng = random.Random(2)

    def worker(body: Any) -> Said:
        kind = rng.random()
        if kind < 0.1:
            return Said("cut " * 40, finish="length")
        return Said("fine " * rng.randint(1, 30), wait_s=rng.random() / 100)

    tiers, config = planning(worker, plan_s=0.0), ladder(delegation=DELEGATION)
    with serving(Router(config, None, dict.fromkeys(config.names, words)), tiers) as url:

        async def all_of(client: httpx.AsyncClient) -> list[dict[str, Any]]:
            gate = asyncio.Semaphore(16)

            async def one() -> dict[str, Any]:
                async with gate:
                    return await post(url, client, listing(rng.randint(3, 8), rng.randint(1, 40)))

            return await asyncio.gather(*(one() for _ in range(n)))

        answers = in_client(all_of)
    usages = [answer["usage"] for answer in answers]
    sums = [usage["stepdown"]["total"] for usage in usages]
    told = (sum(s["prompt_tokens"] for s in sums), sum(s["completion_tokens"] for s in sums))
    calls = [call for u in usages for call in u["stepdown"]["calls"]]
    by_call = (sum(c["prompt_tokens"] for c in calls), sum(c["completion_tokens"] for c in calls))
    say(
        bench="accounting",
        requests=n,
        calls=len(calls),
        report=told,
        by_call=by_call,
        tiers=spent(tiers),
        exact=told == by_call == spent(tiers),
    )


def saving() -> None:
    """A document of 20,000 tokens in eight sections behind a handle, price ratio 20 (medium is 4): against the plain call."""
    sections = "\n\n".join(f"## Part {i}\n" + " ".join(f"w{i}_{k}" for k in range(2500)) for i in range(8))
    plan = '{"plan": [{"prompt": "Which amounts does it name?", "each": "c1", "max_tokens": 300}], "merge": true}'
    tiers = planning(lambda body: Said("amount " * 100), plan)
    tiers["large"].script = lambda body: Said(plan if is_plan(body) else "answer " * 300)
    settings = {**DELEGATION, "max_cost_ratio": 1.0, "offload_min_tokens": 2000, "preview_chars": 400, "plan_prompt": None}
    config = ladder(delegation=settings)
    with serving(Router(config, None, dict.fromkeys(config.names, words)), tiers) as url:
        text = f"Extract the amounts of every section.\n\n{sections}"
        delegated = in_client(lambda c: post(url, c, text))["usage"]["stepdown"]
        plain = in_client(lambda c: post(url, c, text, "large"))["usage"]
    direct = (plain["prompt_tokens"] + plain["completion_tokens"]) * 20 / 1e6
    say(
        bench="saving",
        state=delegated["delegation"],
        cost_of_direct=round(delegated["cost_usd"] / direct, 3),
        estimated=round(delegated["cost_delegated_estimate_usd"] / delegated["cost_direct_estimate_usd"], 3),
    )


class Sure:
    """Accepts what is surer than one nat."""

    def next(self, answers: Any) -> Accept | GoUp:
        for tier, reply in answers.items():
            if min(reply.logprobs) > -1:
                return Accept(tier)
        return GoUp(("large",), "low confidence")


def first_token(n: int = 200, at_once: int = 8) -> None:
    """Time to the first content byte through a flow against a plain call, tiers that answer at once."""
    tiers = {name: ScriptedTier(name, lambda body: Said("one two three four")) for name in ("small", "medium", "large")}

    def make(router: Any, request: Any, decided: Any) -> Any:
        held = Escalation(mode="holdback", holdback_tokens=2)
        return Cascade(request.body, router.names, Sure(), held, request.stream).run(["small"])

    with serving(OneFlow(ladder(), make), tiers) as url:
        times = {model: in_client(lambda c, m=model: first_tokens(url, c, m, n, at_once)) for model in ("small", "auto")}
    plain, flow = ([round(quantile(times[model], q), 2) for q in (50, 95)] for model in ("small", "auto"))
    say(bench="first_token", n=n, at_once=at_once, plain_p50_p95_ms=plain, flow_p50_p95_ms=flow)


async def first_tokens(url: str, client: httpx.AsyncClient, model: str, n: int, at_once: int) -> list[float]:
    gate = asyncio.Semaphore(at_once)

    async def one() -> float:
        async with gate:
            began = time.perf_counter()
            body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "a question"}]}
            async with client.stream("POST", f"{url}/chat/completions", json=body) as response:
                async for line in response.aiter_lines():
                    if '"content": "one' in line:
                        return (time.perf_counter() - began) * 1e3
            raise RuntimeError("no content came")

    return await asyncio.gather(*(one() for _ in range(n)))


def quantile(values: list[float], q: int) -> float:
    return statistics.quantiles(values, n=100)[q - 1]


def leaks(n: int = 200) -> None:
    """Escalations in both modes, streamed: requests whose text is not the large answer to the byte."""
    wrong = 0
    for mode in ("buffer", "holdback"):
        tiers = {
            "small": ScriptedTier("small", lambda body: Said(f"draft {asked(body)} never seen", logprob=-4.0)),
            "medium": ScriptedTier("medium", lambda body: Said("unused")),
            "large": ScriptedTier("large", lambda body: Said(f"answer to {asked(body)}")),
        }

        def make(router: Any, request: Any, decided: Any, mode: Any = mode) -> Any:
            settings = Escalation(mode=mode, holdback_tokens=2)
            return Cascade(request.body, router.names, Sure(), settings, request.stream).run(["small"])

        async def one(client: httpx.AsyncClient, url: str, i: int) -> bool:
            body = {"model": "auto", "stream": True, "messages": [{"role": "user", "content": f"question {i}"}]}
            raw = (await client.post(f"{url}/chat/completions", json=body)).text
            events = [json.loads(line[6:]) for line in raw.splitlines() if line.startswith("data: {")]
            text = "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e["choices"])
            return text != f"answer to question {i}"

        with serving(OneFlow(ladder(), make), tiers) as url:

            async def all_of(client: httpx.AsyncClient, url: str = url) -> list[bool]:
                return [await one(client, url, i) for i in range(n // 2)]

            wrong += sum(in_client(all_of))
    say(bench="leaks", escalations=n, wrong=wrong)


if __name__ == "__main__":
    for bench in (parallelism, saving, accounting, leaks, first_token):
        bench()
