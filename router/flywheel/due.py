"""Whether a run is to begin now, and why, or why not yet."""

from dataclasses import dataclass

from router.config import Flywheel
from router.flywheel.progress import rows_needed

MORE = 0.25  # share by which the graded requests must have grown before a failed run is tried again by itself
FAILED = ("refused", "undecided", "rolled back", "failed")


@dataclass(frozen=True, slots=True)
class LastRun:
    """The run before."""

    id: str
    stage: str
    began_s: float
    pairs: int
    """graded requests when it began"""
    fresh: int
    """requests graded since then"""

    @property
    def more(self) -> int:
        """How many fresh requests the next try needs, at least one."""
        return max(1, round(MORE * self.pairs))


@dataclass(frozen=True, slots=True)
class Known:
    """What is known between two runs."""

    pairs: int
    """graded requests with the answers of all tiers; where the promise is broken, only those since then"""
    artefact: bool
    """`auto` goes by a trained router"""
    broken: str = ""
    """why the promise of the router in use no longer holds; empty: it holds, or it never made one"""
    last: LastRun | None = None


@dataclass(frozen=True, slots=True)
class Due:
    begin: bool
    why: str


def due(known: Known, settings: Flywheel, now_s: float, asked: str = "", every_s: float | None = None) -> Due:
    """asked: who asks for a run now; empty: nobody does. every_s: seconds after which a run is made in any case; None: never."""
    last, least = known.last, rows_needed(settings)
    if known.pairs < least:
        since = " since the promise was broken" if known.broken else ""
        return Due(False, f"{known.pairs} of {least} graded requests{since} that a run needs")
    if asked:
        return Due(True, f"asked for by {asked}")
    if last and last.stage in FAILED and last.fresh < last.more:
        return Due(
            False, f"{last.id} ended {last.stage}; {last.more - last.fresh} more graded requests are needed for another try"
        )
    if not known.artefact:
        return Due(True, f"{known.pairs} graded requests, and no router in use")
    if known.broken:
        return Due(True, f"the router in use: {known.broken}")
    if every_s is not None and (last is None or now_s - last.began_s >= every_s):
        if last and last.fresh < last.more:
            return Due(False, f"due, but only {last.fresh} graded requests are new since {last.id}; {last.more} are needed")
        return Due(True, f"due, every {every_s / 86_400:g} days")
    return Due(False, "the router in use keeps its promise")


def due_student(known: Known, settings: Flywheel, now_s: float, asked: str = "", every_s: float | None = None) -> Due:
    """Whether a run for a student is to begin. known: of its own workload's last run. A student learns only where somebody asks,
    or at intervals: it costs more than a router, and what it learned stays good longer.
    """
    last, least = known.last, rows_needed(settings)
    if known.pairs < least:
        return Due(False, f"{known.pairs} of {least} graded requests that a run needs")
    if asked:
        return Due(True, f"asked for by {asked}")
    if every_s is None or (last and now_s - last.began_s < every_s):
        return Due(False, "no run for this student is due")
    if last and last.fresh < last.more:
        return Due(False, f"due, but only {last.fresh} graded requests are new since {last.id}; {last.more} are needed")
    return Due(True, f"due, every {every_s / 86_400:g} days")
