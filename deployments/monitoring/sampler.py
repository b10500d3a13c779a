"""Reports to the metrics, every few seconds, what changes without a request: certificates, budgets, the ledger."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from deployments.daemon import Daemon
from deployments.ledger.ledger import Ledger
from deployments.ledger.schema import budgets, daily, daily_keys, keys
from deployments.monitoring.metrics import Metrics, Total
from router.decide.promises import Promises
from router.limits.key_limits import day_of, month_of

EVERY_S = 5.0
CALLS = ("calls", "input_tokens", "output_tokens", "cached_tokens", "cost_usd")  # sums of calls that have a metric
log = logging.getLogger("stepdown")


class Learned(Protocol):
    """Counts, since the start, of what is kept to learn from."""

    kept: int
    dropped: Counter[str]
    """why -> how many"""


class Sampler:
    """Samples every `every_s` seconds. Its query takes a few milliseconds for a year of days."""

    def __init__(
        self,
        metrics: Metrics,
        promises: Callable[[], Promises],
        ledger: Ledger | None,
        every_s: float = EVERY_S,
        learning: Learned | None = None,
    ) -> None:
        self.metrics, self.promises, self.ledger, self.every_s = metrics, promises, ledger, every_s
        self.learning = learning
        self.daemon = Daemon(self.run)

    def start(self) -> None:
        self.daemon.start()

    async def stop(self) -> None:
        """Sample once more, so that the last sums are reported before the process ends."""
        if await self.daemon.stop():
            await self.sample()

    async def run(self) -> None:
        while True:
            await self.sample()
            await asyncio.sleep(self.every_s)

    async def sample(self) -> None:
        promises = self.promises()
        self.metrics.certificates({target: promises.worst(target) for target in promises.targets})
        if self.learning:
            self.metrics.learning(self.learning.kept, dict(self.learning.dropped))
        if self.ledger is None:
            return
        self.metrics.ledger(self.ledger.state, self.ledger.spooled)
        try:
            found, used = await asyncio.to_thread(read_sums, self.ledger.engine)
        except SQLAlchemyError as error:  # the gauge of the ledger's state shows it already
            log.debug("the ledger's sums cannot be read: %s", error)
            return
        self.metrics.totals(found)
        for key, share in used.items():
            self.metrics.budget(key, share)


def read_sums(engine: Engine) -> tuple[list[Total], dict[str, float]]:
    """The ledger's sums by tier, and the share spent of each key's tightest budget."""
    return totals(engine), used_of_budgets(engine)


def totals(engine: Engine) -> list[Total]:
    """The ledger's sums by tier, from its sums by the day."""
    calls, requests = daily.c, daily_keys.c
    of_calls: dict[str, ColumnElement[Any]] = {name: func.sum(calls[name]) for name in CALLS}
    of_calls["audit_usd"] = func.sum(calls.cost_usd).filter(calls.role == "audit")
    of_calls["learning_usd"] = func.sum(calls.cost_usd).filter(calls.role.in_(("fill", "judge")))
    of_requests: dict[str, ColumnElement[Any]] = {
        "requests": func.sum(requests.requests),
        "counterfactual_usd": func.sum(requests.counterfactual_usd),
        "compared_usd": func.sum(requests.cost_usd),
    }
    found: dict[str, dict[str, float]] = {}
    with engine.connect() as connection:
        for tier, sums in ((calls.tier, of_calls), (requests.tier, of_requests)):
            for name, *values in connection.execute(select(tier, *sums.values()).group_by(tier)):
                found.setdefault(name, {}).update(zip(sums, (float(value or 0) for value in values), strict=True))
    return [Total(tier, **found[tier]) for tier in sorted(found)]


def used_of_budgets(engine: Engine) -> dict[str, float]:
    """key id -> share spent of its day's or its month's budget, whichever is larger."""
    now_s = time.time()
    limits = {day_of(now_s).name: keys.c.usd_per_day, month_of(now_s).name: keys.c.usd_per_month}
    used: dict[str, float] = {}
    with engine.connect() as connection:
        for period, limit in limits.items():
            query = select(keys.c.id, budgets.c.spent_usd, limit).where(
                keys.c.id == budgets.c.key_id, budgets.c.period == period, limit > 0, keys.c.revoked_s.is_(None)
            )
            for key, spent, most in connection.execute(query):
                used[key] = max(used.get(key, 0.0), spent / most)
    return used
