"""Checks that reported costs are true, live: requests at full speed while processes are killed. `python -m benchmarks.cost`

It runs the pocket ladder on a ledger in a real PostgreSQL, sends mixed requests at concurrency 16, and kills -9 the ingress, a
replica or the database at random moments. Every response that a client saw completed must have its rows exactly once,
and four sources must agree: the responses' own usage, the ledger, /costs.json and Prometheus. It prints one JSON line for each
check, and a summary last; the exit code is 1 when a check fails.
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import httpx
import yaml
from sqlalchemy import Engine, create_engine, func, select

sys.path[:0] = [str(Path(__file__).parent.parent / "tests" / "deployments" / "ledger")]
from postgres import postgres  # noqa: E402

from benchmarks.cost_load import Seen, bodies, budgeted, killing, load  # noqa: E402

AUDITED = 0.1  # share of accepted answers that the largest tier is asked for too


@contextmanager
def config_on(url: str) -> Iterator[str]:
    """The pocket ladder with its ledger at `url`, and some of its answers audited."""
    from router.config import SHIPPED

    settings = yaml.safe_load((SHIPPED / "pocket.yaml").read_text().replace("../pocket", str(SHIPPED.parent / "pocket")))
    settings["ledger"] = {"url": url, "store": "nothing"}
    settings["escalation"]["audit_rate"] = AUDITED
    with TemporaryDirectory() as folder:
        file = Path(folder) / "pocket.yaml"
        file.write_text(yaml.safe_dump(settings))
        yield str(file)


def rows_once(engine: Engine, seen: Seen) -> dict[str, Any]:
    """Every completed response has one trace, and its calls' tokens are those it was told."""
    from deployments.ledger.schema import calls, traces

    with engine.connect() as connection:
        known = Counter(connection.execute(select(traces.c.id)).scalars())
        total = func.sum(calls.c.input_tokens + calls.c.output_tokens)
        of_client = calls.c.role != "audit"  # an audit is nobody's answer
        tokens = dict(connection.execute(select(calls.c.trace_id, total).where(of_client).group_by(calls.c.trace_id)).all())
        usd = dict(connection.execute(select(traces.c.id, traces.c.cost_usd)).all())
    lost = [trace for trace in seen.completed if known[trace] != 1]
    wrong = [trace for trace, said in seen.completed.items() if trace not in lost and int(tokens.get(trace) or 0) != said]
    dear = [trace for trace, said in seen.usd.items() if trace not in lost and abs(usd[trace] - said) > 0.01 * max(said, 1e-12)]
    return {
        "check": "rows exactly once",
        "completed": len(seen.completed),
        "lost_or_doubled": len(lost),
        "other_tokens": len(wrong),
        "other_usd": len(dear),
        "holds": not lost and not wrong and not dear,
    }


def totals(engine: Engine) -> dict[str, float]:
    from deployments.ledger.schema import calls

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
    from deployments.ledger.schema import calls, windows

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
    return {
        "check": "provisioned time",
        "held_s": sum(s for s, _ in held.values()),
        "off_by_at_most": max(off),
        "page": told,
        "busy_of_calls_s": float(busy[0]),
        "calls_without_reading": busy[1],
        "holds": max(off) <= 0.01,
    }


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
    from deployments.monitoring.grafana import ray_temp
    from deployments.monitoring.prometheus import DISCOVERY, prometheus
    from deployments.serve.background import free_port

    with TemporaryDirectory() as data, prometheus(free_port(), Path(data), ray_temp() / DISCOVERY, every_s=2) as address:
        yield address


def panels(address: str) -> dict[str, Any]:
    from deployments.monitoring.prometheus import check_panels

    found = check_panels(address)
    silent = {str(row.panel): row.error or row.empty or "no data" for row in found if not row.n_series}
    return {"check": "panels", "queries": len(found), "without_data": silent, "holds": not any(row.wrong for row in found)}


@click.command()
@click.option("--n", default=2_000, show_default=True)
@click.option("--at-once", default=16, show_default=True)
@click.option("--kills", default=5, show_default=True)
@click.option("--seed", default=5, show_default=True)
def main(n: int, at_once: int, kills: int, seed: int) -> None:
    from deployments.serve.background import served

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
                    load(url, [key, budgeted(address)], asked, at_once, seen, progress),
                    killing(database, progress, n, kills, seed),
                )
                return killed

            killed = asyncio.run(run())
            took = time.monotonic() - began
            time.sleep(20)  # late rows and Prometheus's next look
            engine = create_engine(address)
            say(
                {
                    "check": "load",
                    "requests": n,
                    "completed": len(seen.completed),
                    "failed": dict(seen.failed),
                    "killed": killed,
                    "seconds": round(took, 1),
                    "holds": len(killed) == kills,
                }
            )
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
