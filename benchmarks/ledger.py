"""Measures how fast the ledger writes. Run as: python -m benchmarks.ledger

Prints one JSON line for each database and number of concurrent requests: rows a second (one trace and one call are two rows), and
how long a request waits for its rows to be durable. `--fill N FILE` makes a ledger of N traces for timing pages.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "deployments" / "ledger"))

from postgres import NotInstalled, postgres

from deployments.ledger.database import connect, migrate, writing
from deployments.ledger.ledger import Ledger
from deployments.ledger.rows import Rows, from_trace, from_window, together
from deployments.ledger.store import Store
from deployments.ledger.upkeep import Upkeep
from deployments.ledger.writes import write
from router import config
from router.trace import CallRow, Trace, Window

TIERS = {"small": (0.02, 0.08), "medium": (0.15, 0.6), "large": (1.0, 4.0)}  # USD per million tokens in and out
REASONS = ("good enough", "good enough", "good enough", "best we have", "asked for", "schema")
DAYS = 60.0
WINDOW_S = 60


def trace(id: str, began_s: float, dice: random.Random) -> Trace:
    """One request as a busy server might see it; one in five is escalated, so has two calls."""
    tiers = list(TIERS)
    first = dice.choices([0, 1, 2], [6, 2.5, 1.5])[0]
    visited = tiers[first : first + 2] if dice.random() < 0.2 else tiers[first : first + 1]
    tokens = (dice.randrange(20, 3000), dice.randrange(1, 600))
    key = f"key{dice.randrange(12):02d}"
    calls = [call(id, key, n, tier, visited, tokens, began_s + n) for n, tier in enumerate(visited)]
    failed = dice.random() < 0.01
    return Trace(
        id=id,
        key_id=key,
        began_s=began_s,
        took_s=0.2 + dice.random() * len(visited),
        path="/v1/chat/completions",
        wanted="auto",
        status=502 if failed else 200,
        tier="" if failed else visited[-1],
        error="tier_failed" if failed else "",
        target=dice.choice(("cheap", "balanced", "balanced", "quality")),
        reason=dice.choice(REASONS),
        flow="cascade" if len(visited) > 1 else "direct",
        stream=dice.random() < 0.5,
        confidence=round(dice.random(), 4),
        unfamiliar=round(dice.random(), 4),
        p={tier: round(dice.random(), 4) for tier in tiers},
        certificate="valid",
        decision_ms=0.5 + dice.random(),
        first_byte_s=0.1,
        counterfactual_usd=price("large", *tokens),
        counterfactual_estimated=visited != ["large"],
        calls=tuple(calls),
    )


def price(tier: str, input_tokens: int, output_tokens: int) -> float:
    return (input_tokens * TIERS[tier][0] + output_tokens * TIERS[tier][1]) / 1e6


def call(trace_id: str, key: str, n: int, tier: str, visited: list[str], tokens: tuple[int, int], began_s: float) -> CallRow:
    last = tier == visited[-1]
    usd, busy_s = price(tier, *tokens), tokens[1] / 2000
    return CallRow(
        f"{trace_id}/{n}",
        trace_id,
        key,
        "answer",
        tier,
        "answered" if last else "low confidence",
        began_s,
        0.5,
        *tokens,
        cached_tokens=tokens[0] // 4,
        first_token_s=0.1,
        cost_usd=usd,
        replica=f"{tier}#1",
        busy_s=busy_s,
        gpu_usd=busy_s * 2 / 3600,
    )


def fill(traces: int, url: str, days: float = DAYS) -> None:
    """Write `traces` requests spread over the last `days`, and windows of the tiers' time. The writer's own code does it."""
    engine = connect(config.Ledger(url=url))
    migrate(engine)
    dice, began = random.Random(1), time.perf_counter()
    end_s = time.time()
    start_s = end_s - days * 86400
    made = (from_trace(trace(f"t{n:09d}", start_s + (end_s - start_s) * n / traces, dice)) for n in range(traces))
    for batch in batches(made, 5000):
        with writing(engine) as connection:
            write(connection, together(batch))
    for some in batches(held(start_s, end_s), 5000):
        with writing(engine) as connection:
            write(connection, Rows(windows=[from_window(window) for window in some]))
    engine.dispose()
    say(bench="ledger fill", traces=traces, seconds=round(time.perf_counter() - began, 1))
    keep_books(url)


def keep_books(url: str) -> None:
    """What the ledger's own thread does within minutes: close the books of days that are over, merge old windows."""
    store, began, steps = Store(config.Ledger(url=url)), time.perf_counter(), 0
    store.start()
    keeper = Upkeep(store)
    while keeper.step():
        steps += 1
    store.engine.dispose()
    say(bench="ledger books", steps=steps, seconds=round(time.perf_counter() - began, 1))


def held(start_s: float, end_s: float) -> Iterator[Window]:
    for at in range(int(start_s // WINDOW_S) * WINDOW_S, int(end_s), WINDOW_S):
        for replicas, tier in enumerate(TIERS, 1):
            yield Window(tier, at, WINDOW_S, replicas, 1, 2.0)


def batches(things: Any, size: int) -> Iterator[list[Any]]:
    things = iter(things)
    while some := list(itertools.islice(things, size)):
        yield some


async def record(url: str, at_once: int, seconds: float) -> dict[str, Any]:
    """`at_once` requests record one trace after the other for `seconds`."""
    ledger = Ledger(config.Ledger(url=url))
    await ledger.open()
    dice, waits, rows = random.Random(2), [], 0
    numbers, until = itertools.count(), time.perf_counter() + seconds

    async def requests() -> None:
        nonlocal rows
        while (began := time.perf_counter()) < until:
            one = trace(f"{os.getpid()}-{at_once}-{next(numbers)}", time.time(), dice)
            began = time.perf_counter()
            await ledger.record(one)
            waits.append(1000 * (time.perf_counter() - began))
            rows += 1 + len(one.calls)

    began = time.perf_counter()
    await asyncio.gather(*(requests() for _ in range(at_once)))
    took = time.perf_counter() - began
    await ledger.close()
    cuts = statistics.quantiles(waits, n=100)
    return {
        "rows_per_s": round(rows / took),
        "traces_per_s": round(len(waits) / took),
        "p50_ms": round(cuts[49], 2),
        "p99_ms": round(cuts[98], 2),
    }


def say(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


def measure(seconds: float, folder: str) -> None:
    with ExitStack() as stack:
        at = stack.enter_context(tempfile.TemporaryDirectory(dir=folder))
        urls = {"sqlite": f"sqlite:///{at}/full.db", "sqlite, synchronous=NORMAL": f"sqlite:///{at}/normal.db?synchronous=NORMAL"}
        try:
            urls["postgresql"] = stack.enter_context(postgres(fsync=True)).database()
        except NotInstalled as error:
            say(bench="ledger", database="postgresql", left_out=str(error))
        for name, url in urls.items():
            for at_once in (16, 64):
                say(bench="ledger", database=name, at_once=at_once, **asyncio.run(record(url, at_once, seconds)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fill", nargs=2, metavar=("N", "FILE"), help="make a ledger of N traces in FILE (or at a URL)")
    parser.add_argument("--days", type=float, default=DAYS, help="over which --fill spreads them (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement (%(default)s)")
    parser.add_argument("--folder", default=".", help="where SQLite's files go: a real disk, not tmpfs (%(default)s)")
    asked = parser.parse_args()
    if asked.fill:
        fill(int(asked.fill[0]), asked.fill[1] if "://" in asked.fill[1] else f"sqlite:///{asked.fill[1]}", asked.days)
    else:
        measure(asked.seconds, asked.folder)


if __name__ == "__main__":
    main()
