"""What changes without a request, told to the metrics every few seconds: certificates, the ledger's state and sums, budgets."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from deployments.daemon import Daemon
from deployments.ledger.ledger import Ledger
from deployments.ledger.schema import budgets, daily, daily_keys, keys
from deployments.monitoring.metrics import Metrics, Total
from router.decide.promises import Promises

EVERY_S = 5.0
log = logging.getLogger("stepdown")


class Pulse:
    """every_s: the sums are read by a query over the days there are, a few milliseconds for a year of them."""

    def __init__(
        self, metrics: Metrics, promises: Callable[[], Promises], ledger: Ledger | None, every_s: float = EVERY_S
    ) -> None:
        self.metrics, self.promises, self.ledger, self.every_s = metrics, promises, ledger, every_s
        self.daemon = Daemon(self.run)

    def start(self) -> None:
        self.daemon.start()

    async def stop(self) -> None:
        """The last sums are told before the process ends."""
        if await self.daemon.stop():
            await self.beat()

    async def run(self) -> None:
        while True:
            await self.beat()
            await asyncio.sleep(self.every_s)

    async def beat(self) -> None:
        promises = self.promises()
        self.metrics.certificates({target: promises.worst(target) for target in promises.targets})
        if self.ledger is None:
            return
        self.metrics.ledger(self.ledger.state, self.ledger.spooled)
        try:
            found, used = await asyncio.to_thread(read, self.ledger.engine)
        except SQLAlchemyError as error:  # the gauge of its state says so already
            log.debug("the ledger's sums cannot be read: %s", error)
            return
        self.metrics.totals(found)
        for key, share in used.items():
            self.metrics.budget(key, share)


def read(engine: Engine) -> tuple[list[Total], dict[str, float]]:
    """Sums of all there is by tier, and the share used of each key's tightest budget."""
    return totals(engine), used_of_budgets(engine)


def totals(engine: Engine) -> list[Total]:
    """Sums of the days, in the database's own numbers."""
    of = daily.c
    audits = func.sum(of.cost_usd).filter(of.role == "audit")
    calls = select(
        of.tier,
        func.sum(of.calls),
        func.sum(of.input_tokens),
        func.sum(of.output_tokens),
        func.sum(of.cached_tokens),
        func.sum(of.cost_usd),
        audits,
    ).group_by(of.tier)
    at = daily_keys.c
    requests = select(at.tier, func.sum(at.requests), func.sum(at.counterfactual_usd), func.sum(at.cost_usd)).group_by(at.tier)
    with engine.connect() as connection:
        asked = {row[0]: row[1:] for row in connection.execute(requests)}
        made = {row[0]: row[1:] for row in connection.execute(calls)}
    return [total(tier, made.get(tier), asked.get(tier)) for tier in sorted({*made, *asked})]


def total(tier: str, made: tuple | None, asked: tuple | None) -> Total:
    calls, given, answered, cached, usd, audits = (value or 0 for value in made or [0] * 6)
    requests, counterfactual, compared = (value or 0 for value in asked or [0] * 3)
    return Total(
        tier,
        int(calls),
        int(given),
        int(answered),
        int(cached),
        float(usd),
        float(audits),
        int(requests),
        float(counterfactual),
        float(compared),
    )


def used_of_budgets(engine: Engine) -> dict[str, float]:
    """key id -> share, of its day or its month, whichever is used up further."""
    now = datetime.now(UTC)
    limits = {f"{now:%Y-%m-%d}": keys.c.usd_per_day, f"{now:%Y-%m}": keys.c.usd_per_month}
    used: dict[str, float] = {}
    with engine.connect() as connection:
        for period, limit in limits.items():
            query = select(keys.c.id, budgets.c.spent_usd, limit).where(
                keys.c.id == budgets.c.key_id, budgets.c.period == period, limit > 0, keys.c.revoked_s.is_(None)
            )
            for key, spent, most in connection.execute(query):
                used[key] = max(used.get(key, 0.0), spent / most)
    return used
