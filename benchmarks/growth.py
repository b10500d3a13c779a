"""Measures what a request costs as the ladder and the log grow. `python -m benchmarks.growth`

The ladder: one decision for a prompt of 500 characters, with the default classifier and everything that the ingress does to
choose, over 2 to 32 tiers. The log: how long a request waits for its ledger row, in a SQLite file of a thousand rows and in
one of millions, written alternately. Ids are random, as the server's are, so rows land anywhere in the indexes. Prints one JSON
line each.
"""

import asyncio
import random
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from sqlalchemy import Connection, event, text

from benchmarks.decide import made_up, prompts, times_ms
from benchmarks.ledger import batches, trace
from benchmarks.load import say
from deployments.ledger.database import connect, migrate, writing
from deployments.ledger.ledger import Ledger
from deployments.ledger.rows import from_trace, together
from deployments.ledger.schema import calls, traces
from deployments.ledger.writes import write
from router import config

TIERS = (2, 4, 8, 16, 32)
ROWS = (1_000, 10_000_000)
PER_TOKEN = ("usd_per_1m_input", "usd_per_1m_output")
TEMPLATE = 20_000  # requests that the writer's own code writes; the others are copies of them under other ids


# -- the ladder ------------------------------------------------------------------------------------------------------------


def decisions(tiers: int, folder: Path) -> dict[str, Any]:
    """Times of a whole choice: constraints, classifier, rule, queues."""
    from deployments.endpoint.accounts import without_books
    from deployments.endpoint.answering import Answering
    from deployments.keys.admission import NOBODY
    from deployments.tiers.echo_tier import EchoTier
    from deployments.tiers.token_counters import counters
    from router.engine import Router, load_artefact
    from router.request.wire import parse

    names = [f"tier{n:02d}" for n in range(tiers)]
    made_up(folder / str(tiers), names=names)
    ladder = [
        {"name": name, "engine": "echo", "context": 8192, "price": dict.fromkeys(PER_TOKEN, n + 1)}
        for n, name in enumerate(names)
    ]
    settings = config.Config.model_validate({"tiers": ladder, "routing": {"artefact": str(folder / str(tiers))}})
    router = Router(settings, load_artefact(settings), counters(settings))
    answering = Answering(router, {tier.name: EchoTier(tier) for tier in settings.tiers}, without_books())
    bodies = {t: b'{"model":"auto","messages":[{"role":"user","content":"%s"}]}' % t.encode() for t in prompts(600, 500)}
    asked = {t: parse("chat/completions", raw) for t, raw in bodies.items()}
    loop = asyncio.new_event_loop()
    try:
        return {"tiers": tiers, **times_ms(lambda t: loop.run_until_complete(answering.decide(asked[t], NOBODY)), list(asked))}
    finally:
        loop.close()


# -- the log ---------------------------------------------------------------------------------------------------------------


def filled(url: str, rows: int) -> int:
    """Traces and calls that there are now: at least `rows`."""
    engine = connect(config.Ledger(url=url))
    event.listen(engine, "connect", hurry)
    migrate(engine)
    dice, now = random.Random(1), time.time()
    ids = sorted(f"{dice.getrandbits(24):06x}ffffff{dice.getrandbits(80):020x}" for _ in range(min(TEMPLATE, rows // 2)))
    made = (from_trace(trace(id, now - dice.random() * 60 * 86400, dice)) for id in ids)
    for batch in batches(made, 5000):
        with writing(engine) as connection:
            write(connection, together(batch))
    with writing(engine) as connection:
        template = counts(connection)
    for n in range(1, -(-rows // sum(template.values()))):
        with writing(engine) as connection:
            copy(connection, n, template)
    with writing(engine) as connection:
        total = sum(counts(connection).values())
    engine.dispose()
    return total


def hurry(connection: Any, record: Any) -> None:
    """While filling only: what is half made is thrown away anyway."""
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA cache_size=-1000000")


def counts(connection: Connection) -> dict[str, int]:
    names = (traces.name, calls.name)
    return {name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() for name in names}


def copy(connection: Connection, n: int, template: Mapping[str, int]) -> None:
    """The template's rows once more. Of its ids the seventh to twelfth digit change: those before scatter the copies evenly."""
    for table, ids in ((traces, ("id",)), (calls, ("id", "trace_id"))):
        names = [column.name for column in table.columns]
        changed = {name: f"substr({name}, 1, 6) || :mark || substr({name}, 13)" for name in ids}
        values = ", ".join(changed.get(name, name) for name in names)
        statement = f"INSERT INTO {table.name} ({', '.join(names)}) SELECT {values} FROM {table.name} WHERE rowid <= :first"
        connection.execute(text(statement), {"mark": f"{n:06x}", "first": template[table.name]})


async def waits_ms(files: dict[int, str], requests: int) -> dict[int, list[float]]:
    """Of one request after the other, written to each file in turn."""
    ledgers = {rows: Ledger(config.Ledger(url=url)) for rows, url in files.items()}
    for ledger in ledgers.values():
        await ledger.open()
    dice, waits = random.Random(2), {rows: [] for rows in files}
    for n in range(requests):
        for rows, ledger in ledgers.items():
            one = trace(uuid.uuid4().hex, time.time(), dice)
            began = time.perf_counter()
            await ledger.record(one)
            if n >= requests // 10:
                waits[rows].append((time.perf_counter() - began) * 1e3)
    for ledger in ledgers.values():
        await ledger.close()
    return waits


def logs(sizes: tuple[int, ...], folder: Path, requests: int) -> Iterator[dict[str, Any]]:
    files, seen, began = {}, {}, time.perf_counter()
    for rows in sizes:
        files[rows] = f"sqlite:///{folder}/{rows}.db"
        seen[rows] = filled(files[rows], rows)
    fill_s = time.perf_counter() - began
    for rows, waits in asyncio.run(waits_ms(files, requests)).items():
        size_mb = (folder / f"{rows}.db").stat().st_size / 1e6
        yield {
            "rows": seen[rows],
            "file_mb": round(size_mb),
            "fill_s": round(fill_s),
            "requests": len(waits),
            **{f"p{q}_ms": round(float(np.percentile(waits, q)), 3) for q in (50, 90, 99)},
        }


@click.command(help=__doc__)
@click.option("--rows", default=ROWS[1], show_default=True, help="of the large log")
@click.option("--requests", default=2000, show_default=True, help="written to each log")
@click.option("--folder", default=".", show_default=True, help="where the logs go: a real disk, with 500 bytes a row")
def main(rows: int, requests: int, folder: str) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as at:
        for tiers in TIERS:
            say({"scenario": "tiers", **decisions(tiers, Path(at))})
        for line in logs((ROWS[0], rows), Path(at), requests):
            say({"scenario": "log", **line})


if __name__ == "__main__":
    main()
