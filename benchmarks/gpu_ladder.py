"""The ladder of `make gpu-check`: two engines on one GPU, the larger with three rungs, and the questions that it is asked."""

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from benchmarks.chaos_faults import below
from deployments.serve.background import served
from router.errors import BadInput

SMALL = "Qwen/Qwen3-0.6B"
LARGE = "Qwen/Qwen3-4B"
SHARES = {"small": 0.3, "off": 0.6}
"""tier -> its share of the GPU"""
SOURCES = {"small": SMALL, "off": LARGE}
RUNGS = ("off", "brief", "free")
BRIEF = 512  # tokens of a thought
CONTEXT = 8_192
DOZE_S = 10
START_S = 900.0  # of a ladder, the models already downloaded or not
PATIENCE_S = 300.0  # of one answer
LADDER = """
tiers:
  - name: small
    engine: vllm
    source: {small}
    context: {context}
    gpu: 0.3
    price: {{usd_per_accelerator_hour: 1}}
    body: {{chat_template_kwargs: {{enable_thinking: false}}}}
    doze: {{after_s: {doze_s}}}
    env: {first}
  - name: "off"
    engine: vllm
    source: {large}
    context: {context}
    gpu: 0.6
    price: {{usd_per_accelerator_hour: 1}}
    effort: none
    reasoning: {{parser: qwen3, switch: chat_template}}
    body: {{chat_template_kwargs: {{enable_thinking: false}}}}
    env: {second}
  - {{name: brief, "on": "off", effort: low, thought: {brief}, body: {{chat_template_kwargs: {{enable_thinking: true}}}}}}
  - {{name: free, "on": "off", effort: high, body: {{chat_template_kwargs: {{enable_thinking: true}}}}}}
routing: {{when_down: any}}
ledger: {{url: "sqlite:///{folder}/ledger.db"}}
"""


@dataclass(frozen=True)
class Said:
    """One answer."""

    status: int
    text: str = ""
    tier: str = ""
    """who answered"""
    finish: str = ""
    tokens: int = 0
    """of thought and answer"""
    thought_tokens: int | None = None
    """None: the server does not say"""
    took_s: float = 0.0


class Ladder(Protocol):
    """What the steps need of a running ladder."""

    def ask(self, model: str, text: str, most_tokens: int, **more: Any) -> Said:
        """A greedy answer. more: further fields of the request. An error is an answer too."""

    def state(self, tier: str) -> str:
        """As /v1/status shows it; empty: it does not answer."""

    def kill(self, tier: str) -> None:
        """End the process of its replica at once. Raises BadInput where there is none."""

    def cache_tokens(self) -> dict[str, int]:
        """Model -> tokens that its engine's cache holds, as vLLM said when it started."""


def settings(folder: Path, locked: bool) -> str:
    """The ladder as YAML. locked: its engines start one after the other; else each has a lock of its own, so at once."""
    locks = [json.dumps({} if locked else {"STEPDOWN_NODE_LOCK": str(folder / name)}) for name in ("a.lock", "b.lock")]
    given = {"small": SMALL, "large": LARGE, "context": CONTEXT, "doze_s": DOZE_S, "brief": BRIEF, "folder": folder}
    return LADDER.format(**given, first=locks[0], second=locks[1])


@contextmanager
def started(locked: bool) -> Iterator[Ladder]:
    """A running ladder, which ends with the block. Raises BadInput where it does not start."""
    with tempfile.TemporaryDirectory() as name:
        file, began_s = Path(name) / "gpu_check.yaml", time.time()
        file.write_text(settings(Path(name), locked))
        with served(str(file), START_S) as (url, key):
            yield Served(url, key, began_s)


class Served:
    """A ladder at an address. began_s: when it was started, in seconds of the wall clock."""

    def __init__(self, url: str, key: str, began_s: float) -> None:
        self.http = httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=PATIENCE_S)
        self.began_s = began_s

    def ask(self, model: str, text: str, most_tokens: int, **more: Any) -> Said:
        messages = [{"role": "user", "content": text}]
        body = {"model": model, "messages": messages, "max_tokens": most_tokens, "temperature": 0, **more}
        began_s = time.monotonic()
        try:
            reply = self.http.post("/chat/completions", json=body)
        except httpx.HTTPError as error:
            return Said(0, f"{type(error).__name__}: {error}")
        return read(reply.status_code, reply.json(), reply.headers.get("x-stepdown-tier", ""), time.monotonic() - began_s)

    def state(self, tier: str) -> str:
        try:
            return str(self.http.get("/status").json()["ladder"][tier]["state"])
        except (httpx.HTTPError, LookupError, ValueError):
            return ""

    def kill(self, tier: str) -> None:
        found = below(os.getpid(), f"ServeReplica:stepdown:tier-{tier}")
        if not found:
            raise BadInput(f"found no process of tier {tier}, expected its replica below this one; look at the ladder's log")
        os.kill(found[-1], signal.SIGKILL)

    def cache_tokens(self) -> dict[str, int]:
        logs = Path(tempfile.gettempdir()) / "ray" / "session_latest" / "logs"
        found: dict[str, int] = {}
        for path in sorted(logs.glob("worker-*")) if logs.is_dir() else ():
            if path.stat().st_mtime >= self.began_s:
                found |= cache_tokens(path.read_text(errors="replace"))
        return found


def read(status: int, answer: dict[str, Any], tier: str, took_s: float) -> Said:
    """From a chat completion, or an error's body."""
    if status != 200:
        return Said(status, str(answer.get("error", {}).get("message")), tier, took_s=took_s)
    choice, usage = answer["choices"][0], answer.get("usage") or {}
    thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
    text, finish = choice["message"].get("content") or "", choice.get("finish_reason") or ""
    return Said(status, text, tier, finish, usage.get("completion_tokens", 0), thought, took_s)


def cache_tokens(log: str) -> dict[str, int]:
    """Model -> tokens of its cache, from the log of an engine's process, where vLLM names first the model and then the size."""
    found, model = {}, ""
    for line in log.splitlines():
        if "with config: model=" in line:
            model = line.partition("with config: model=")[2].partition(",")[0].strip("'\"")
        if model and "GPU KV cache size: " in line:
            found[model] = int(line.partition("GPU KV cache size: ")[2].partition(" tokens")[0].replace(",", ""))
    return found
