"""Whether this server should get requests: what load balancers ask before they send any.

A tier must have been up once; after that another tier answers for one that is lost (`routing.when_down`), so its loss alone does
not take the server out of use.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.endpoint.accounts import Accounts
from deployments.tiers.tier import Tier
from router.config import Config
from router.errors import RequestFailed

PATIENCE_S = 2.0  # for the number of replicas


@dataclass
class Readiness:
    """down: tiers -> why those get no request at the moment."""

    tiers: Mapping[str, Tier]
    config: Config
    accounts: Accounts
    down: Callable[[], Mapping[str, str]]
    draining: bool = False
    seen: set[str] = field(default_factory=set)
    """tiers that were up once"""

    async def missing(self) -> tuple[dict[str, str], dict[str, str]]:
        """(what keeps this server from answering, what is lost while others answer for it), each with the reason."""
        lost = await self.lost()
        missing = {name: why for name, why in lost.items() if name not in self.seen}
        covered = self.config.routing.when_down != "none" and len(lost) < len(self.tiers)
        if not covered:
            missing = dict(lost)
        if self.draining:
            missing["server"] = "it is stopping, and takes no further requests"
        try:
            self.accounts.check()
        except RequestFailed as error:
            missing["ledger"] = str(error)
        return missing, {name: why for name, why in lost.items() if name not in missing}

    async def lost(self) -> dict[str, str]:
        """Tiers that cannot answer now. One that sleeps can: a request wakes it."""
        awake = [name for name in self.tiers if name not in self.config.sleepers]
        counts = await asyncio.gather(*(self.count(self.tiers[name]) for name in awake))
        lost = {name: why for name, (found, why) in zip(awake, counts, strict=True) if not found}
        self.seen |= set(awake) - set(lost)
        return lost | {name: why for name, why in self.down().items() if name not in lost}

    async def count(self, tier: Tier) -> tuple[int, str]:
        """Running replicas, and why there are none."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = await tier.replicas()
        except Exception as error:  # noqa: BLE001 Ray has many, and whichever it is, the tier cannot be counted on
            # replicas go on answering while Serve's controller, which counts them, is away
            return int(tier.name in self.seen), f"its replicas cannot be counted ({type(error).__name__})"
        starting = "none of its replicas runs any more" if tier.name in self.seen else "starting"
        return found, "" if found else starting

    async def shown(self) -> tuple[int, dict[str, Any]]:
        """Status and body."""
        missing, lost = await self.missing()
        body: dict[str, Any] = {"status": "not ready" if missing else "ready", "missing": missing}
        return 503 if missing else 200, body | ({"lost": lost} if lost else {})
