"""How fast GET /costs.json answers over a large ledger. Run as: python -m benchmarks.costs_page [FILE] [--traces N]

FILE is a ledger, made by `python -m benchmarks.ledger --fill` where it is not there. Prints one JSON line for each interval:
milliseconds from request to whole body on loopback, the first answer of a fresh process apart from the rest.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "costs"))

from traffic import KEY, ladder, serving

from benchmarks.ledger import fill
from deployments.ledger import connect
from router import config

INTERVALS = ("24h", "7d", "30d", "60d")


def ask(root: str, query: str) -> float:
    """Milliseconds."""
    request = urllib.request.Request(f"{root}/costs.json?{query}", headers={"authorization": f"Bearer {KEY}"})
    began = time.perf_counter()
    json.load(urllib.request.urlopen(request, timeout=120))
    return 1000 * (time.perf_counter() - began)


def measure(file: Path, n: int) -> None:
    engine = connect(config.Ledger(url=f"sqlite:///{file}"))
    with engine.connect() as connection:
        traces = connection.exec_driver_sql("SELECT count(*) FROM traces").scalar()
    with serving(engine, ladder()) as root:
        for since in INTERVALS:
            first = ask(root, f"since={since}")
            cuts = statistics.quantiles([ask(root, f"since={since}") for _ in range(n)], n=100)
            say(bench="costs page", traces=traces, since=since, first_ms=first, p50_ms=cuts[49], p99_ms=cuts[98], requests=n)
    engine.dispose()


def say(**figures: Any) -> None:
    print(json.dumps({k: round(v, 1) if isinstance(v, float) else v for k, v in figures.items()}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, help="an SQLite ledger; none: a temporary one")
    parser.add_argument("--traces", type=int, default=1_000_000, help="requests of a ledger that is made (%(default)s)")
    parser.add_argument("--requests", type=int, default=100, help="answers timed for each interval (%(default)s)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = asked.file or Path(folder) / "ledger.db"
        if not file.exists():
            fill(asked.traces, f"sqlite:///{file}")
        measure(file, asked.requests)


if __name__ == "__main__":
    main()
