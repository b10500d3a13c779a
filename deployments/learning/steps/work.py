"""What every step of the flywheel needs, and the one way in which it writes: an event, with all that belongs to it, at once."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from deployments.learning import runs
from deployments.learning.lease import Transact, transactions
from deployments.learning.live import model_store, weights_used
from deployments.learning.live import weights as weights_store
from deployments.learning.runs import Event, Run
from deployments.learning.steps.in_use import InUse
from deployments.learning.steps.parts import Parts
from router.config import Config, Flywheel
from router.costs.machine_time import DAY_S
from router.flywheel.stages import Step
from router.flywheel.variants import Versions

ROUTER = "router"  # kind of a run: a router alone
STUDENT = "student"  # new weights of a tier, with a router for them
PACE_S = 10.0  # between two looks at a run that waits for requests, unless many have come
MANY = 50  # requests in one look at most, and so many that a look does not wait
Also = Callable[[Connection], None]
"""what is written in the transaction of an event"""


def nothing(connection: Connection) -> None:
    """For an event with which nothing else changes."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What one step of the flywheel found or did."""

    stage: str
    what: str
    why: str = ""
    run_id: str = ""
    """empty: no run is under way"""
    did: bool = False
    """something was done, so that the next step may follow at once"""
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Work:
    """config: as it is served. cache: folder of artefacts that were read from the database. by: who does it, for the history."""

    config: Config
    engine: Engine
    parts: Parts
    cache: Path
    by: str
    seed: int = 0
    clock: Callable[[], float] = time.time
    fingerprints: str = ""
    """a digest of those of the tiers' models"""
    models: Mapping[str, str] = field(default_factory=dict)
    """tier -> fingerprint of its configured model"""
    wrote: Callable[[str], None] = lambda what: None
    """is told of each event after it was written"""
    told: Callable[[str], None] = lambda what: None
    """is told how far a long step is, far more often than that is written"""

    def __post_init__(self) -> None:
        self.transact: Transact = transactions(self.engine)

    def write(self, run: Run, number: int, step: Step, also: Also = nothing, candidate: str | None = None) -> Looked:
        """Write the run's event `number`. Raises WrittenMeanwhile; nothing is written then."""

        def writing(connection: Connection) -> Event:
            also(connection)
            event: dict[str, Any] = {"stage": step.to, "what": step.what, "numbers": step.event, "candidate": candidate}
            return runs.event(connection, run, number, by=self.by, now_s=self.clock(), **event)

        self.transact(writing)
        self.wrote(step.what)
        return Looked(step.to, step.what, step.why, run.id, True, step.event)

    def oldest_s(self) -> float:
        """Since when requests are kept."""
        days = self.config.learning.keep_days
        return 0.0 if days is None else self.clock() - days * DAY_S

    def versions(self, connection: Connection) -> Versions | None:
        """By which answers of several weights are told apart; None: no tier has ever learned any."""
        if not model_store.weights_listed(connection):
            return None
        return weights_used.versions_of(connection, self.config, self.models, weights_store.root(self.config))

    def weights_of(self, digest: str, used: InUse) -> dict[str, str]:
        """tier -> digest of the weights that an artefact is for; the configured ones are missing. Raises BadInput."""
        folder = self.folder_of(digest, used)
        return {} if folder is None else weights_used.weights_of(folder)

    def folder_of(self, digest: str, used: InUse) -> Path | None:
        """The files of an artefact; None: there is none. Raises BadInput where it cannot be had."""
        if not digest:
            return None
        if digest == used.configured:
            return Path(str(self.config.routing.artefact))
        return model_store.fetch(self.engine, digest, self.cache)


def measure_of(run: Run) -> str:
    """Digest of the artefact that the candidate is measured by; empty: the top tier, also where what is in use has broken its
    promise: it would measure by answers that nobody wants.
    """
    return "" if run.settings.get("since_certify_s") is not None else run.incumbent


def settings_of(run: Run) -> Flywheel:
    """Those that the run began with: a test whose margin changes on the way proves nothing."""
    return Flywheel.model_validate(run.settings.get("flywheel", {}))
