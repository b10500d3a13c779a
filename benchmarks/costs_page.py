"""Times GET /costs.json over a large ledger. Run as: python -m benchmarks.costs_page [LEDGER ...] [--traces N]

LEDGER is a SQLite file or a URL. Without one it makes a temporary ledger of N traces (benchmarks.ledger) on SQLite and, where
installed, on PostgreSQL. It prints one JSON line for each filter that the page offers: milliseconds from request to whole body
on loopback. cold_ms: the first request that a fresh process answers, the slowest of several processes. p50_ms, p99_ms, max_ms:
the others.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "deployments" / "costs"))

from sample_traffic import KEY, ladder, serving
from sqlalchemy import func, select

from benchmarks.ledger import NotInstalled, fill, keep_books, postgres
from deployments.costs.interval import utc_text
from deployments.ledger.database import connect, migrate
from deployments.ledger.schema import traces
from router import config
from router.costs.machine_time import DAY_S

INTERVALS = ("24h", "7d", "30d", "90d")
PARTS = ("", "key=key03", "tier=large", "key=key03&tier=small")
WITHIN_MS = 300


def filters() -> list[str]:
    """Every interval with every choice of key and tier, and days by their dates: two, by the hour, and a month."""
    now = time.time()
    dates = [f"since={utc_text(now - days * DAY_S)[:10]}&until={utc_text(now - DAY_S)[:10]}" for days in (2, 32)]
    return [f"{when}&{part}".rstrip("&") for when in (*(f"since={one}" for one in INTERVALS), *dates) for part in PARTS]


def ask(root: str, query: str) -> float:
    """Milliseconds."""
    request = urllib.request.Request(f"{root}/costs.json?{query}", headers={"authorization": f"Bearer {KEY}"})
    began = time.perf_counter()
    json.load(urllib.request.urlopen(request, timeout=120))
    return 1000 * (time.perf_counter() - began)


@contextmanager
def fresh(url: str) -> Iterator[str]:
    """A process of its own that has answered nothing yet."""
    command = [sys.executable, "-m", "benchmarks.costs_page", "--serve", url]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(30)


def serve(url: str) -> None:
    """Until its input ends."""
    engine = connect(config.Ledger(url=url))
    with serving(engine, ladder()) as root:
        gc.collect()
        gc.freeze()  # as the ingress does
        print(root, flush=True)
        sys.stdin.read()


def cold(url: str, query: str, processes: int) -> list[float]:
    found = []
    for _ in range(processes):
        with fresh(url) as root:
            found.append(ask(root, query))
    return found


def measure(url: str, requests: int, processes: int) -> None:
    engine = connect(config.Ledger(url=url))
    with engine.connect() as connection:
        n = connection.execute(select(func.count()).select_from(traces)).scalar()
    about = {"bench": "costs page", "database": engine.dialect.name, "traces": n}
    worst = dict.fromkeys(("cold_ms", "p50_ms", "p99_ms", "max_ms"), 0.0)
    first = {query: max(cold(url, query, processes)) for query in filters()}
    with fresh(url) as root:
        for query in filters():
            times = [ask(root, query) for _ in range(requests)]
            cuts = statistics.quantiles(times, n=100)
            found = {"cold_ms": first[query], "p50_ms": cuts[49], "p99_ms": cuts[98], "max_ms": max(times)}
            worst = {name: max(value, found[name]) for name, value in worst.items()}
            say(**about, filter=query, **found)
    say(
        **about,
        filter="the slowest of each",
        **worst,
        requests=requests,
        processes=processes,
        within_300_ms=max(worst.values()) < WITHIN_MS,
    )
    engine.dispose()


def say(**figures: Any) -> None:
    print(json.dumps({k: round(v, 1) if isinstance(v, float) else v for k, v in figures.items()}), flush=True)


def opened(url: str) -> None:
    """As a start of the server leaves it, and the first minutes after."""
    engine = connect(config.Ledger(url=url))
    migrate(engine)
    engine.dispose()
    keep_books(url)


def made(stack: ExitStack, n: int) -> Iterator[str]:
    """Filled temporary ledgers."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    urls = [f"sqlite:///{folder}/ledger.db"]
    try:
        urls.append(str(stack.enter_context(postgres(fsync=True)).database()))
    except NotInstalled as error:
        say(bench="costs page", database="postgresql", left_out=str(error))
    for url in urls:
        fill(n, url)
        yield url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ledgers", nargs="*", metavar="LEDGER", help="files of SQLite or URLs; none: temporary ones")
    parser.add_argument("--traces", type=int, default=1_000_000, help="requests of a ledger that is made (%(default)s)")
    parser.add_argument("--requests", type=int, default=100, help="answers timed for each filter (%(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="fresh processes for each filter (%(default)s)")
    parser.add_argument("--serve", metavar="URL", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        return serve(asked.serve)
    with ExitStack() as stack:
        given = (one if "://" in one else f"sqlite:///{Path(one).absolute()}" for one in asked.ledgers)
        for url in given if asked.ledgers else made(stack, asked.traces):
            opened(url)
            measure(url, asked.requests, asked.processes)


if __name__ == "__main__":
    main()
