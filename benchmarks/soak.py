"""Checks whether the ingress's memory grows over 100,000s of requests through echo tiers. `python -m benchmarks.soak`

It runs the whole server. Every request has a different text, every other one is a stream. The ingress's resident memory
is read between slices; its slope is taken after the first fifth. Prints one JSON line a slice, the slope last.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import yaml

from benchmarks.load import Load, needs_wrk, say, wrk

INGRESS = "ray::ServeReplica:stepdown:ingress"
WARM = 0.2  # share of the requests before the slope is taken
REQUEST = """
local n = 0
local run = tostring(os.time())
request = function()
  n = n + 1
  local words = string.format("Question %d of run %s: what is %d plus %d, and why?", n, run, n * 7 % 1013, n * 13 % 997)
  local stream = n % 2 == 0 and "true" or "false"
  return wrk.format(nil, nil, nil, string.format(
    '{"model": "auto", "messages": [{"role": "user", "content": "%s"}], "max_tokens": 16, "stream": %s}', words, stream))
end
"""


def ours(name: str) -> Iterator[psutil.Process]:
    """Processes of that title that this one started, whoever else runs a Ray here."""
    for child in psutil.Process().children(recursive=True):
        try:
            if child.cmdline()[:1] == [name] or " ".join(child.cmdline()).startswith(name):
                yield child
        except psutil.Error:  # it has just ended
            continue


def resident_mb(name: str = INGRESS) -> float:
    """Of all replicas together."""
    return sum(process.memory_info().rss for process in ours(name)) / 1e6


def settings(folder: Path) -> dict[str, Any]:
    """The shipped echo ladder with the default classifier over it."""
    from benchmarks.decide import made_up
    from router.config import SHIPPED

    made_up(folder / "artefact")
    shipped = yaml.safe_load((SHIPPED / "echo.yaml").read_text())
    routing = {"artefact": str(folder / "artefact"), "target": "balanced"}
    return shipped | {"routing": routing, "ledger": {"url": f"sqlite:///{folder}/ledger.db"}}


def slices(url: str, key: str, requests: int, connections: int, seconds: float) -> Iterator[tuple[int, float, Load]]:
    """(requests so far, MB, load), until there were enough."""
    done = 0
    while done < requests:
        load = wrk(f"{url}/chat/completions", REQUEST, connections, seconds, key)
        done += round(load.per_s * seconds)
        yield done, resident_mb(), load


def slope(seen: list[tuple[int, float]], requests: int) -> float:
    """MB per 1,000 requests after the warm-up."""
    later = [(n / 1e3, mb) for n, mb in seen if n >= WARM * requests]
    return float(np.polyfit(*zip(*later, strict=True), 1)[0]) if len(later) > 2 else float("nan")


@click.command(help=__doc__)
@click.option("--requests", default=100_000, show_default=True)
@click.option("--connections", default=16, show_default=True)
@click.option("--seconds", default=10.0, show_default=True, help="of a slice")
def main(requests: int, connections: int, seconds: float) -> None:
    from deployments.serve.background import served

    needs_wrk()
    seen: list[tuple[int, float]] = []
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "echo.yaml"
        file.write_text(yaml.safe_dump(settings(Path(folder))))
        os.environ |= {"STEPDOWN_STATE_DIR": f"{folder}/state", "RAY_ADDRESS": "local"}
        with served(str(file)) as (url, key):
            start_mb = resident_mb()
            for done, mb, load in slices(url, key, requests, connections, seconds):
                seen.append((done, mb))
                failed += load.failed
                say({"scenario": "soak", "requests": done, "ingress_mb": round(mb, 1), "per_s": round(load.per_s, 1)})
    grown = slope(seen, requests)
    say(
        {
            "scenario": "soak, slope",
            "requests": seen[-1][0],
            "start_mb": round(start_mb, 1),
            "end_mb": round(seen[-1][1], 1),
            "mb_per_1000_requests": round(grown, 4),
            "failed": failed,
        }
    )


if __name__ == "__main__":
    main()
