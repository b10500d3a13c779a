"""A served ladder as a client's test sees it: its address, its keys, and what it has recorded."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from deployments.ports import free_port

ROOT = Path(__file__).parents[2]
START_S = 60.0


@dataclass
class Seen:
    """What the ladder recorded since it last forgot."""

    requests: list[dict[str, Any]]
    bodies: dict[str, list[dict[str, Any]]]
    """tier -> chat bodies that it was sent"""
    traces: list[dict[str, Any]]
    calls: list[dict[str, Any]]

    def posts(self, path: str) -> list[dict[str, Any]]:
        """Requests that a client sent to a path that ends so."""
        return [r for r in self.requests if r["method"] == "POST" and r["path"].endswith(path)]

    @property
    def all_bodies(self) -> list[dict[str, Any]]:
        return [body for bodies in self.bodies.values() for body in bodies]


@dataclass
class Ladder:
    origin: str
    """without a path"""
    keys: dict[str, str]
    process: "subprocess.Popen[bytes]"
    began_s: float = 0.0

    @property
    def url(self) -> str:
        return f"{self.origin}/v1"

    @property
    def key(self) -> str:
        return self.keys["full"]

    def forget(self) -> None:
        self.began_s = time.time()
        httpx.post(f"{self.origin}/-/forget").raise_for_status()

    def seen(self) -> Seen:
        answer = httpx.get(f"{self.origin}/-/seen", timeout=30).raise_for_status().json()
        traces = [row for row in answer["traces"] if row["began_s"] >= self.began_s]
        ids = {row["id"] for row in traces}
        return Seen(answer["requests"], answer["bodies"], traces, [row for row in answer["calls"] if row["trace_id"] in ids])


@contextlib.contextmanager
def ladder(folder: Path, *options: str, **sections: Any) -> Iterator[Ladder]:
    """A ladder in a process of its own. folder: of its ledger and keys; one that was used before goes on.

    options: of tests.clients.served. sections: further ones of its configuration.
    """
    port = free_port()
    command = [sys.executable, "-m", "tests.clients.served", "--port", str(port), "--folder", str(folder)]
    command += [*options, "--settings", json.dumps(sections)]
    log = folder / "served.log"
    with log.open("ab") as out, subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out) as process:
        try:
            wait(process, port, log)
            yield Ladder(f"http://127.0.0.1:{port}", json.loads((folder / "keys.json").read_text()), process)
        finally:
            process.terminate()


def wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/healthz")
            return
        time.sleep(0.1)
    raise RuntimeError(f"the ladder did not start:\n{log.read_text()[-2000:]}")
