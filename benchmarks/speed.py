"""Runs every speed benchmark, one JSON line a scenario, and at the end lists each target with whether it was met.

`python -m benchmarks.speed [PART ...]`; without a part all of them, which takes about two hours. Other work on the machine
first distorts times at the 99th percentile.
"""

import json
import subprocess
import sys
from collections.abc import Iterator

import click

from benchmarks import streams
from benchmarks.wanted import Line, Wanted, verdict

PARTS = {
    "front": "front",
    "front-two": "front --replicas 2",
    "front-decode": "front --decode --replicas 2",
    "streams": "streams",
    "litellm": "litellm",
    "decide": "decide",
    "growth": "growth",
    "soak": "soak",
}
"""name -> the benchmark and its options"""

WANTED = (
    Wanted("1 token", "added_p50_ms", 1.5, of="connections"),
    Wanted("1 token", "throughput_ratio", 0.95, least=True, of="connections"),
    Wanted("1 token, 2 replicas", "throughput_ratio", 1.2, least=True, of="connections"),
    Wanted("64 tokens decoded", "tokens_ratio", 1.0, least=True, of="at_once"),
    Wanted("memory", "added_mb", 300),
    Wanted("against LiteLLM", "throughput_ratio", 5, least=True, of="connections"),
    Wanted("against LiteLLM", "added_p50_ratio", 0.2, of="connections"),
    Wanted("against LiteLLM", "added_p99_ratio", 0.2, of="connections"),
    Wanted("decisions", "per_s", 1500, least=True),
    Wanted("decisions", "batch_per_s", 5000, least=True),
    Wanted("decisions", "p99_ms", 3),
    Wanted("decisions", "long_p99_ms", 5),
    Wanted("soak, slope", "mb_per_1000_requests", 0.1),
    Wanted("soak, slope", "failed", 0),
    *streams.WANTED,
)


def lines_of(part: str) -> Iterator[Line]:
    """What one benchmark prints, as it comes. Each has a process of its own: Ray is started once in a process."""
    with subprocess.Popen([sys.executable, "-m", *f"benchmarks.{PARTS[part]}".split()], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for text in run.stdout:
            if text.startswith("{"):
                print(text, end="", flush=True)
                if "scenario" in (line := json.loads(text)):  # a part's own summary is none
                    yield line
    if run.returncode:
        print(json.dumps({"scenario": part, "ended": run.returncode}), flush=True)


@click.command(help=__doc__)
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
def main(parts: tuple[str, ...]) -> None:
    print(json.dumps(verdict(WANTED, [line for part in parts or PARTS for line in lines_of(part)])))


if __name__ == "__main__":
    main()
