"""Made-up traffic, written by the ledger's own writer, and a server of the cost page over it."""

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.requests import Request

from deployments.costs.routes import Learned, routes
from deployments.ledger.database import connect, migrate, writing
from deployments.ledger.rows import Rows, from_call, from_trace, from_window, together
from deployments.ledger.schema import budgets, keys
from deployments.ledger.writes import write
from router import config
from router.config import Config
from router.errors import BadKey, NotAllowed
from router.trace import CallRow, Trace, Window

PRICES = {"small": (0.10, 0.40), "medium": (0.40, 1.60), "large": (2.50, 10.0)}
SPEED = {"small": 60, "medium": 30, "large": 12}  # output tokens a busy second
HOUR_USD = 0.4
HELD = {"small": 0.15, "medium": 0.12, "large": 0.09}  # replicas: the large one is given back most of the time
REASONS = ("good enough", "good enough", "worth its cost", "best we have", "asked for")
KEY = "sk-may-see-costs"
NOW = 1_790_000_000.0  # long ago enough that whole days are kept


def ladder(**sections) -> Config:
    tiers = [
        {
            "name": name,
            "engine": "vllm",
            "source": "/nowhere",
            "context": 8192,
            "accelerator": "H100",
            "price": {"usd_per_1m_input": into, "usd_per_1m_output": out, "usd_per_accelerator_hour": HOUR_USD},
        }
        for name, (into, out) in PRICES.items()
    ]
    return Config.model_validate({"tiers": tiers, **sections})


def price(tier: str, tokens: tuple[int, int]) -> float:
    return (tokens[0] * PRICES[tier][0] + tokens[1] * PRICES[tier][1]) / 1e6


def call(
    trace_id: str, key: str, name: str, role: str, tier: str, began_s: float, tokens: tuple[int, int], outcome: str
) -> CallRow:
    busy_s = tokens[1] / SPEED[tier] + tokens[0] / 1000
    return CallRow(
        f"{trace_id}/{name}",
        trace_id,
        key,
        role,
        tier,
        outcome,
        began_s,
        3 * busy_s,
        *tokens,
        cached_tokens=tokens[0] // 3,
        first_token_s=0.05,
        cost_usd=price(tier, tokens),
        replica=f"{tier}#1",
        busy_s=busy_s,
        gpu_usd=busy_s * HOUR_USD / 3600,
    )


def one(id: str, began_s: float, dice: random.Random, key: str, prompt: str | None = None) -> tuple[Trace, list[CallRow]]:
    """A trace, and the audits that come after it."""
    names = list(PRICES)
    first = dice.choices([0, 1, 2], [6, 2.5, 1.5])[0]
    tokens = (dice.randrange(60, 2400), dice.randrange(10, 500))
    visited = names[first : first + 2] if dice.random() < 0.18 else names[first : first + 1]
    wanted = "auto" if dice.random() < 0.8 else dice.choice(["auto:quality", visited[0]])
    routed = wanted.startswith("auto")
    failed = dice.random() < 0.01
    calls = [
        call(
            id,
            key,
            f"{tier}-{n}",
            "final" if tier == "large" else "attempt",
            tier,
            began_s + n,
            tokens,
            "accepted" if tier == visited[-1] else "low confidence",
        )
        for n, tier in enumerate(visited)
    ]
    alone = price("large", (tokens[0], round(tokens[1] * dice.uniform(0.7, 1.4))))
    direct = visited == ["large"]
    flow = "delegation" if dice.random() < 0.03 else "cascade" if len(visited) > 1 or first < 2 else "direct"
    made = Trace(
        id=id,
        key_id=key,
        began_s=began_s,
        took_s=0.2 + dice.random() * 2,
        path="chat/completions",
        wanted=wanted,
        status=502 if failed else 200,
        tier="" if failed else visited[-1],
        error="tier_failed" if failed else "",
        target={"auto": "balanced", "auto:quality": "quality"}.get(wanted, wanted),
        reason=dice.choice(REASONS[:4]) if routed else "asked for",
        flow=flow,
        stream=dice.random() < 0.5,
        confidence=round(dice.uniform(0.86, 0.995), 4) if routed else None,
        unfamiliar=0.1,
        p={name: round(min(1.0, 0.8 + 0.08 * n + dice.random() / 20), 4) for n, name in enumerate(names)} if routed else {},
        certificate="valid" if routed else "",
        decision_ms=0.7,
        first_byte_s=0.2,
        counterfactual_usd=None if failed else calls[-1].cost_usd if direct else alone,
        counterfactual_estimated=not direct,
        prompt=prompt,
        calls=tuple(calls),
    )
    audited = not direct and not failed and dice.random() < 0.05
    return made, [call(id, key, "audit", "audit", "large", began_s + 5, tokens, "answered")] if audited else []


def traffic(n: int, since: float, until: float, seed: int = 1, names: tuple[str, ...] = ("app", "batch", "docs")) -> Rows:
    """n requests by day and night, busier at noon and from one day to the next, and windows of the tiers' time."""
    dice, parts = random.Random(seed), []
    for i in range(n):
        at = since + (until - since) * dice.random() ** 0.85
        hour = at / 3600 % 24
        if dice.random() > 0.35 + 0.65 * max(0.0, 1 - abs(hour - 13) / 9):
            at -= dice.uniform(0, 6) * 3600
        made, audits = one(f"{seed:02d}{i:07x}" + "0" * 23, max(since, at), dice, dice.choice(names))
        parts += [from_trace(made), Rows(calls=[from_call(found) for found in audits])]
    for at in range(int(since // 300) * 300, int(until), 300):
        parts += [Rows(windows=[from_window(Window(tier, at, 300, held, 1, HOUR_USD))]) for tier, held in HELD.items()]
    return together(parts)


def database(folder: Path, *rows: Rows) -> Engine:
    engine = connect(config.Ledger(url=f"sqlite:///{folder / 'ledger.db'}"))
    migrate(engine)
    for some in rows:
        with writing(engine) as connection:
            write(connection, some)
    return engine


def add_keys(engine: Engine, names: dict[str, str], now: float) -> None:
    """id -> name; the first has budgets."""
    common = {"created_s": now, "rights": "[]", "tiers": None, "targets": None}
    day = time.strftime("%Y-%m-%d", time.gmtime(now))
    with writing(engine) as connection:
        for n, (id, name) in enumerate(names.items()):
            limits = {"usd_per_day": 5.0, "usd_per_month": 60.0} if not n else {}
            connection.execute(keys.insert().values(id=id, name=name, hash=f"{n:064d}", **common, **limits))
        spent = {"key_id": next(iter(names)), "spent_usd": 3.2, "reserved_usd": 0.1}
        connection.execute(budgets.insert(), [{**spent, "period": day}, {**spent, "period": day[:7], "spent_usd": 21.0}])


def live() -> dict:
    """The ladder as the ingress tells it."""
    shown = {"small": (2, 2, 3), "medium": (1, 1, 0), "large": (1, 0, 0)}
    tiers = [
        {
            "tier": name,
            "replicas": shown[name][0],
            "running": shown[name][1],
            "queue": shown[name][2],
            "price": {"usd_per_1m_input": into, "usd_per_1m_output": out, "usd_per_accelerator_hour": HOUR_USD},
        }
        for name, (into, out) in PRICES.items()
    ]
    certificates = {
        "balanced": {"state": "valid", "alpha": 0.03, "audits": 214, "audit_errors": 2},
        "quality": {"state": "stale", "alpha": 0.01},
    }
    return {"tiers": tiers, "certificates": certificates, "ledger": "ok"}


def allowed(request: Request) -> str:
    sent = request.headers.get("authorization", "")
    if sent == "Bearer sk-may-not":
        raise NotAllowed("this key may not see costs; it needs the right `costs`")
    if sent != f"Bearer {KEY}":
        raise BadKey
    return "admin"


async def settled() -> None:
    """These rows are in the tables."""


async def off() -> dict[str, Any]:
    """The state of learning where nothing is collected."""
    return {"collect": "off", "start": "asked"}


def app(engine: Engine, settings: Config, learned: Learned = off) -> Starlette:
    return Starlette(routes=routes(engine, settings, live, allowed, settled, learned))


@contextlib.contextmanager
def serving(engine: Engine, settings: Config, learned: Learned = off) -> Iterator[str]:
    """The endpoint's root."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app(engine, settings, learned), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
