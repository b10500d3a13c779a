"""Whether this server should get requests: what load balancers ask before they send any.

As many tiers as `server.ready_tiers` says must be up, or asleep on purpose: a request wakes those. For others that are lost
`routing.when_down` says who answers. Replicas are counted at most once a second, however many ask.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf

from deployments.endpoint.accounts import Accounts
from deployments.endpoint.draining import Draining
from deployments.tiers.tier import Tier
from router.config import Config
from router.errors import RequestFailed

PATIENCE_S = 2.0  # for the number of replicas
FRESH_S = 1.0  # what was found is not looked for again


@dataclass
class Readiness:
    """down: tiers -> why those get no request at the moment. ticks: seconds that never jump."""

    tiers: Mapping[str, Tier]
    config: Config
    accounts: Accounts
    down: Callable[[], Mapping[str, str]]
    draining: Draining = field(default_factory=Draining)
    ticks: Callable[[], float] = time.monotonic
    seen: set[str] = field(default_factory=set)
    """tiers that were up once"""
    gone: dict[str, str] = field(default_factory=dict)
    """tiers that have no replica and do not sleep on purpose, each with the reason"""
    keys_read: bool = False
    looked_at: float = -inf
    """when that was found, on `ticks`"""
    looking: "asyncio.Task[None] | None" = None

    async def shown(self) -> tuple[dict[str, str], dict[str, str]]:
        """(what keeps this server from answering, what is lost without that), each with the reason."""
        if self.draining.begun:
            return {"server": "it is stopping"}, {}
        await self.look()
        lost = self.gone | {name: why for name, why in self.down().items() if name not in self.gone}
        missing = dict(lost) if len(self.tiers) - len(lost) < self.config.server.ready_tiers else {}
        if not self.keys_read:
            missing["keys"] = "they could not be read from the database yet"
        try:
            self.accounts.check()
        except RequestFailed as error:
            missing["ledger"] = str(error)
        return missing, {name: why for name, why in lost.items() if name not in missing}

    async def never_up(self) -> dict[str, str]:
        """Tiers that were not up yet since the start, and do not sleep on purpose, each with the reason."""
        if not self.awake <= self.seen:
            await self.look()
        return {name: self.gone.get(name, "starting") for name in self.tiers if name in self.awake - self.seen}

    @property
    def awake(self) -> set[str]:
        """Tiers that have a replica unless something is wrong."""
        return set(self.tiers) - set(self.config.sleepers)

    # -- looking -------------------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Count replicas, unless that was done within the last second. All who ask meanwhile wait for the same count."""
        if self.looking is None or self.looking.done():
            if self.ticks() < self.looked_at + FRESH_S:
                return
            self.looking = asyncio.create_task(self.look_now())
        await asyncio.shield(self.looking)

    async def look_now(self) -> None:
        awake = [name for name in self.tiers if name in self.awake]
        counts = await asyncio.gather(*(self.count(self.tiers[name]) for name in awake))
        self.gone = {name: why for name, (found, why) in zip(awake, counts, strict=True) if not found}
        self.seen |= set(awake) - set(self.gone)
        self.keys_read = self.keys_read or await self.accounts.keys.were_read()
        self.looked_at = self.ticks()

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
