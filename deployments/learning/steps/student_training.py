"""A student's run as the flywheel sees it: what it is asked, the events by which it shows how far it is, and its books."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from deployments.learning.live import model_store
from deployments.learning.runs import Event, Run
from deployments.learning.steps.in_use import InUse
from deployments.learning.steps.parts import Trained
from deployments.learning.steps.work import STUDENT, Looked, Work, measure_of
from deployments.learning.student.asked import StudentAsked
from deployments.learning.student.parts import Lesson
from deployments.learning.student.run import ROUTER, Made, StudentRun
from deployments.ledger.database import state_folder
from router.flywheel.served import Served
from router.flywheel.stages import Step

FOLDER = "distil"  # of the runs' work, in the state folder
LEFT_S = 7 * 86_400.0  # work that no run has touched for so long belongs to none
PROGRESS_S = 30.0  # between two events that say how far a step is
PROGRESS_SHARE = 0.02  # of a step, between two
WORDS = {"data": "asking the student for what it has not answered", "gates": "answering the test", "answers": "answering"}


@dataclass
class Log:
    """Writes the events of a run while it trains. number: of the next one. before: those that are written already."""

    work: Work
    run: Run
    number: int
    before: Sequence[Event]
    furthest: dict[str, float] = field(default_factory=dict)
    """step -> share that was told"""
    written_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        for event in self.before:
            step = str(event.numbers.get("step", ""))
            done = 1.0 if event.what == "step" else float(event.numbers.get("share") or 0.0)
            self.furthest[step] = max(done, self.furthest.get(step, 0.0))

    def ended(self, step: str, why: str, figures: Mapping[str, Any]) -> None:
        """A step is done. Told once, also where it is done again."""
        if self.furthest.get(step, 0.0) < 1.0:
            self.furthest[step] = 1.0
            self.write("step", why, {"step": step, **figures})

    def told(self, step: str, done: int, of: int, figures: Mapping[str, Any]) -> None:
        """How far a step is; written where it is further than any attempt before, and not too often."""
        self.work.told(progress_line(step, done, of, figures))
        share, now_s = done / of if of else 0.0, time.monotonic()
        if now_s - self.written_s < PROGRESS_S or share < self.furthest.get(step, 0.0) + PROGRESS_SHARE:
            return
        self.furthest[step], self.written_s = min(share, 0.99), now_s
        self.write("progress", progress_line(step, done, of, figures), {"step": step, "share": share, **figures})

    def write(self, what: str, why: str, numbers: Mapping[str, Any]) -> None:
        self.work.write(self.run, self.number, Step("training", what, why, numbers))
        self.number += 1


def progress_line(step: str, done: int, of: int, figures: Mapping[str, Any]) -> str:
    """`training: 1.2 of 2.4 M tokens, loss 0.31`."""
    if step != "train":
        return f"{WORDS.get(step, step)}: {done:,} of {of:,}"
    shown = f"training: {done / 1e6:.1f} of {of / 1e6:.1f} M tokens"
    loss = figures.get("loss")
    return f"{shown}, loss {loss:.2f}" if isinstance(loss, int | float) else shown


def work_folder(run: Run) -> Path:
    """Where a run leaves what its steps made. Raises BadConfig where there is no state folder."""
    return state_folder() / FOLDER / run.id


def bundle(
    log: Log, used: InUse, weights: Mapping[str, str], tried: Mapping[str, str], rows: Callable[[], Sequence[Served]]
) -> Looked:
    """Make the candidate and store it, or close the run. weights: of what decides now."""
    work, run, parts = log.work, log.run, log.work.parts.student
    folder = work_folder(run)
    settings = run.settings
    lesson = Lesson(
        run_id=run.id,
        student=StudentAsked.from_json(settings["student"]),
        tiers=tuple(work.config.names),
        began_s=run.began_s,
        since_s=float(settings.get("since_s") or 0.0),
        seed=int(settings.get("seed", 0)),
        incumbent=work.folder_of(measure_of(run), used),
        weights=weights,
        tried=tried,
        since_certify_s=settings.get("since_certify_s"),
        labels_usd=float(settings.get("labels_usd") or 0.0),
        shadow_pairs=work.config.flywheel.shadow_pairs,
    )
    tidy(folder.parent)
    made = StudentRun(work.engine, lesson, parts, folder, rows, log.told, log.ended).made()
    numbers = {**made.numbers, "dataset": made.dataset, "method": made.router.method if made.router else ""}
    if made.whys:
        found = work.write(run, log.number, Step("refused", "refused", "; ".join(made.whys)[:2000], numbers))
        forget(work, made, lesson)
    else:
        found = kept(log, made, folder / ROUTER, numbers, lesson)
    clear(run)
    return found


def clear(run: Run) -> None:
    """Delete a run's work, which holds what clients wrote."""
    if run.kind == STUDENT:
        shutil.rmtree(work_folder(run), ignore_errors=True)


def kept(log: Log, made: Made, folder: Path, numbers: Mapping[str, Any], lesson: Lesson) -> Looked:
    """Store bundle and books with the event by which the shadow begins."""
    work, run = log.work, log.run
    assert made.router is not None and made.learned is not None and made.data is not None
    digest = model_store.digest_of(folder)
    router = Trained(made.router.dataset, made.router.trace_ids, made.router.method)
    why = f"{lesson.student.tier} learned from {len(made.data.trained_ids):,} requests; every offline gate is passed"

    def save(connection: Connection) -> None:
        save_router(connection, work=work, run=run, folder=folder, found=router, seed=lesson.seed)
        save_weights(connection, work, run, made, lesson)

    return work.write(run, log.number, Step("shadow", "trained", why, numbers), save, digest)


def save_router(connection: Connection, *, work: Work, run: Run, folder: Path, found: Trained, seed: int) -> None:
    licence = ", ".join(sorted({tier.licence.id for tier in work.config.tiers if tier.licence.id}))
    model_store.save(
        connection,
        folder,
        kind="router",
        parent=run.incumbent,
        run_id=run.id,
        method=found.method,
        dataset=found.dataset,
        seed=seed,
        licence=licence[:64],
        made_s=work.clock(),
        trace_ids=found.trace_ids,
    )


def save_weights(connection: Connection, work: Work, run: Run, made: Made, lesson: Lesson) -> None:
    learned, data = made.learned, made.data
    assert learned is not None and data is not None
    model_store.save_weights(
        connection,
        learned.digest,
        files=learned.files,
        tier=lesson.student.tier,
        parent=lesson.parent,
        run_id=run.id,
        method=learned.method,
        dataset=data.dataset,
        seed=lesson.seed,
        licence=str(learned.numbers.get("licence") or data.licence),
        made_s=work.clock(),
        numbers=made.numbers["weights"],
        trace_ids=(*data.trained_ids, *data.other_ids),
    )


def forget(work: Work, made: Made, lesson: Lesson) -> None:
    """Take refused weights out of the store, unless they are noted, or were adopted by a person."""
    if made.learned is None or lesson.student.adopt:
        return
    with work.engine.connect() as connection:
        noted = model_store.weights_row(connection, made.learned.digest)
    if noted is None:
        work.parts.student.forget(made.learned.digest)


def tidy(place: Path) -> None:
    """Delete the work of runs that ended while nobody looked."""
    with suppress(OSError):
        for folder in place.iterdir():
            if time.time() - folder.stat().st_mtime > LEFT_S:
                shutil.rmtree(folder, ignore_errors=True)
