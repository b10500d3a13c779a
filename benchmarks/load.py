"""Load by wrk, and the comparison of two systems that were loaded in turn. Needs Debian's `wrk`."""

import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

KEY = "sk-bench"
SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer %s"
%s
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


def needs_wrk() -> None:
    if not shutil.which("wrk"):
        raise SystemExit("this benchmark needs wrk: apt-get install wrk")


def wrk(url: str, body: dict[str, Any] | str, connections: int, seconds: float, key: str = KEY) -> Load:
    """POST the body over that many connections, each waiting for its answer. A text is Lua that makes each request."""
    said = body if isinstance(body, str) else f"wrk.body = [[{json.dumps(body)}]]"
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % (key, said))
        script.flush()
        threads = ["-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "30s", "-s", script.name, url]
        out = subprocess.run(["wrk", *threads], capture_output=True, text=True, check=True).stdout
    found = re.search(r"^JSON (.*)$", out, re.M)
    if not found:
        raise SystemExit(f"wrk said nothing that can be read:\n{out}")
    told = json.loads(found[1])
    times = [told[name] / 1e3 for name in ("p50", "p90", "p99")]
    return Load(told["requests"] / told["us"] * 1e6, *times, told["failed"])


def in_turn(runs: dict[str, Callable[[], Load]], rounds: int) -> dict[str, list[Load]]:
    """Each once to warm up, then one after the other, so that what the machine does meanwhile falls on all."""
    for run in runs.values():
        run()
    seen: dict[str, list[Load]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            seen[name].append(run())
    return seen


def sync_ms(folder: str) -> float:
    """What one sync costs on that folder's disk now, the median of 100: each answer waits for one, of its ledger row."""
    took = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(100):
            file.write(b"x" * 8192)
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1e3)
            time.sleep(0.002)
    return round(statistics.median(took), 2)


def middle(loads: list[Load], name: str) -> float:
    return statistics.median(getattr(load, name) for load in loads)


def say(line: dict[str, Any]) -> dict[str, Any]:
    """One JSON line, at once."""
    print(json.dumps(line), flush=True)
    return line
