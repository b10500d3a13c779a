"""The front door against stock Ray Serve LLM: what the router adds to a request. `python -m benchmarks.front`

One Ray cluster runs both on replicas of the same three models, with the same front door and the same settings; load goes
to one and to the other in turn, several rounds, so that what the machine does meanwhile falls on both. Needs `wrk`.
One JSON line a scenario, a summary last. Ratios and differences are what counts: absolute times are this machine's.
"""

import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FAST = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
KEY = "sk-bench"
ROUNDS, SECONDS = 3, 8.0
PROMPT = "What is 23 plus 45?"
SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer %s"
wrk.body = [[%s]]
done = function(summary, latency, requests)
  io.write(string.format('JSON {"requests": %%d, "us": %%d, "failed": %%d, "p50": %%f, "p90": %%f, "p99": %%f}\\n',
    summary.requests, summary.duration,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw. Times in milliseconds."""

    per_s: float
    p50: float
    p90: float
    p99: float
    failed: int


def wrk(url: str, body: dict[str, Any], connections: int, seconds: float = SECONDS) -> Load:
    """POST the body over that many connections, each waiting for its answer."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % (KEY, json.dumps(body)))
        script.flush()
        threads = ["-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "30s", "-s", script.name, url]
        out = subprocess.run(["wrk", *threads], capture_output=True, text=True, check=True).stdout
    found = re.search(r"^JSON (.*)$", out, re.M)
    if not found:
        raise SystemExit(f"wrk said nothing that can be read:\n{out}")
    told = json.loads(found[1])
    times = [told[name] / 1e3 for name in ("p50", "p90", "p99")]
    return Load(told["requests"] / told["us"] * 1e6, *times, told["failed"])


def stock(config: Any) -> Any:
    """Ray's own OpenAI application over the same models with the same settings."""
    from ray.serve.llm import LLMConfig, build_openai_app

    from deployments.vllm_tier import settings_of

    return build_openai_app({"llm_configs": [LLMConfig(**settings_of(tier)) for tier in config.tiers]})


@contextmanager
def both(name: str, port: int) -> Iterator[tuple[str, str]]:
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
        serve.run(stock(load_config(name)), name="stock", route_prefix="/stock")
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


def in_turn(ours: Callable[[], Load], theirs: Callable[[], Load], rounds: int) -> tuple[list[Load], list[Load]]:
    """Each once to warm up, then one after the other."""
    ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def compared(scenario: str, ours: list[Load], theirs: list[Load], **more: Any) -> dict[str, Any]:
    def middle(loads: list[Load], name: str) -> float:
        return statistics.median(getattr(load, name) for load in loads)

    shown: dict[str, Any] = {"scenario": scenario, **more}
    for name in ("p50", "p99"):
        shown[f"{name}_ms"], shown[f"stock_{name}_ms"] = round(middle(ours, name), 2), round(middle(theirs, name), 2)
        shown[f"added_{name}_ms"] = round(middle(ours, name) - middle(theirs, name), 2)
    shown |= {"per_s": round(middle(ours, "per_s"), 1), "stock_per_s": round(middle(theirs, "per_s"), 1)}
    shown["throughput_ratio"] = round(middle(ours, "per_s") / middle(theirs, "per_s"), 3)
    return shown | {"failed": sum(load.failed for load in ours), "stock_failed": sum(load.failed for load in theirs)}


def one_token(ours: str, theirs: str, rounds: int, seconds: float) -> Iterator[dict[str, Any]]:
    body, tier = plain_request(ours)
    for connections in (1, 16, 64):
        mine, stocks = in_turn(
            lambda n=connections: wrk(f"{ours}/chat/completions", body, n, seconds),
            lambda n=connections: wrk(f"{theirs}/chat/completions", {**body, "model": tier}, n, seconds),
            rounds,
        )
        yield compared("1 token", mine, stocks, connections=connections, tier=tier)


async def stream_once(client: Any, url: str, body: dict[str, Any]) -> tuple[float, list[float]]:
    """Milliseconds to the first content, and between the later ones."""
    began, times = time.perf_counter(), []
    async with client.stream("POST", f"{url}/chat/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {") and re.search(r'"content":\s*"[^"]', line):
                times.append((time.perf_counter() - began) * 1e3)
    return times[0], [b - a for a, b in zip(times, times[1:], strict=False)]


async def streamed(url: str, body: dict[str, Any], at_once: int, requests: int) -> tuple[list[float], list[float]]:
    import httpx

    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(headers=headers, timeout=60, limits=httpx.Limits(max_connections=at_once)) as client:
        slots = asyncio.Semaphore(at_once)

        async def one() -> tuple[float, list[float]]:
            async with slots:
                return await stream_once(client, url, body)

        got = await asyncio.gather(*(one() for _ in range(requests)))
    return [first for first, _ in got], [gap for _, gaps in got for gap in gaps]


def streams(ours: str, theirs: str, rounds: int, tier: str) -> Iterator[dict[str, Any]]:
    """64 tokens, ignoring the end-of-text token so that both are of one length; asked of one tier by name."""
    body = {"model": tier, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 64, "stream": True,
            "temperature": 0, "ignore_eos": True}  # fmt: skip
    for at_once in (1, 8):
        seen: dict[str, tuple[list[float], list[float]]] = {"ours": ([], []), "stock": ([], [])}
        for _ in range(rounds):
            for name, url in (("ours", ours), ("stock", theirs)):
                firsts, gaps = asyncio.run(streamed(url, body, at_once, 24))
                seen[name][0].extend(firsts)
                seen[name][1].extend(gaps)
        shown: dict[str, Any] = {"scenario": "64 tokens streamed", "at_once": at_once, "tier": tier}
        for name, (firsts, gaps) in seen.items():
            shown |= {f"{name}_ttft_ms": round(statistics.median(firsts), 2), f"{name}_itl_ms": round(statistics.fmean(gaps), 3)}
        yield shown | {"ttft_ratio": round(shown["ours_ttft_ms"] / shown["stock_ttft_ms"], 3),
                       "itl_ratio": round(shown["ours_itl_ms"] / shown["stock_itl_ms"], 3)}  # fmt: skip


def main(name: str = "pocket", rounds: int = ROUNDS, seconds: float = SECONDS, port: int = 8090) -> None:
    if not shutil.which("wrk"):
        raise SystemExit("this benchmark needs wrk: apt-get install wrk")
    lines = []
    with both(name, port) as (ours, theirs):
        for line in one_token(ours, theirs, rounds, seconds):
            lines.append(line)
            print(json.dumps(line), flush=True)
        for line in streams(ours, theirs, rounds, lines[0]["tier"]):
            lines.append(line)
            print(json.dumps(line), flush=True)
    print(json.dumps(summary(lines)))


def summary(lines: list[dict[str, Any]]) -> dict[str, Any]:
    plain = [line for line in lines if line["scenario"] == "1 token"]
    return {
        "benchmark": "front",
        "added_p50_ms": {line["connections"]: line["added_p50_ms"] for line in plain},
        "throughput_ratio": {line["connections"]: line["throughput_ratio"] for line in plain},
        "ttft_ratio": {line["at_once"]: line["ttft_ratio"] for line in lines if "ttft_ratio" in line},
        "itl_ratio": {line["at_once"]: line["itl_ratio"] for line in lines if "itl_ratio" in line},
        "failed": sum(line.get("failed", 0) for line in lines),
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
