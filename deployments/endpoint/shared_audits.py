"""Shares what audits find with the other ingresses and the next start, through the ledger's database."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from deployments.daemon import Daemon
from deployments.ledger import certificate_audits
from deployments.ledger.database import driver_message
from deployments.ledger.ledger import Ledger
from router.decide import certificates
from router.decide.promises import Promises

LOOK_EVERY_S = 5.0  # between looks for what other ingresses have found
log = logging.getLogger("stepdown")


class SharedAudits:
    """Writes this process's audits into the database and goes by what stands there.

    promises: those in use, called each time, since a reload replaces them; others: those of further routers that may decide.
    While the database does not answer, audits wait in memory; if it has not answered since the start, nothing is promised.
    """

    def __init__(
        self, ledger: Ledger, promises: Callable[[], Promises], others: Callable[[], Iterable[Promises]] = lambda: ()
    ) -> None:
        self.ledger, self.promises, self.others = ledger, promises, others
        self.one_at_a_time = threading.Lock()
        self.failed = False
        self.watching = Daemon(self.watch)

    async def open(self) -> None:
        """Learn what was found before. To be awaited before the first request."""
        self.promises().unread = True
        await self.share()
        self.watching.start()

    async def close(self) -> None:
        await self.watching.stop()
        if self.promises().unsaved:
            await self.share()

    async def share(self) -> None:
        mine = self.promises()
        for promises in [mine, *(other for other in self.others() if other is not mine)]:
            await asyncio.to_thread(self.exchange, promises)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.share()

    def exchange(self, promises: Promises) -> None:
        """Save what is not saved, then go by what all have found. Blocks; an outage is logged once and tried again."""
        with self.one_at_a_time:
            try:
                self.save_and_read(promises)
                promises.unread = self.failed = False
            except SQLAlchemyError as error:
                if not self.failed:
                    log.warning("what audits find is not shared while the ledger's database is down: %s", driver_message(error))
                self.failed = True

    def save_and_read(self, promises: Promises) -> None:
        """Raises the database's errors; what was not saved then stays unsaved."""
        transact = self.ledger.store.transact
        while promises.unsaved:
            found, differs = promises.unsaved[0]
            following = partial(certificates.count, found, differs=differs)
            add = partial(certificate_audits.add, digest=certificates.digest(found), rule=found.rule, following=following)
            transact(add)
            promises.unsaved.popleft()
        promises.take(transact(partial(certificate_audits.read, digests=promises.digests.values())))
