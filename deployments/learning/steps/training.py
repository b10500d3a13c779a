"""Trains a run's candidate, a router or a whole bundle, and stores it with the run's next event."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from classifiers import ClassifierError
from deployments.learning import runs
from deployments.learning.kept import served_rows
from deployments.learning.live import model_store
from deployments.learning.runs import Event, Run, WrittenMeanwhile
from deployments.learning.steps import student_training
from deployments.learning.steps.in_use import InUse
from deployments.learning.steps.pairs import LONGEST_WAIT_S
from deployments.learning.steps.parts import Asked, Trained
from deployments.learning.steps.work import STUDENT, Looked, Work, measure_of
from deployments.ledger.schema import fills
from router.errors import StepdownError
from router.flywheel.due import FAILED
from router.flywheel.served import Served
from router.flywheel.stages import Step

MOST_ROWS = 20_000  # of the newest requests that a router is made of
ATTEMPTS = 3  # at training without progress: a process that dies of it would die of it again
LAST_RUNS = 1_000  # that are looked through for data sets that failed
FORWARD = ("step", "progress")  # events that say that an attempt got further than those before


def train(work: Work, run: Run, events: list[Event], used: InUse) -> Looked:
    """Train and store the candidate, or close the run. It begins anew, or goes on, after a crash: ATTEMPTS times at most."""
    attempts = attempts_of(events)
    if attempts >= ATTEMPTS:
        return work.write(run, len(events), Step("failed", "failed", f"training was cut short {attempts} times"))
    work.write(run, len(events), Step("training", "training", "", {"attempt": attempts + 1}))
    log = student_training.Log(work, run, len(events) + 1, events)
    try:
        return (bundle if run.kind == STUDENT else router)(work, run, log, used)
    except (WrittenMeanwhile, SQLAlchemyError):
        raise
    except (StepdownError, ClassifierError) as error:
        found = work.write(run, log.number, Step("refused", "refused", str(error)[:2000]))
    except Exception as error:  # noqa: BLE001 it would be raised again at each look; the run's history keeps it
        why = f"{type(error).__name__}: {error}"
        found = work.write(run, log.number, Step("failed", "failed", why[:2000]))
    student_training.clear(run)
    return found


def attempts_of(events: Sequence[Event]) -> int:
    """How often training began since it last got further."""
    last = max((event.number for event in events if event.what in FORWARD), default=-1)
    return sum(event.what == "training" for event in events if event.number > last)


# -- a router alone --------------------------------------------------------------------------------------------------------


def router(work: Work, run: Run, log: student_training.Log, used: InUse) -> Looked:
    work.cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".candidate-", dir=work.cache) as place:
        folder, weights = Path(place) / "candidate", work.weights_of(used.digest, used)
        with work.engine.connect() as connection:
            rows, tried = rows_for(connection, work, run, weights), data_sets_that_failed(connection)
            paid_usd = sum(served_rows.spent(connection, work.oldest_s(), role) for role in ("fill", "judge"))
        measure, seed = work.folder_of(measure_of(run), used), int(run.settings.get("seed", 0))
        since_s = run.settings.get("since_certify_s")
        found = work.parts.train(Asked(rows, measure, folder, run.began_s, seed, tried, since_s, paid_usd, weights))
        if found.whys:
            return work.write(run, log.number, Step("refused", "refused", "; ".join(found.whys), numbers_of(found)))
        return kept(work, run, log.number, folder, found, seed)


def kept(work: Work, run: Run, number: int, folder: Path, found: Trained, seed: int) -> Looked:
    """Store the candidate with the event by which the shadow begins."""
    digest = model_store.digest_of(folder)
    why = f"trained and certified on {len(found.trace_ids)} requests; every offline gate is passed"
    save = partial(student_training.save_router, work=work, run=run, folder=folder, found=found, seed=seed)
    return work.write(run, number, Step("shadow", "trained", why, numbers_of(found)), save, digest)


def numbers_of(found: Trained) -> Mapping[str, Any]:
    return {**found.numbers, "dataset": found.dataset, "method": found.method}


# -- a bundle: new weights, and a router for them --------------------------------------------------------------------------


def bundle(work: Work, run: Run, log: student_training.Log, used: InUse) -> Looked:
    weights = work.weights_of(used.digest, used)

    def rows() -> list[Served]:
        with work.engine.connect() as connection:
            return rows_for(connection, work, run, weights)

    with work.engine.connect() as connection:
        tried = data_sets_that_failed(connection)
    return student_training.bundle(log, used, weights, tried, rows)


# -- rows ------------------------------------------------------------------------------------------------------------------


def rows_for(connection: Connection, work: Work, run: Run, weights: Mapping[str, str]) -> list[Served]:
    """The newest complete requests of before the run began, oldest first, as these weights answered them."""
    beyond = select(fills.c.drawn_s).where(fills.c.state == "done").order_by(fills.c.drawn_s.desc()).offset(MOST_ROWS).limit(1)
    since_s = max(work.oldest_s(), (connection.scalar(beyond) or 0.0) - LONGEST_WAIT_S)  # older ones need not be read at all
    return list(deque(complete(connection, work, since_s, run.began_s, weights), maxlen=MOST_ROWS))


def complete(connection: Connection, work: Work, since_s: float, until_s: float, weights: Mapping[str, str]) -> Iterator[Served]:
    names, versions = tuple(work.config.names), work.versions(connection)
    for page in served_rows.pages(connection, since_s, until_s, drawn_only=True, versions=versions):
        yield from (row for row in (one.on(weights) for one in page) if row.complete(names))


def data_sets_that_failed(connection: Connection) -> dict[str, str]:
    """Digest -> the run that failed with it."""
    failed = [run for run in runs.listed(connection, LAST_RUNS) if run.stage in FAILED]
    events = ((run, event) for run in failed for event in runs.events(connection, run.id, ("trained", "refused")))
    return {event.numbers["dataset"]: run.id for run, event in events if event.numbers.get("dataset")}
