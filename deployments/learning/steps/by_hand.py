"""What a person asks of a run: to go on after its shadow, or to be taken back. Works while another process runs the flywheel."""

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from deployments.learning import runs
from deployments.learning.lease import transactions
from deployments.learning.live import bundles
from deployments.learning.live.bundles import Bundle
from deployments.learning.runs import Run, WrittenMeanwhile
from deployments.learning.steps import in_use, looking
from router.config import Config
from router.errors import BadInput
from router.flywheel.stages import Stage

T = TypeVar("T")
TRIES = 5  # against a flywheel that writes at the same time
GIVEN_UP: dict[str, Stage] = {"training": "refused", "shadow": "refused", "waiting": "refused"}


def promote(engine: Engine, run_id: str, by: str, now_s: float) -> Run:
    """Let a run that waits go on; the flywheel does so at its next look. Raises BadInput."""

    def asked(connection: Connection) -> Run:
        run = runs.one(connection, run_id)
        if run is None:
            raise BadInput(f"no run {run_id!r}; `stepdown flywheel history` lists them")
        if run.stage != "waiting":
            raise BadInput(
                f"{run.id} is in stage {run.stage}; only a run that has passed its shadow, stage waiting, can be promoted"
            )
        numbers = {"asked": "promote", "by": by}
        what = "promotion asked"
        runs.event(
            connection, run, runs.count(connection, run.id), stage=run.stage, what=what, by=by, now_s=now_s, numbers=numbers
        )
        return run

    return again(engine, asked)


def rollback(engine: Engine, config: Config, by: str, now_s: float) -> tuple[Run, str]:
    """Give up the run under way, or take back what the last one promoted. Returns the run, and what decides now.

    Raises BadInput where nothing was learned that could be taken back.
    """

    def asked(connection: Connection) -> tuple[Run, str]:
        run, used = runs.latest(connection), in_use.in_use(connection, config)
        if run is None or (run.closed and run.candidate != used.digest):
            raise BadInput("nothing to take back: no run is under way, and no learned router decides")
        now_decides = taken_back(connection, run, used.configured, by, now_s)
        stage = GIVEN_UP.get(run.stage, "rolled back")
        numbers = {"asked": "rollback", "by": by, "why": f"taken back by {by}"}
        event: dict[str, Any] = {"stage": stage, "what": stage, "by": by, "now_s": now_s, "numbers": numbers}
        runs.event(connection, run, runs.count(connection, run.id), **event)
        return run, now_decides

    return again(engine, asked)


def taken_back(connection: Connection, run: Run, configured: str, by: str, now_s: float) -> str:
    """Put the bundles in order. Returns the digest of what decides now."""
    if run.stage in GIVEN_UP:
        return run.incumbent
    if run.stage != "done":
        looking.taken_back(connection, run.stage, by, now_s)
    elif run.incumbent in ("", configured):  # its `previous` was let go
        bundles.clear(connection, "promoted")
    else:
        bundles.put(connection, Bundle("promoted", run.incumbent, "", 1.0, now_s, configured, by))
    return run.incumbent


def again(engine: Engine, action: Callable[[Connection], T]) -> T:
    """Do it anew where the flywheel wrote to the run in the same moment."""
    for attempt in range(TRIES):
        try:
            found: T = transactions(engine)(action)
            return found
        except WrittenMeanwhile:
            if attempt == TRIES - 1:
                raise
    raise AssertionError("unreachable")
