"""Compares Stepdown with other proxies under hundreds of streams before one scripted upstream. `python -m benchmarks.streams`

Each stream is 64 tokens at 50 a second, and begins anew when it has ended. Stepdown is the whole server: HAProxy, keys, `auto`
over three remote tiers with its classifier, and a durable ledger row for each answer. vllm-router (Rust) and LiteLLM's proxy get
environments of their own under a cache folder, installed at the first run. All have the same seconds, in turn, in an order that
changes from pair to pair; figures are medians, ratios are of pairs. Processor time is read from /proc and divided by tokens.
Prints one JSON line a number of streams, then what of the bounds held. Needs an idle machine: it says how busy it was.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil
import yaml

from benchmarks import litellm
from benchmarks.load import say
from benchmarks.soak import INGRESS, ours
from benchmarks.wanted import Line, Wanted, verdict
from deployments.ports import free_port

ROUTER_VERSION = "0.1.17"
STREAMS = (64, 256, 512, 1024)
REST_S = 1.5  # between two runs, for what the last one left to be done
WARM_S = 2.0

WANTED = (
    Wanted("256 streams", "tokens_ratio", 0.90, least=True),
    Wanted("512 streams", "tokens_ratio", 0.85, least=True),
    Wanted("256 streams", "ingress_us_a_token", 50),
    Wanted("256 streams", "first_p99_ms", 500),
    Wanted("512 streams", "first_p99_ms", 800),
    Wanted("256 streams", "gap_p99_ratio", 2.5),
    Wanted("512 streams", "gap_p99_ratio", 2.5),
    Wanted("1024 streams", "first_p99_ms", 3_000),
    *(Wanted(f"{streams} streams", "failed", 0) for streams in STREAMS),
)
"""issue by issue what a user must have; ratios are to vllm-router"""


@dataclass(frozen=True)
class Proxy:
    """One that is measured. processes: its parts, each with the processes whose time counts for it."""

    name: str
    url: str
    """up to /v1"""
    processes: Callable[[], dict[str, list[psutil.Process]]]


@dataclass(frozen=True)
class Run:
    """One run of one proxy. load: see `stream_load.Streams`. cpu_s: part -> processor seconds."""

    load: dict[str, float]
    cpu_s: dict[str, float]

    def us_a_token(self, part: str) -> float:
        return self.cpu_s[part] * 1e6 / max(1, self.load["tokens"])


def stepdown_parts() -> dict[str, list[psutil.Process]]:
    """Whatever runs beside ingress and HAProxy is the same for a busy and an idle server, but for HAProxy's manager."""
    proxies = [p for p in psutil.Process().children(recursive=True) if named(p, "haproxy")]
    managers = list(ours("ray::HAProxyManager"))
    return {"ingress": list(ours(INGRESS)), "haproxy": proxies, "haproxy_manager": managers}


def named(process: psutil.Process, name: str) -> bool:
    try:
        return process.name() == name
    except psutil.Error:  # it has just ended
        return False


def whole(process: "subprocess.Popen[bytes]", name: str) -> Callable[[], dict[str, list[psutil.Process]]]:
    """All processes of a proxy that is one command."""

    def parts() -> dict[str, list[psutil.Process]]:
        top = psutil.Process(process.pid)
        return {name: [top, *top.children(recursive=True)]}

    return parts


def cpu_s(processes: Sequence[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
            total += times.user + times.system
        except psutil.Error:  # it has just ended
            continue
    return total


def measured(proxy: Proxy, key: str, streams: int, seconds: float, model: str = "auto") -> Run:
    parts = proxy.processes()
    before = {part: cpu_s(processes) for part, processes in parts.items()}
    command = [sys.executable, "-m", "benchmarks.stream_load", proxy.url, key, str(streams), str(seconds), model]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = {part: cpu_s(processes) - before[part] for part, processes in parts.items()}
    time.sleep(REST_S)
    return Run(json.loads(out.splitlines()[-1]), used)


@contextmanager
def all_of_them(with_litellm: bool, ingresses: int | None) -> Iterator[tuple[list[Proxy], str]]:
    """Stepdown first, then vllm-router, then LiteLLM; and the key of all."""
    from deployments.serve.background import served

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = [free_port() for _ in range(4)]
        upstream, rust, python = (f"http://127.0.0.1:{port}/v1" for port in ports[:3])
        run = [sys.executable, "-m", "benchmarks.stream_upstream", str(ports[0])]
        stack.enter_context(started(run, upstream))
        settings = litellm.stepdown_settings(upstream, folder) | {"server": {"replicas": ingresses}}
        (folder / "stepdown.yaml").write_text(yaml.safe_dump(settings))
        os.environ |= {"STEPDOWN_STATE_DIR": str(folder / "state"), "RAY_ADDRESS": "local"}
        url, key = stack.enter_context(served(str(folder / "stepdown.yaml")))
        proxies = [Proxy("stepdown", url, stepdown_parts)]
        router = stack.enter_context(started(rust_command(ports[1], ports[3], upstream), rust))
        proxies.append(Proxy("vllm_router", rust, whole(router, "vllm_router")))
        if with_litellm:
            (folder / "litellm.yaml").write_text(yaml.safe_dump(litellm.litellm_settings(upstream, key)))
            command = [str(litellm.environment() / "bin" / "litellm"), "--config", str(folder / "litellm.yaml")]
            quiet = {**os.environ, "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}
            proxy = stack.enter_context(started([*command, "--host", "127.0.0.1", "--port", str(ports[2])], python, env=quiet))
            proxies.append(Proxy("litellm", python, whole(proxy, "litellm")))
        yield proxies, key


def rust_command(port: int, metrics_port: int, upstream: str) -> list[str]:
    made = litellm.installed("vllm-router", f"vllm-router=={ROUTER_VERSION}", ROUTER_VERSION)
    where = ["--host", "127.0.0.1", "--port", str(port), "--worker-urls", upstream.removesuffix("/v1")]
    quiet = ["--log-level", "error", "--prometheus-port", str(metrics_port), "--worker-startup-check-interval", "1"]
    return [str(made / "bin" / "vllm-router"), *where, *quiet]


@contextmanager
def started(command: list[str], url: str, **more: Any) -> "Iterator[subprocess.Popen[bytes]]":
    """Running, from when it answers a chat with anything."""
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, **more) as run:
        try:
            litellm.wait_for(f"{url}/chat/completions", run, log)
            yield run
        finally:
            run.terminate()


def pairs_of(proxies: list[Proxy], key: str, streams: int, seconds: float, pairs: int) -> dict[str, list[Run]]:
    """Each proxy's runs. One is run to warm it up, and the order is turned round from pair to pair."""
    seen: dict[str, list[Run]] = {proxy.name: [] for proxy in proxies}
    for proxy in proxies:
        measured(proxy, key, streams, min(WARM_S, seconds))
    for pair in range(pairs):
        for proxy in proxies[:: -1 if pair % 2 else 1]:
            seen[proxy.name].append(measured(proxy, key, streams, seconds))
    return seen


def compared(streams: int, seen: dict[str, list[Run]]) -> Line:
    shown: Line = {"scenario": f"{streams} streams", "pairs": len(seen["stepdown"])}
    for name, runs in seen.items():
        prefix = "" if name == "stepdown" else f"{name}_"
        for figure in ("tokens_per_s", "first_p50", "first_p99", "gap_p50", "gap_p99"):
            unit = "" if figure == "tokens_per_s" else "_ms"
            shown[f"{prefix}{figure}{unit}"] = round(statistics.median(run.load[figure] for run in runs), 2)
        for part in runs[0].cpu_s:
            shown[f"{part}_us_a_token"] = round(statistics.median(run.us_a_token(part) for run in runs), 1)
        shown[f"{prefix}failed"] = round(sum(run.load["failed"] for run in runs))
    for name in [name for name in seen if name != "stepdown"]:
        of = "" if name == "vllm_router" else f"{name}_"
        shown[f"{of}tokens_ratio"] = ratio(seen["stepdown"], seen[name], "tokens_per_s")
        shown[f"{of}gap_p99_ratio"] = ratio(seen["stepdown"], seen[name], "gap_p99")
    return shown


def ratio(mine: list[Run], theirs: list[Run], figure: str) -> float | None:
    """The median of the pairs' ratios; None where theirs is nothing."""
    found = [a.load[figure] / b.load[figure] for a, b in zip(mine, theirs, strict=True) if b.load[figure]]
    return round(statistics.median(found), 3) if found else None


@click.command(help=__doc__)
@click.option("--streams", "levels", multiple=True, type=int, default=STREAMS, show_default=True, help="At once; several times.")
@click.option("--seconds", default=8.0, show_default=True, help="Of each run.")
@click.option("--pairs", default=5, show_default=True)
@click.option("--no-litellm", is_flag=True, help="Only beside vllm-router.")
@click.option("--ingresses", type=int, default=None, help="Of Stepdown.  [default: as it starts by itself]")
def main(levels: tuple[int, ...], seconds: float, pairs: int, no_litellm: bool, ingresses: int | None) -> None:
    lines = []
    with all_of_them(not no_litellm, ingresses) as (proxies, key):
        versions = {"vllm_router": ROUTER_VERSION} | ({} if no_litellm else {"litellm": litellm.VERSION})
        for streams in levels:
            busy = os.getloadavg()[0]
            line = compared(streams, pairs_of(proxies, key, streams, seconds, pairs))
            about = {"seconds": seconds, "versions": versions, "ingresses": len(list(ours(INGRESS))), "load_average": busy}
            lines.append(say(line | about))
    say(verdict(WANTED, lines))


if __name__ == "__main__":
    main()
