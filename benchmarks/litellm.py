"""Compares Stepdown with LiteLLM's proxy before one scripted upstream, both routing. `python -m benchmarks.litellm`

LiteLLM gets an environment of its own under a cache folder, installed at the first run; its complexity router chooses among three
models, as Stepdown's classifier does. Stepdown is the whole server: HAProxy, keys, and a durable ledger row for each
request before its answer ends. LiteLLM runs as its documentation starts it: one worker and no database, so
it records nothing. Added times are relative to the upstream asked directly. The ledger
lies in TMPDIR, and each line also reports what a disk sync costs there. Prints one JSON line for each number of connections.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import httpx
import yaml

from benchmarks.load import Load, in_turn, middle, needs_wrk, say, sync_ms, wrk
from deployments.ports import free_port

VERSION = "1.106.0"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "What is 23 plus 45?"}], "max_tokens": 16}
PRICES = {"small": 0.05, "medium": 0.25, "large": 1.0}
TIERS = {"SIMPLE": "small", "MEDIUM": "medium", "COMPLEX": "large", "REASONING": "large"}
START_S = 180.0


def environment() -> Path:
    """The folder of an environment with LiteLLM's proxy, made where it is not there yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stepdown" / f"litellm-{VERSION}"
    if not (cache / "bin" / "litellm").exists():
        uv = str(Path(sys.executable).parent / "uv")
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(cache)], check=True)
        python = str(cache / "bin" / "python")
        subprocess.run([uv, "pip", "install", "-q", "--python", python, f"litellm[proxy]=={VERSION}"], check=True)
    return cache


def litellm_settings(upstream: str, key: str) -> dict[str, Any]:
    """Three models at the upstream, and the router over them under the name `auto`."""

    def model(name: str) -> dict[str, Any]:
        return {"model_name": name, "litellm_params": {"model": "openai/scripted", "api_base": upstream, "api_key": "none"}}

    router = {"model": "auto_router/complexity_router", "complexity_router_config": {"tiers": TIERS}}
    models = [*map(model, PRICES), {"model_name": "auto", "litellm_params": router}]
    return {"model_list": models, "general_settings": {"master_key": key}}


def stepdown_settings(upstream: str, folder: Path) -> dict[str, Any]:
    """Three remote tiers at the upstream, with the default classifier trained for them."""
    from benchmarks.decide import made_up

    made_up(folder / "artefact")

    def tier(name: str, usd: float) -> dict[str, Any]:
        price = {"usd_per_1m_input": usd, "usd_per_1m_output": usd}
        return {"name": name, "engine": "remote", "url": upstream, "model": "scripted", "context": 8192, "price": price}

    routing = {"artefact": str(folder / "artefact"), "target": "balanced"}
    ledger = {"url": f"sqlite:///{folder}/ledger.db"}
    return {"tiers": [tier(*item) for item in PRICES.items()], "routing": routing, "ledger": ledger}


@contextmanager
def process(command: list[str], url: str, **more: Any) -> Iterator[None]:
    """Running, from when it answers at the URL with anything."""
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, **more) as run:
        try:
            wait_for(url, run, log)
            yield
        finally:
            run.terminate()


def wait_for(url: str, run: "subprocess.Popen[bytes]", log: Any) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and run.poll() is None:
        try:
            httpx.post(url, json=BODY, timeout=30)
            return
        except httpx.TransportError:
            time.sleep(0.2)
    log.seek(0)
    raise SystemExit(f"{run.args} did not start:\n{log.read().decode()[-2000:]}")


@contextmanager
def all_three() -> Iterator[tuple[dict[str, str], str]]:
    """Addresses up to /v1 of the upstream and of both in front of it, and the key of both."""
    from deployments.serve.background import served

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = [free_port() for _ in range(2)]
        upstream, theirs = (f"http://127.0.0.1:{port}/v1" for port in ports)
        run = [sys.executable, "-m", "benchmarks.upstream", str(ports[0])]
        stack.enter_context(process(run, f"{upstream}/chat/completions"))
        (folder / "stepdown.yaml").write_text(yaml.safe_dump(stepdown_settings(upstream, folder)))
        os.environ |= {"STEPDOWN_STATE_DIR": str(folder / "state"), "RAY_ADDRESS": "local"}
        ours, key = stack.enter_context(served(str(folder / "stepdown.yaml")))
        (folder / "litellm.yaml").write_text(yaml.safe_dump(litellm_settings(upstream, key)))
        proxy = [str(environment() / "bin" / "litellm"), "--config", str(folder / "litellm.yaml"), "--port", str(ports[1])]
        quiet = {**os.environ, "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}
        stack.enter_context(process([*proxy, "--host", "127.0.0.1"], f"{theirs}/chat/completions", env=quiet))
        yield {"direct": upstream, "litellm": theirs, "stepdown": ours}, key


def routed(urls: dict[str, str], key: str) -> dict[str, str]:
    """The tier each chooses. Raises where one does not answer."""
    found = {}
    for name in ("litellm", "stepdown"):
        answer = httpx.post(f"{urls[name]}/chat/completions", json=BODY, headers={"authorization": f"Bearer {key}"}, timeout=60)
        answer.raise_for_status()
        found[name] = answer.headers.get("x-stepdown-tier") or answer.headers.get("x-litellm-model-group") or ""
    return found


def compared(connections: int, seen: dict[str, list[Load]]) -> dict[str, Any]:
    shown: dict[str, Any] = {"scenario": "against LiteLLM", "connections": connections, "litellm_version": VERSION}
    for name, loads in seen.items():
        shown[f"{name}_per_s"] = round(middle(loads, "per_s"), 1)
        for q in ("p50", "p99"):
            shown[f"{name}_{q}_ms"] = round(middle(loads, q), 2)
    for q in ("p50", "p99"):
        ours, theirs = (middle(seen[name], q) - middle(seen["direct"], q) for name in ("stepdown", "litellm"))
        shown[f"added_{q}_ms"], shown[f"litellm_added_{q}_ms"] = round(ours, 2), round(theirs, 2)
        shown[f"added_{q}_ratio"] = round(ours / theirs, 3)
    shown["throughput_ratio"] = round(shown["stepdown_per_s"] / shown["litellm_per_s"], 2)
    return shown | {"failed": {name: sum(load.failed for load in loads) for name, loads in seen.items()}}


@click.command(help=__doc__)
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=5.0, show_default=True, help="of each measurement")
def main(rounds: int, seconds: float) -> None:
    needs_wrk()
    with all_three() as (urls, key):
        chosen = routed(urls, key)

        def run(name: str, connections: int) -> Callable[[], Load]:
            return lambda: wrk(f"{urls[name]}/chat/completions", BODY, connections, seconds, key)

        for connections in (1, 16, 64):
            seen = in_turn({name: run(name, connections) for name in urls}, rounds)
            say(compared(connections, seen) | {"chosen": chosen, "disk_sync_ms": sync_ms(tempfile.gettempdir())})


if __name__ == "__main__":
    main()
