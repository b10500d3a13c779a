"""The flywheel: looks at the ledger's database and does the next thing, one at a time on all machines.

    collecting -> training -> shadow -> (waiting ->) canary -> promoted -> done

What a run has done is in its events alone. A process that dies is replaced by any other, which goes on after the last event.
"""

import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from json import dumps
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from deployments.learning import runs
from deployments.learning.lease import Lease, this_process
from deployments.learning.runs import Event, Run, WrittenMeanwhile
from deployments.learning.steps import beginning, in_use, looking, training
from deployments.learning.steps.in_use import InUse
from deployments.learning.steps.parts import Compare, Parts, RealParts
from deployments.learning.steps.work import MANY, PACE_S, Looked, Work, measure_of, settings_of
from deployments.learning.student.asked import StudentAsked, checked
from router.config import Config
from router.errors import StepdownError
from router.flywheel.stages import Step, state_of

NAME = "flywheel"  # of the lease
LEASE_S = 15.0  # a dead process is replaced after so long at most
BEGUN = ("training", "shadow", "waiting")  # stages in which nobody gets the candidate's answers


class HeldElsewhere(StepdownError):
    """Another process runs the flywheel."""

    code = "held_elsewhere"

    def __init__(self, holder: str, until_s: float) -> None:
        super().__init__(f"{holder} runs the flywheel already; only one may. Look at it with `stepdown flywheel status`")
        self.holder, self.until_s = holder, until_s


class Flywheel:
    """config: as it is served, with absolute paths. fingerprints: `ladder_fingerprints` of it. by: who does it, for the history.

    seed: of training. promote: go on after the shadow without being asked; None: what the settings say. parts: other ones than
    the real, for tests. wrote: is told of each event after it was written.
    """

    def __init__(
        self,
        config: Config,
        engine: Engine,
        fingerprints: Mapping[str, Any],
        cache_folder: Path,
        clock: Callable[[], float] = time.time,
        by: str = "",
        seed: int = 0,
        *,
        promote: bool | None = None,
        parts: Parts | None = None,
        wrote: Callable[[str], None] = lambda what: None,
    ) -> None:
        self.holder = this_process()
        self.lease = Lease(engine)
        made = parts or RealParts(config, fingerprints)
        digest = sha256(dumps(fingerprints, sort_keys=True, default=str).encode()).hexdigest()
        models = {name: str(value) for name, value in (fingerprints.get("models") or {}).items()}
        self.work = Work(config, engine, made, cache_folder, by or self.holder, seed, clock, digest, models, wrote)
        self.auto = config.flywheel.promote == "auto" or config.learning.start == "auto" if promote is None else promote
        self.players: dict[tuple[str, str], Compare] = {}
        """by digests of candidate and incumbent; one, the last that was needed"""
        self.looked_s = -PACE_S
        """when a run was looked at last"""

    def advance(self, asked: str = "", every_s: float | None = None, student: StudentAsked | None = None) -> Looked:
        """Do the next thing, if there is one. Any process may call it at any time, as often as it likes.

        asked: who asks for a run now; empty: one begins where it is due. every_s: seconds after which one is due in any case.
        student: the run that begins is for this student; None: for a router alone. A run that is under way goes on, whatever it
        is for. Raises HeldElsewhere, BadInput for a student that cannot be, and the database's errors.
        """
        if student is not None:
            checked(self.work.config, student)
        self.claim()
        with self.lease.kept(NAME, self.holder, LEASE_S, self.work.clock):
            try:
                return self.step(asked, every_s, student)
            except WrittenMeanwhile as error:
                return Looked("", "looked", f"it is looked at again: {error}", did=True)

    def claim(self) -> None:
        """Take or renew the lease. Raises HeldElsewhere."""
        now_s = self.work.clock()
        if not self.lease.take(NAME, self.holder, LEASE_S, now_s):
            raise HeldElsewhere(*(self.lease.holder(NAME) or ("another process", now_s)))

    def close(self) -> None:
        """Give the lease back, so that another process need not wait for its end."""
        self.lease.release(NAME, self.holder)

    def step(self, asked: str, every_s: float | None, student: StudentAsked | None) -> Looked:
        with self.work.engine.connect() as connection:
            run, used = runs.latest(connection), in_use.in_use(connection, self.work.config)
            events = runs.events(connection, run.id) if run and not run.closed else []
        if run is None or run.closed:
            return beginning.begin(self.work, asked, every_s, student)
        if why := self.void(run, used):
            return self.closed(run, events, used, why)
        if run.stage in ("collecting", "training"):
            return training.train(self.work, run, events, used)
        return self.look(run, events, used)

    # -- a run under way -----------------------------------------------------------------------------------------------

    def look(self, run: Run, events: list[Event], used: InUse) -> Looked:
        """Look at once where somebody has asked for something or many requests wait, else every PACE_S seconds."""
        now_s = self.work.clock()
        if now_s - self.looked_s < PACE_S and "asked" not in events[-1].numbers and not self.many(run, events):
            return Looked(run.stage, "waited", "it was looked at a moment ago", run.id)
        found = looking.look(self.work, run, events, used, self.compare(run, used), self.auto)
        self.looked_s = now_s
        return found

    def many(self, run: Run, events: list[Event]) -> bool:
        since_s = state_of(events, settings_of(run).margin).since_s
        with self.work.engine.connect() as connection:
            return len(looking.ready(connection, self.work, run, since_s)) >= MANY

    def compare(self, run: Run, used: InUse) -> Compare:
        key = (run.candidate, measure_of(run))
        if key not in self.players:
            candidate, incumbent = (self.work.folder_of(digest, used) for digest in key)
            assert candidate is not None
            share = float(run.settings.get("fill_share") or 1.0)
            self.players = {key: self.work.parts.compare(candidate, incumbent, share)}
        return self.players[key]

    def void(self, run: Run, used: InUse) -> str:
        """Why the run has lost its object; empty: it has not."""
        if run.settings.get("fingerprints") != self.work.fingerprints:
            return "the models of the tiers are no longer those that it began with"
        if run.stage == "promoted":
            return "" if used.digest == run.candidate else "something else decides than what it promoted"
        if used.digest != run.incumbent:
            return "the router that it is compared with is no longer the one in use"
        return ""

    def closed(self, run: Run, events: list[Event], used: InUse, why: str) -> Looked:
        """Close a run that has lost its object. What somebody else put in use stays in use."""
        if run.stage in BEGUN:
            return self.work.write(run, len(events), Step("failed", "failed", why))

        def also(connection: Any) -> None:
            if used.digest == run.candidate or run.stage == "canary":
                looking.taken_back(connection, run.stage, self.work.by, self.work.clock())

        return self.work.write(run, len(events), Step("rolled back", "rolled back", why), also)
