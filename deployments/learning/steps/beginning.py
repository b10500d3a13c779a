"""Begins a run when one is due, trains its candidate, and stores that with the run's next event."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
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
from deployments.learning.steps import in_use
from deployments.learning.steps.in_use import InUse
from deployments.learning.steps.pairs import LONGEST_WAIT_S
from deployments.learning.steps.parts import Asked, Trained
from deployments.learning.steps.work import Looked, Work, measure_of
from deployments.ledger.schema import fills
from router.costs.machine_time import DAY_S
from router.errors import StepdownError
from router.flywheel.due import FAILED, Due, Known, LastRun, due
from router.flywheel.served import Served
from router.flywheel.stages import Step

KIND = "router"
MOST_ROWS = 20_000  # of the newest requests that a router is made of
ATTEMPTS = 3  # at training: a process that dies of it would die of it again
LAST_RUNS = 1_000  # that are looked through for data sets that failed


# -- whether ---------------------------------------------------------------------------------------------------------------


def oldest_s(work: Work) -> float:
    """Since when requests are kept."""
    days = work.config.learning.keep_days
    return 0.0 if days is None else work.clock() - days * DAY_S


def known(connection: Connection, work: Work, used: InUse) -> tuple[Known, float | None]:
    """What is known between two runs; and when the traffic changed, if a broken promise has shown it.

    Also the promise of a router that was taken back counts: what was served before was another traffic for the next one too.
    """
    names, since_s = work.config.names, oldest_s(work)
    last = runs.latest(connection)
    broken = promise_broken(connection, work, used, used.digest)
    taken_back = last.candidate if last is not None and last.stage == "rolled back" else ""
    changed = broken or (promise_broken(connection, work, used, taken_back) if taken_back else None)
    changed_s = changed[1] if changed else None
    if last is not None:
        fresh = complete_since(connection, max(since_s, last.began_s), names)
        before = LastRun(last.id, last.stage, last.began_s, int(last.settings.get("pairs", 0)), fresh)
    pairs = complete_since(connection, max(since_s, changed_s or 0.0), names)
    found = Known(pairs, bool(used.digest), broken[0] if broken else "", before if last else None)
    return found, changed_s


def complete_since(connection: Connection, since_s: float, names: Sequence[str]) -> int:
    return int(connection.scalar(served_rows.complete(since_s, names)) or 0)


def promise_broken(connection: Connection, work: Work, used: InUse, digest: str) -> tuple[str, float] | None:
    """Why and when the certificate of a router was retired; None: it stands, or there is none."""
    folder = work.folder_of(digest, used)
    target = str(work.config.routing.target)
    return in_use.retired(connection, in_use.certificate_digests(in_use.manifest_of(folder), target))


def look(work: Work, used: InUse, asked: str = "", every_s: float | None = None) -> tuple[Due, Known, float | None]:
    with work.engine.connect() as connection:
        found, broken_s = known(connection, work, used)
    return due(found, work.config.flywheel, work.clock(), asked, every_s), found, broken_s


def begin(work: Work, asked: str = "", every_s: float | None = None) -> Looked:
    """Begin a run if one is due; otherwise say why not."""
    with work.engine.connect() as connection:
        used = in_use.in_use(connection, work.config)
    found, figures, broken_s = look(work, used, asked, every_s)
    if not found.begin:
        return Looked("collecting", "looked", found.why, numbers={"pairs": figures.pairs})
    settings = {
        "flywheel": work.config.flywheel.model_dump(),
        "seed": work.seed,
        "tiers": work.config.names,
        "fingerprints": work.fingerprints,
        "fill_share": work.config.learning.fill_share,
        "pairs": figures.pairs,
        "since_certify_s": broken_s,
    }
    now_s = work.clock()

    def writing(connection: Connection) -> Run:
        numbers = {"why": found.why, "pairs": figures.pairs}
        stage = "training"
        return runs.begin(
            connection,
            kind=KIND,
            incumbent=used.digest,
            by=asked or work.by,
            settings=settings,
            now_s=now_s,
            stage=stage,
            numbers=numbers,
        )

    run: Run = work.transact(writing)
    work.wrote("began")
    return Looked("training", "began", found.why, run.id, True)


# -- training --------------------------------------------------------------------------------------------------------------


def train(work: Work, run: Run, events: list[Event], used: InUse) -> Looked:
    """Train and store the candidate, or close the run. It begins anew after a crash, ATTEMPTS times at most."""
    attempts = sum(event.what == "training" for event in events)
    if attempts >= ATTEMPTS:
        return work.write(run, len(events), Step("failed", "failed", f"training was cut short {attempts} times"))
    work.write(run, len(events), Step("training", "training", "", {"attempt": attempts + 1}))
    try:
        return trained(work, run, len(events) + 1, used)
    except (WrittenMeanwhile, SQLAlchemyError):
        raise
    except (StepdownError, ClassifierError) as error:
        return work.write(run, len(events) + 1, Step("refused", "refused", str(error)[:2000]))
    except Exception as error:  # noqa: BLE001 it would be raised again at each look; the run's history keeps it
        why = f"{type(error).__name__}: {error}"
        return work.write(run, len(events) + 1, Step("failed", "failed", why[:2000]))


def trained(work: Work, run: Run, number: int, used: InUse) -> Looked:
    work.cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".candidate-", dir=work.cache) as place:
        folder = Path(place) / "candidate"
        with work.engine.connect() as connection:
            rows, tried = rows_for(connection, work, run), data_sets_that_failed(connection)
            paid_usd = sum(served_rows.spent(connection, oldest_s(work), role) for role in ("fill", "judge"))
        measure, seed = work.folder_of(measure_of(run), used), int(run.settings.get("seed", 0))
        asked = Asked(rows, measure, folder, run.began_s, seed, tried, run.settings.get("since_certify_s"), paid_usd)
        found = work.parts.train(asked)
        if found.whys:
            return work.write(run, number, Step("refused", "refused", "; ".join(found.whys), numbers_of(found)))
        return kept(work, run, number, folder, found, seed)


def kept(work: Work, run: Run, number: int, folder: Path, found: Trained, seed: int) -> Looked:
    """Store the candidate with the event by which the shadow begins."""
    digest = model_store.digest_of(folder)
    licence = ", ".join(sorted({tier.licence.id for tier in work.config.tiers if tier.licence.id}))

    def save(connection: Connection) -> None:
        model_store.save(
            connection,
            folder,
            kind=KIND,
            parent=run.incumbent,
            run_id=run.id,
            method=found.method,
            dataset=found.dataset,
            seed=seed,
            licence=licence[:64],
            made_s=work.clock(),
            trace_ids=found.trace_ids,
        )

    why = f"trained and certified on {len(found.trace_ids)} requests; every offline gate is passed"
    return work.write(run, number, Step("shadow", "trained", why, numbers_of(found)), save, digest)


def numbers_of(found: Trained) -> Mapping[str, Any]:
    return {**found.numbers, "dataset": found.dataset, "method": found.method}


def rows_for(connection: Connection, work: Work, run: Run) -> list[Served]:
    """The newest complete requests of before the run began, oldest first."""
    names = tuple(work.config.names)
    beyond = select(fills.c.drawn_s).where(fills.c.state == "done").order_by(fills.c.drawn_s.desc()).offset(MOST_ROWS).limit(1)
    since_s = max(oldest_s(work), (connection.scalar(beyond) or 0.0) - LONGEST_WAIT_S)  # older ones need not be read at all
    return list(deque(complete(connection, since_s, run.began_s, names), maxlen=MOST_ROWS))


def complete(connection: Connection, since_s: float, until_s: float, names: tuple[str, ...]) -> Iterator[Served]:
    for page in served_rows.pages(connection, since_s, until_s, drawn_only=True):
        yield from (row for row in page if row.complete(names))


def data_sets_that_failed(connection: Connection) -> dict[str, str]:
    """Digest -> the run that failed with it."""
    failed = [run for run in runs.listed(connection, LAST_RUNS) if run.stage in FAILED]
    events = ((run, event) for run in failed for event in runs.events(connection, run.id, ("trained", "refused")))
    return {event.numbers["dataset"]: run.id for run, event in events if event.numbers.get("dataset")}
