"""Times of a large log of kept requests. Run as: python -m benchmarks.stored_rows [--rows N] [--ledger FILE]

It makes a SQLite ledger of N kept requests of twenty keys, of which a tenth is filled in and graded, in a temporary folder, or in
FILE, which it keeps and takes again. It prints one JSON line. Of one page as the endpoints and commands read it, of `stepdown log
show`, and of forgetting a thousand requests: milliseconds of the slowest of several, and how many of them the processor worked.
export_mb: by how many megabytes the process grows while it exports.
"""

import argparse
import json
import random
import resource
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from deployments.learning.kept.completion_routes import CompletionRoutes
from deployments.learning.kept.completions import ENDLESS, Chosen
from deployments.learning.kept.log_export import Export
from deployments.learning.kept.log_report import forget_all, report
from deployments.learning.kept.stored_json import Asked
from deployments.ledger.database import connect, migrate
from deployments.ledger.schema import completion_metadata, completions, fills, grades
from router import config

KEYS = 20
TIERS = ("small", "medium", "large")
DRAWN = 0.1
SPAN_S = 30 * 86_400
NOW_S = 1_790_000_000.0
WORDS = "the a report mail order delay which when refund invoice please write short answer list of three reasons why".split()
BATCH = 5_000
EXPORTED = 20  # pages that are timed
SIGNALS = json.dumps({"mean_logprob": -0.2, "min_logprob": -1.5, "logprob_tokens": 40, "first_logprobs": [-0.2] * 40})


def rows_of(n: int, count: int, draw: random.Random) -> dict[str, list[dict[str, Any]]]:
    """All rows of one request, by table."""
    trace, at_s, key = f"{draw.getrandbits(128):032x}", NOW_S - SPAN_S * (1 - n / count), f"key-{draw.randrange(KEYS):02d}"
    tier = draw.choices(TIERS, (70, 29.9, 0.1))[0]
    metadata = {"app": draw.choice(("mail", "chat")), "user": f"u{draw.randrange(5000)}"}
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " ".join(draw.choices(WORDS, k=60))}]
    common = {
        "trace_id": trace,
        "key_id": key,
        "created_s": at_s,
        "conversation": trace[:16],
        "wanted": "auto",
        "finish": "stop",
        "input_tokens": 70,
        "output_tokens": 40,
        "cost_usd": 1e-4,
        "consent": "all",
        "licence": "apache-2.0",
        "redaction": "",
        "expires_s": at_s + SPAN_S,
        "signals": SIGNALS,
        "tools": None,
    }

    def row(of: str, role: str, id: str, **more: Any) -> dict[str, Any]:
        said = json.dumps({"role": "assistant", "content": " ".join(draw.choices(WORDS, k=40))})
        return {
            **common,
            "id": id,
            "call_id": f"{trace}-{of}",
            "role": role,
            "tier": of,
            "model": f"{of}-1",
            "answer": said,
            **more,
        }

    asked = {"messages": json.dumps(messages), "sampling": '{"temperature": 0}', "metadata": json.dumps(metadata)}
    others = {"messages": None, "sampling": None, "metadata": "{}"}
    found = [row(tier, "answer", f"chatcmpl-{trace}", **asked)]
    graded: list[dict[str, Any]] = []
    drawn: list[dict[str, Any]] = []
    if draw.random() < DRAWN:
        found += [row(of, "fill", f"{trace}/{of}", **others) for of in TIERS if of != tier]
        drawn = [{"trace_id": trace, "drawn_s": at_s, "chance": DRAWN, "state": "done", "why": "", "changed_s": at_s}]
        about = {"trace_id": trace, "source": "agreement", "detail": "", "at_s": at_s}
        graded = [{**about, "tier": of, "score": float(draw.random() < 0.8)} for of in TIERS]
    pair = {"completion_id": f"chatcmpl-{trace}", "key_id": key, "created_s": at_s}
    pairs = [{**pair, "name": name, "value": value} for name, value in metadata.items()]
    return {"completions": found, "completion_metadata": pairs, "fills": drawn, "grades": graded}


def fill(path: Path, count: int) -> None:
    """Straight into the file, since only reading is measured."""
    draw = random.Random(0)
    tables = {table.name: [c.name for c in table.columns] for table in (completions, completion_metadata, fills, grades)}
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA synchronous=OFF")
        for start in range(0, count, BATCH):
            made = [rows_of(n, count, draw) for n in range(start, min(start + BATCH, count))]
            for name, columns in tables.items():
                values = [[row[column] for column in columns] for rows in made for row in rows[name]]
                marks = ", ".join("?" for _ in columns)
                file.executemany(f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({marks})", values)
            file.commit()
    file.close()


def ms(work: Callable[[], Any], times: int = 5) -> list[float]:
    """Milliseconds of the slowest of several calls, to which other processes add, and how many of them the processor worked."""
    took = []
    for _ in range(times):
        began, worked = time.perf_counter(), time.process_time()
        work()
        took.append((1000 * (time.perf_counter() - began), 1000 * (time.process_time() - worked)))
    return [round(figure, 1) for figure in max(took)]


def lists(engine: Engine) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Pages of GET /v1/chat/completions: with JSON, without HTTP."""
    reader: Any = CompletionRoutes(engine, None, None, None, None)  # type: ignore[arg-type]  # only its pages are read

    def page(chosen: Chosen, after: str = "", newest_first: bool = False) -> Callable[[], Any]:
        return lambda: json.dumps(reader.page(chosen, Asked(after, 100, newest_first)))

    middle = in_the_middle(engine)
    yield "first", page(Chosen("key-03"))
    yield "middle", page(Chosen(None), middle)
    yield "newest", page(Chosen("key-03"), "", True)
    yield "every_key", page(Chosen())
    yield "rare_tier", page(Chosen("key-03", "large"))
    yield "no_such_model", page(Chosen(None, "nothing"))
    yield "metadata", page(Chosen("key-03", metadata={"app": "mail"}))
    yield "metadata_middle", page(Chosen(metadata={"app": "mail"}), middle, True)
    yield "metadata_rare", page(Chosen(metadata={"user": "u77"}))
    yield "metadata_pairs", page(Chosen(metadata={"app": "mail", "user": "u77"}))
    yield "metadata_tier", page(Chosen(metadata={"app": "mail"}, tier="large"))


def in_the_middle(engine: Engine) -> str:
    with engine.connect() as connection:
        half = "SELECT id FROM completions WHERE role = 'answer' AND created_s >= ? ORDER BY created_s LIMIT 1"
        return str(connection.exec_driver_sql(half, (NOW_S - SPAN_S / 2,)).scalar_one())


def exporting(engine: Engine) -> dict[str, Any]:
    """The slowest page, with JSON, and megabytes that the process grew by after the first one."""
    rows = Export("openai", TIERS).rows(engine, Chosen())

    def page() -> None:
        for row in islice(rows, 200):
            json.dumps(row)

    first, before = ms(page, 1), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slowest = max(first, ms(page, EXPORTED))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"export_page_ms": slowest, "export_mb": round(grown / 1024, 1)}


def shown(engine: Engine, chosen: Chosen) -> None:
    with engine.connect() as connection:
        report(connection, chosen, 10)


def measure(engine: Engine, count: int, path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"bench": "stored rows", "requests": count, "mb": round(path.stat().st_size / 1e6)}
    found["list_ms"] = {name: ms(work) for name, work in lists(engine)}
    found |= exporting(engine)
    found["show_ms"] = ms(lambda: shown(engine, Chosen()), 1)
    found["show_day_ms"] = ms(lambda: shown(engine, Chosen(since_s=NOW_S - 86_400)), 2)
    since = NOW_S - SPAN_S * 1000 / count
    found["forget_1000_ms"] = ms(lambda: forget_all(engine, Chosen(since_s=since, until_s=ENDLESS)), 1)
    return found


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rows", type=int, default=1_000_000)
    asked.add_argument("--ledger", type=Path, default=None)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.ledger or Path(folder) / "ledger.db"
        fresh = not path.exists()
        engine = connect(config.Ledger(url=f"sqlite:///{path.absolute()}"))
        migrate(engine)
        if fresh:
            fill(path, given.rows)
        print(json.dumps(measure(engine, given.rows, path)))
        engine.dispose()


if __name__ == "__main__":
    main()
