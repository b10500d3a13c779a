"""Runs every speed benchmark, one JSON line a scenario, and at the end lists each target with whether it was met.

`python -m benchmarks.speed [PART ...]`; without a part all of them, which takes about an hour. Other work on the machine
first distorts times at the 99th percentile.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

PARTS = ("front", "litellm", "decide", "growth", "soak")
Line = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """A bound on one figure of every line of a scenario. of: tells the lines apart."""

    scenario: str
    figure: str
    bound: float
    least: bool = False
    """the bound is the least it may be, else the most"""
    of: str = ""

    def seen(self, lines: list[Line]) -> Iterator[Line]:
        for line in lines:
            if line["scenario"] == self.scenario:
                value = line[self.figure]
                held = value >= self.bound if self.least else value <= self.bound
                told = {"scenario": self.scenario, "figure": self.figure, "is": value}
                told |= {self.of: line[self.of]} if self.of else {}
                yield told | {"wanted": f"{'>=' if self.least else '<='} {self.bound:g}", "held": held}


WANTED = (
    Wanted("1 token", "added_p50_ms", 1.5, of="connections"),
    Wanted("1 token", "throughput_ratio", 0.95, least=True, of="connections"),
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
)


def lines_of(part: str) -> Iterator[Line]:
    """What one benchmark prints, as it comes. Each has a process of its own: Ray is started once in a process."""
    with subprocess.Popen([sys.executable, "-m", f"benchmarks.{part}"], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for text in run.stdout:
            if text.startswith("{"):
                print(text, end="", flush=True)
                yield json.loads(text)
    if run.returncode:
        print(json.dumps({"scenario": part, "ended": run.returncode}), flush=True)


def summary(lines: list[Line]) -> Line:
    seen = [told for wanted in WANTED for told in wanted.seen(lines)]
    return {"summary": seen, "held": sum(told["held"] for told in seen), "of": len(seen)}


@click.command(help=__doc__)
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
def main(parts: tuple[str, ...]) -> None:
    print(json.dumps(summary([line for part in parts or PARTS for line in lines_of(part)])))


if __name__ == "__main__":
    main()
