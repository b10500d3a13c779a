"""Whether what is told of costs is true, live: requests at full speed while processes are killed. `python -m benchmarks.cost`

Runs the pocket ladder on a ledger in a real PostgreSQL, sends mixed requests at concurrency 16, and kills -9 the ingress, a
replica or the database at random moments. Then every response that a client saw completed must have its rows exactly once,
and four sources must agree: the responses' own usage, the ledger, /costs.json and Prometheus. One JSON line for each check,
a summary last; exit code 1 when one of them does not hold.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import httpx
import yaml
from sqlalchemy import Engine, create_engine, func, select

sys.path[:0] = [str(Path(__file__).parent.parent / "tests" / "ledger")]
from postgres import Postgres, postgres  # noqa: E402

KINDS = ("single", "single", "single", "composite", "chain")
INGRESS, REPLICA, DATABASE = "ingress", "replica", "database"
VICTIMS = (INGRESS, REPLICA, DATABASE, INGRESS, REPLICA)


@dataclass
class Seen:
    """What the clients saw."""

    completed: dict[str, int] = field(default_factory=dict)
    """trace id -> total tokens of the response's usage"""
    usd: dict[str, float] = field(default_factory=dict)
    """trace id -> what the response said it cost, where it did"""
    failed: Counter[str] = field(default_factory=Counter)


@contextmanager
def config_on(url: str) -> Iterator[str]:
    """The pocket ladder with its ledger at `url`."""
    from router.config import SHIPPED

    text = (SHIPPED / "pocket.yaml").read_text().replace("../pocket", str(SHIPPED.parent / "pocket"))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "pocket.yaml"
        file.write_text(text + yaml.safe_dump({"ledger": {"url": url, "store": "nothing"}}))
        yield str(file)


def bodies(n: int, seed: int) -> list[dict[str, Any]]:
    from deployments.pocket.tasks import fresh

    chance = random.Random(seed)
    kinds = [chance.choice(KINDS) for _ in range(n)]
    prompts = {kind: iter(fresh(kind, kinds.count(kind), seed)) for kind in set(kinds)}  # type: ignore[arg-type]
    ways = ["auto", "auto", "auto", "auto:cheap", "auto:quality", "large"]
    return [
        {
            "model": chance.choice(ways),
            "messages": [{"role": "user", "content": next(prompts[kind]).prompt}],
            "temperature": 0,
            "stream": chance.random() < 0.5,
        }
        for kind in kinds
    ]


async def ask(client: httpx.AsyncClient, url: str, body: dict[str, Any], seen: Seen) -> None:
    """One request; a response counts as completed when its end was there and said no error."""
    try:
        async with client.stream("POST", f"{url}/chat/completions", json=body) as answer:
            text = (await answer.aread()).decode()
    except httpx.HTTPError as error:
        seen.failed[type(error).__name__] += 1
        return
    usage = usage_of(text, body["stream"]) if answer.status_code == 200 else None
    if usage is None:
        seen.failed[str(answer.status_code)] += 1
        return
    trace = answer.headers["x-stepdown-trace-id"]
    seen.completed[trace] = usage["total_tokens"]
    if "stepdown" in usage:
        seen.usd[trace] = usage["stepdown"]["cost_usd"]


def usage_of(text: str, stream: bool) -> dict[str, Any] | None:
    """None: it did not come to its end, or the end is an error."""
    if not stream:
        return dict(json.loads(text)["usage"])
    parts = [part.removeprefix("data: ") for part in text.split("\n\n") if part.startswith("data: ")]
    if not parts or parts[-1] != "[DONE]" or '"error"' in parts[-2][:12]:
        return None
    return json.loads(parts[-2]).get("usage") or None


async def load(url: str, key: str, asked: list[dict[str, Any]], at_once: int, seen: Seen, progress: list[int]) -> None:
    queue = list(reversed(asked))
    async with httpx.AsyncClient(timeout=180, headers={"authorization": f"Bearer {key}"}) as client:

        async def worker() -> None:
            while queue:
                failed = seen.failed.total()
                await ask(client, url, queue.pop(), seen)
                progress[0] += 1
                if seen.failed.total() > failed:  # the run is not to be over before what was killed is back
                    await asyncio.sleep(0.5)

        await asyncio.gather(*(worker() for _ in range(at_once)))


# -- killing ---------------------------------------------------------------------------------------------------------------


def pids(words: str) -> list[int]:
    found = subprocess.run(["pgrep", "-f", words], capture_output=True, text=True).stdout.split()
    return [int(pid) for pid in found if int(pid) != os.getpid()]


def kill(victim: str, database: Postgres, chance: random.Random) -> str:
    """kill -9; a database is started again after two seconds, the rest is Ray's to start again."""
    if victim == DATABASE:
        os.kill(int((database.folder / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        time.sleep(3)  # its children notice by themselves
        database.start()
        return "postgresql"
    name = "ingress" if victim == INGRESS else f"tier-{chance.choice(['small', 'medium'])}"
    killed = pids(f"^ray::ServeReplica:stepdown:{name}") or pids(f"ServeReplica:stepdown:{name}")
    for pid in killed[:1]:
        os.kill(pid, signal.SIGKILL)
    return f"{name}{'' if killed else ' (not found)'}"


async def killing(database: Postgres, progress: list[int], total: int, kills: int, seed: int) -> list[str]:
    """At random places of the run."""
    chance = random.Random(seed)
    places = sorted(chance.sample(range(total // 10, total * 9 // 10), kills))
    done = []
    for place, victim in zip(places, VICTIMS, strict=False):
        while progress[0] < place:
            await asyncio.sleep(0.05)
        done.append(await asyncio.to_thread(kill, victim, database, chance))
    return done


# -- checking --------------------------------------------------------------------------------------------------------------


def rows_once(engine: Engine, seen: Seen) -> dict[str, Any]:
    """Every completed response has one trace, and its calls' tokens are those it was told."""
    from deployments.schema import calls, traces

    with engine.connect() as connection:
        known = Counter(connection.execute(select(traces.c.id)).scalars())
        total = func.sum(calls.c.input_tokens + calls.c.output_tokens)
        tokens = dict(connection.execute(select(calls.c.trace_id, total).group_by(calls.c.trace_id)).all())
        usd = dict(connection.execute(select(traces.c.id, traces.c.cost_usd)).all())
    lost = [trace for trace in seen.completed if known[trace] != 1]
    wrong = [trace for trace, said in seen.completed.items() if trace not in lost and int(tokens.get(trace) or 0) != said]
    dear = [trace for trace, said in seen.usd.items() if trace not in lost and abs(usd[trace] - said) > 0.01 * max(said, 1e-12)]
    return {"check": "rows exactly once", "completed": len(seen.completed), "lost_or_doubled": len(lost),
            "other_tokens": len(wrong), "other_usd": len(dear), "holds": not lost and not wrong and not dear}  # fmt: skip


def totals(engine: Engine) -> dict[str, float]:
    from deployments.schema import calls

    with engine.connect() as connection:
        row = connection.execute(
            select(func.sum(calls.c.input_tokens), func.sum(calls.c.output_tokens), func.sum(calls.c.cost_usd), func.count())
        ).one()
    return {"input_tokens": int(row[0]), "output_tokens": int(row[1]), "cost_usd": float(row[2]), "calls": row[3]}


def page_agrees(url: str, key: str, ledger: dict[str, float]) -> dict[str, Any]:
    page = httpx.get(url.replace("/v1", "/costs.json"), headers={"authorization": f"Bearer {key}"}, timeout=60).json()
    told = {name: page["totals"][name] for name in ledger}
    near = abs(told["cost_usd"] - ledger["cost_usd"]) <= 0.01 * ledger["cost_usd"]
    same = all(told[name] == ledger[name] for name in ("input_tokens", "output_tokens", "calls"))
    return {"check": "/costs.json", "ledger": ledger, "page": told, "holds": same and near}


def provisioned(url: str, key: str, engine: Engine) -> dict[str, Any]:
    """What requests, and nobody, were charged on the page against the windows that the ledger holds, by tier and in all."""
    from deployments.schema import calls, windows

    page = httpx.get(url.replace("/v1", "/costs.json"), headers={"authorization": f"Bearer {key}"}, timeout=60).json()
    of = windows.c
    seconds = of.seconds * of.replicas * of.accelerators
    query = select(of.tier, func.sum(seconds), func.sum(seconds * of.usd_per_accelerator_hour / 3600)).group_by(of.tier)
    with engine.connect() as connection:
        held = {tier: (float(s), float(usd)) for tier, s, usd in connection.execute(query)}
        busy = connection.execute(select(func.sum(calls.c.busy_s), func.count().filter(calls.c.busy_s.is_(None)))).one()
    charged = {row["tier"]: (charge(row, "_s"), charge(row, "_usd")) for row in page["by"]["tier"] if row["tier"] in held}
    off = [abs(a - b) / b for tier in held for a, b in zip(charged[tier], held[tier], strict=True)]
    told = {name: page["gpu"][name] for name in page["gpu"]}
    return {"check": "provisioned time", "held_s": sum(s for s, _ in held.values()), "off_by_at_most": max(off), "page": told,
            "busy_of_calls_s": float(busy[0]), "calls_without_reading": busy[1], "holds": max(off) <= 0.01}  # fmt: skip


def charge(row: dict[str, Any], unit: str) -> float:
    """Busy, idle and nobody's, less what was measured beyond what was held."""
    return sum(float(row[f"{part}{unit}"]) for part in ("busy", "idle", "nobody", "over") if f"{part}{unit}" in row)


def prometheus_agrees(prometheus: str, ledger: dict[str, float]) -> dict[str, Any]:
    """The gauges read from the ledger, of the replica that told them last."""

    def value(query: str) -> float:
        found = httpx.get(f"{prometheus}/api/v1/query", params={"query": query}, timeout=30).json()["data"]["result"]
        return float(found[0]["value"][1]) if found else float("nan")

    told = {
        "input_tokens": value('sum(max by (tier) (ray_stepdown_ledger_tokens{kind="input"}))'),
        "output_tokens": value('sum(max by (tier) (ray_stepdown_ledger_tokens{kind="output"}))'),
        "calls": value("sum(max by (tier) (ray_stepdown_ledger_calls))"),
        "cost_usd": value("sum(max by (tier) (ray_stepdown_ledger_cost_usd))"),
    }
    same = all(told[name] == ledger[name] for name in ("input_tokens", "output_tokens", "calls"))
    near = abs(told["cost_usd"] - ledger["cost_usd"]) <= 0.01 * ledger["cost_usd"]
    return {"check": "prometheus", "prometheus": told, "holds": same and near}


@contextmanager
def watching() -> Iterator[str]:
    """A real Prometheus on Ray's discovery file."""
    from deployments.background import free_port
    from deployments.monitoring import DISCOVERY, default_temp, prometheus

    with TemporaryDirectory() as data, prometheus(free_port(), Path(data), default_temp() / DISCOVERY, every_s=2) as address:
        yield address


def panels(address: str) -> dict[str, Any]:
    from deployments.monitoring import check_panels

    found = check_panels(address)
    silent = {str(row.panel): row.error or row.empty or "no data" for row in found if not row.n_series}
    return {"check": "panels", "queries": len(found), "without_data": silent, "holds": not any(row.wrong for row in found)}


@click.command()
@click.option("--n", default=2_000, show_default=True)
@click.option("--at-once", default=16, show_default=True)
@click.option("--kills", default=5, show_default=True)
@click.option("--seed", default=5, show_default=True)
def main(n: int, at_once: int, kills: int, seed: int) -> None:
    from deployments.background import served

    lines: list[dict[str, Any]] = []

    def say(line: dict[str, Any]) -> None:
        lines.append(line)
        print(json.dumps(line), flush=True)

    with postgres(fsync=True) as database, TemporaryDirectory() as state:
        os.environ["STEPDOWN_STATE_DIR"] = state
        address = database.database()
        with config_on(address) as config, served(config) as (url, key), watching() as prometheus:
            seen, progress, began = Seen(), [0], time.monotonic()

            async def run() -> list[str]:
                asked = bodies(n, seed)
                _, killed = await asyncio.gather(
                    load(url, key, asked, at_once, seen, progress), killing(database, progress, n, kills, seed)
                )
                return killed

            killed = asyncio.run(run())
            took = time.monotonic() - began
            time.sleep(20)  # late rows and Prometheus's next look
            engine = create_engine(address)
            say({"check": "load", "requests": n, "completed": len(seen.completed), "failed": dict(seen.failed),
                 "killed": killed, "seconds": round(took, 1), "holds": len(killed) == kills})  # fmt: skip
            say(rows_once(engine, seen))
            ledger = totals(engine)
            say(page_agrees(url, key, ledger))
            say(prometheus_agrees(prometheus, ledger))
            say(provisioned(url, key, engine))
            say(panels(prometheus))
            engine.dispose()
    print(json.dumps({"benchmark": "cost", "holds": all(line["holds"] for line in lines)}))
    sys.exit(0 if all(line["holds"] for line in lines) else 1)


if __name__ == "__main__":
    main()
