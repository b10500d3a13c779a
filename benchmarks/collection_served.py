"""Throughput of the served pocket ladder with collection on versus off. Run as: python -m benchmarks.collection_served

Two Stepdowns on one Ray cluster, alike but for `learning.collect`, get the same load in turn for several rounds, so that other
work on the machine affects both. Each request has a prompt of its own and is kept. Needs `wrk`. Prints one JSON line a scenario.
"""

import hashlib
import json
import os
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from benchmarks.front import FAST
from benchmarks.load import KEY, Load, in_turn, middle, needs_wrk, say, wrk

GOAL = 0.97  # of the throughput without
# Each connection asks about other numbers, so that nothing is answered from a prefix cache of whole prompts.
SCRIPT = """
local n = 0
request = function()
  n = n + 1
  return wrk.format(nil, nil, nil, string.format('%s', n, n * 7))
end
"""


def ladder(collect: str, folder: Path) -> Any:
    from router.config import Learning, Ledger, load_config

    learning = Learning(collect=collect, own_key="all", fill_share=0.0)  # type: ignore[arg-type]
    return load_config("pocket").model_copy(
        update={"learning": learning, "ledger": Ledger(url=f"sqlite:///{folder}/{collect}.db")}
    )


@contextmanager
def both(port: int, folder: Path) -> Iterator[tuple[str, str]]:
    """Addresses, up to /v1, of one that collects and one that does not."""
    os.environ.update(FAST)
    import ray
    from ray import serve

    from deployments.app import application, check

    key_hash = hashlib.sha256(KEY.encode()).hexdigest()
    ray.init(num_cpus=8, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        for collect, prefix in (("consented", "/"), ("off", "/off")):
            config = ladder(collect, folder)
            check(config)
            serve.run(application(config, key_hash), name=collect, route_prefix=prefix)
        yield f"http://127.0.0.1:{port}/v1", f"http://127.0.0.1:{port}/off/v1"
    finally:
        serve.shutdown()
        ray.shutdown()


def script(max_tokens: int, stream: bool) -> str:
    message = {"role": "user", "content": "What is %d plus %d? Say only the number."}
    body = {"model": "large", "messages": [message], "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}
    return SCRIPT % json.dumps({**body, "stream": stream})  # its %d are Lua's


@click.command(help=__doc__)
@click.option("--rounds", default=6, show_default=True)
@click.option("--seconds", default=8.0, show_default=True)
@click.option("--port", default=8123, show_default=True)
def main(rounds: int, seconds: float, port: int) -> None:
    needs_wrk()
    with tempfile.TemporaryDirectory() as folder, both(port, Path(folder)) as (on, off):
        for tokens, stream, connections in ((1, False, 16), (32, True, 8)):
            asked = script(tokens, stream)
            seen: dict[str, list[Load]] = in_turn(
                {
                    "on": lambda: wrk(f"{on}/chat/completions", asked, connections, seconds),  # noqa: B023
                    "off": lambda: wrk(f"{off}/chat/completions", asked, connections, seconds),  # noqa: B023
                },
                rounds,
            )
            ratios = [a.per_s / b.per_s for a, b in zip(seen["on"], seen["off"], strict=True)]
            say(
                {
                    "scenario": f"{tokens} tokens{', streamed' if stream else ''}",
                    "connections": connections,
                    "on_per_s": round(middle(seen["on"], "per_s"), 1),
                    "off_per_s": round(middle(seen["off"], "per_s"), 1),
                    "ratio": round(statistics.median(ratios), 3),
                    "goal": GOAL,
                    "on_p99_ms": round(middle(seen["on"], "p99"), 1),
                    "off_p99_ms": round(middle(seen["off"], "p99"), 1),
                    "failed": sum(load.failed for load in (*seen["on"], *seen["off"])),
                }
            )


if __name__ == "__main__":
    main()
