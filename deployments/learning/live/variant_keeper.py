"""Starts and stops the applications of learned weights. One ingress of all does so at a time, by a lease in the database.

What is needed and does not exist is deployed; what is no longer needed is deleted after a while, when every ingress has switched.
An application outlives the ingress that started it: its name says what it is, and whoever has the lease finds it.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError

from deployments.daemon import Daemon
from deployments.learning.lease import Lease, this_process
from deployments.learning.live.variant_tiers import Variants
from deployments.replicas.variant_apps import AppState, app_of
from router.errors import LedgerDown
from router.flywheel.variants import Version

log = logging.getLogger("stepdown")
NAME = "variants"  # of the lease
LEASE_S = 20.0
LOOK_EVERY_S = 2.0
REST_S = 30.0  # between looks at Serve while nothing is needed
# How long an application stays after nothing needs it: the ingresses look every two seconds, and a request under way may still
# ask it for the first time. Its running answers have `server.drain_s` after that.
GRACE_S = 30.0
RETRY_S = 300.0  # after it failed to start
DATABASE = (SQLAlchemyError, LedgerDown)


class VariantKeeper:
    """variants: of this ingress, with what it saw last. clock: Unix time, for the lease."""

    def __init__(self, variants: Variants, lease: Lease, clock: Callable[[], float] = time.time) -> None:
        self.variants, self.lease, self.clock = variants, lease, clock
        self.holder = this_process()
        self.leads = False
        self.unneeded: dict[str, float] = {}
        """application -> since when nothing needs it, by time.monotonic"""
        self.tried: dict[str, float] = {}
        """application -> when it was deployed last"""
        self.next_look_s = 0.0
        self.working = Daemon(self.work)

    def start(self) -> None:
        self.working.start()

    async def close(self) -> None:
        """What runs stays: another ingress goes on with it."""
        await self.working.stop()
        if self.leads:
            with suppress(*DATABASE):
                await asyncio.to_thread(self.lease.release, NAME, self.holder)

    async def work(self) -> None:
        while True:
            try:
                await self.look()
            except DATABASE:
                self.leads = False
            except Exception as error:  # noqa: BLE001 Ray has many kinds; it is tried again
                log.warning(
                    "the replicas of learned weights could not be started or stopped: %s: %s", type(error).__name__, error
                )
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Do what is to be done. Raises the database's errors and Ray's."""
        if not self.variants.looked:
            return
        self.leads = await asyncio.to_thread(self.lease.take, NAME, self.holder, LEASE_S, self.clock())
        if self.leads:
            await asyncio.to_thread(self.do)

    def do(self) -> None:
        """Blocks. Nothing is deleted while it is not known what is needed."""
        needed = {app_of(version): version for version in self.variants.needed}
        if not needed and not self.unneeded and time.monotonic() < self.next_look_s:
            return
        states = self.variants.apps.states()
        for app, version in needed.items():
            self.unneeded.pop(app, None)
            if self.may_start(app, states.get(app)):
                self.deploy(app, version)
        if not self.variants.trouble:
            self.sweep([app for app, its in states.items() if app not in needed and its.status != "DELETING"])
        self.next_look_s = time.monotonic() + REST_S

    def may_start(self, app: str, state: AppState | None) -> bool:
        if state is None:
            return True
        return state.status == "DEPLOY_FAILED" and time.monotonic() - self.tried.get(app, 0.0) > RETRY_S

    def deploy(self, app: str, version: Version) -> None:
        found = self.variants.known.get(version)
        if found is None or found.settings is None:  # its weights cannot be used, which the status page says
            return
        self.tried[app] = time.monotonic()
        log.warning("%s is started beside the ladder, as %s", version.name, app)
        with self.lease.kept(NAME, self.holder, LEASE_S, self.clock):
            self.variants.apps.deploy(version, found.settings)

    def sweep(self, apps: list[str]) -> None:
        """Delete those of the applications that nothing has needed for a while. apps: that nothing needs now."""
        now_s = time.monotonic()
        self.unneeded = {app: self.unneeded.get(app, now_s) for app in apps}
        for app in [app for app, since_s in self.unneeded.items() if now_s - since_s >= GRACE_S]:
            log.warning("%s is stopped: nothing needs its weights any more", app)
            self.variants.apps.delete(app)
            del self.unneeded[app]
