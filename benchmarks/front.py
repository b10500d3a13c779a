"""Compares Stepdown with stock Ray Serve LLM: what the router adds to a request. `python -m benchmarks.front`

One Ray cluster runs both on replicas of the same three models, with the same engines, front end and settings. The load goes
to one and to the other in turn, for several rounds, so that other work on the machine affects both. Needs `wrk`. The ledger
lies in STEPDOWN_STATE_DIR, and each line also reports what a disk sync costs there. Prints one JSON line a scenario. Compare
ratios and differences: absolute times are this machine's.
"""

import asyncio
import itertools
import os
import re
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from benchmarks.load import KEY, Load, in_turn, middle, needs_wrk, say, sync_ms, wrk
from benchmarks.soak import INGRESS, ours

FAST = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
STOCK = "ray::ServeReplica:stock:"
PROMPT = "What is 23 plus 45?"


def stock(config: Any, as_it_comes: bool) -> Any:
    """Ray's own OpenAI application over the same models with the same settings; its engines as Stepdown's, if not as it comes."""
    from ray.serve.llm import LLMConfig, build_openai_app

    from deployments.replicas.vllm_tier import settings_of

    every = [settings_of(tier) for tier in config.tiers]
    if not as_it_comes:
        for settings in every:
            settings["runtime_env"]["env_vars"]["RAYLLM_VLLM_ENGINE_CLS"] = "benchmarks.stock_engine.Engine"
    return build_openai_app({"llm_configs": [LLMConfig(**settings) for settings in every]})


@contextmanager
def both(name: str, port: int, as_it_comes: bool = False) -> Iterator[tuple[str, str]]:
    """Stepdown at / and stock Ray Serve LLM at /stock on one cluster; yields their addresses up to /v1."""
    os.environ.update(FAST | {"STEPDOWN_API_KEY": KEY})
    import ray
    from ray import serve

    from deployments.app import Args, build
    from router.config import load_config

    ray.init(num_cpus=8, log_to_driver=False, logging_level="ERROR", include_dashboard=False)  # what stock wants
    try:
        serve.start(http_options={"host": "0.0.0.0", "port": port})
        serve.run(build(Args(config=name)), name="stepdown", route_prefix="/")
        serve.run(stock(load_config(name), as_it_comes), name="stock", route_prefix="/stock")
        yield f"http://127.0.0.1:{port}/v1", f"http://127.0.0.1:{port}/stock/v1"
    finally:
        serve.shutdown()
        ray.shutdown()


def plain_request(url: str) -> tuple[dict[str, Any], str]:
    """A request for one token that `auto` answers by one plain call, and its tier: only that can be compared with stock."""
    import httpx

    from deployments.pocket.tasks import fresh

    with httpx.Client(headers={"authorization": f"Bearer {KEY}"}, timeout=60) as client:
        for task in fresh("single", 300, 6):
            message = {"role": "user", "content": task.prompt}
            body = {"model": "auto", "messages": [message], "max_tokens": 1, "temperature": 0}
            answer = client.post(f"{url}/chat/completions", json=body).raise_for_status()
            if "x-stepdown-calls" not in answer.headers:
                return body, str(answer.headers["x-stepdown-tier"])
    raise SystemExit("auto looks at the first answer of each of 300 prompts: nothing to compare")


def compared(scenario: str, mine: list[Load], stocks: list[Load], **more: Any) -> dict[str, Any]:
    shown: dict[str, Any] = {"scenario": scenario, **more}
    for name in ("p50", "p99"):
        shown[f"{name}_ms"], shown[f"stock_{name}_ms"] = round(middle(mine, name), 2), round(middle(stocks, name), 2)
        shown[f"added_{name}_ms"] = round(middle(mine, name) - middle(stocks, name), 2)
    shown |= {"per_s": round(middle(mine, "per_s"), 1), "stock_per_s": round(middle(stocks, "per_s"), 1)}
    shown["throughput_ratio"] = round(middle(mine, "per_s") / middle(stocks, "per_s"), 3)
    return shown | {"failed": sum(load.failed for load in mine), "stock_failed": sum(load.failed for load in stocks)}


def one_token(us: str, theirs: str, rounds: int, seconds: float) -> Iterator[dict[str, Any]]:
    body, tier = plain_request(us)
    named = {**body, "model": tier}
    for connections in (1, 16, 64):
        seen = in_turn(
            {
                "us": lambda n=connections: wrk(f"{us}/chat/completions", body, n, seconds),
                "stock": lambda n=connections: wrk(f"{theirs}/chat/completions", named, n, seconds),
            },
            rounds,
        )
        yield compared("1 token", seen["us"], seen["stock"], connections=connections, tier=tier)


async def stream_once(client: Any, url: str, body: dict[str, Any]) -> list[float]:
    """Milliseconds to each content."""
    began, times = time.perf_counter(), []
    async with client.stream("POST", f"{url}/chat/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {") and re.search(r'"content":\s*"[^"]', line):
                times.append((time.perf_counter() - began) * 1e3)
    return times


async def streamed(url: str, body: dict[str, Any], at_once: int, requests: int) -> list[list[float]]:
    import httpx

    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(headers=headers, timeout=60, limits=httpx.Limits(max_connections=at_once)) as client:
        slots = asyncio.Semaphore(at_once)

        async def one() -> list[float]:
            async with slots:
                return await stream_once(client, url, body)

        return await asyncio.gather(*(one() for _ in range(requests)))


def streams(us: str, theirs: str, rounds: int, tier: str) -> Iterator[dict[str, Any]]:
    """64 tokens, ignoring the end-of-text token so that both are of one length; asked of one tier by name.

    Between tokens: from the first to the last, by their number. Who sends several tokens at once counts the first of them as late
    and the others as early; the time to the last token has no such gift.
    """
    body = {
        "model": tier,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 64,
        "stream": True,
        "temperature": 0,
        "ignore_eos": True,
    }
    for at_once in (1, 8):
        seen: dict[str, list[list[float]]] = {"ours": [], "stock": []}
        for _ in range(rounds):
            for name, url in (("ours", us), ("stock", theirs)):
                seen[name].extend(asyncio.run(streamed(url, body, at_once, 24)))
        shown: dict[str, Any] = {"scenario": "64 tokens streamed", "at_once": at_once, "tier": tier}
        ours, stock = of_streams(seen["ours"]), of_streams(seen["stock"])
        for name, figures in (("ours", ours), ("stock", stock)):
            shown |= {f"{name}_{what}_ms": round(ms, 3) for what, ms in figures.items()}
        yield shown | {f"{what}_ratio": round(ours[what] / stock[what], 3) for what in ours}


def of_streams(found: list[list[float]]) -> dict[str, float]:
    """Medians of the first and the last, the mean between tokens; milliseconds."""
    gaps = [b - a for times in found for a, b in itertools.pairwise(times)]
    firsts, lasts = [times[0] for times in found], [times[-1] for times in found]
    return {"ttft": statistics.median(firsts), "itl": statistics.fmean(gaps), "last": statistics.median(lasts)}


def unique_mb(title: str) -> float:
    """Memory that processes of that title do not share with others."""
    return sum(process.memory_full_info().uss for process in ours(title)) / 1e6


def stock_ingress() -> str:
    """The title of stock's ingress: of its deployments the one that is no model."""
    found = {process.cmdline()[0] for process in ours(STOCK)}
    return next(title for title in found if "ngress" in title or "outer" in title)


@click.command(help=__doc__)
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=8.0, show_default=True, help="of each measurement")
@click.option("--config", "name", default="pocket", show_default=True)
@click.option("--as-it-comes", is_flag=True, help="Stock with Ray's own engines: a worker process each, slower on a CPU.")
def main(rounds: int, seconds: float, name: str, as_it_comes: bool, port: int = 8090) -> None:
    from deployments.ledger.database import state_folder

    needs_wrk()
    tier = ""
    with both(name, port, as_it_comes) as (us, theirs):
        for line in one_token(us, theirs, rounds, seconds):
            tier = say(line | {"disk_sync_ms": sync_ms(str(state_folder()))})["tier"]
        for line in streams(us, theirs, rounds, tier):
            say(line)
        mine, stocks = unique_mb(INGRESS), unique_mb(stock_ingress())
        say(
            {"scenario": "memory", "ingress_mb": round(mine), "stock_ingress_mb": round(stocks), "added_mb": round(mine - stocks)}
        )


if __name__ == "__main__":
    main()
