"""Begins a run when one is due: for a router alone, or for a student and the router that fits it."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from deployments.learning import runs
from deployments.learning.kept import served_rows
from deployments.learning.runs import Run
from deployments.learning.steps import in_use
from deployments.learning.steps.in_use import InUse
from deployments.learning.steps.work import ROUTER, STUDENT, Looked, Work
from deployments.learning.student.asked import StudentAsked
from router.flywheel.due import Due, Known, LastRun, due, due_student
from router.flywheel.variants import names_on

LAST_RUNS = 1_000  # among which the last one for a workload is looked for


def known(connection: Connection, work: Work, used: InUse) -> tuple[Known, float | None]:
    """What is known between two runs; and when the traffic changed, if a broken promise has shown it.

    Also the promise of a router that was taken back counts: what was served before was another traffic for the next one too.
    """
    names, since_s = names_used(work, used), work.oldest_s()
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


def known_of(connection: Connection, work: Work, used: InUse, student: StudentAsked) -> Known:
    """What is known before a run for a student: of its own last run, not of others."""
    names, since_s = names_used(work, used), work.oldest_s()
    same = (run for run in runs.listed(connection, LAST_RUNS) if run.kind == STUDENT and student.same_workload(run.settings))
    last, before = next(same, None), None
    if last is not None:
        fresh = complete_since(connection, max(since_s, last.began_s), names)
        before = LastRun(last.id, last.stage, last.began_s, int(last.settings.get("pairs", 0)), fresh)
    return Known(complete_since(connection, since_s, names), bool(used.digest), "", before)


def names_used(work: Work, used: InUse) -> tuple[str, ...]:
    """The tiers by the names of the weights that what is in use decides about."""
    return names_on(tuple(work.config.names), work.weights_of(used.digest, used))


def complete_since(connection: Connection, since_s: float, names: Sequence[str]) -> int:
    return int(connection.scalar(served_rows.complete(since_s, names)) or 0)


def promise_broken(connection: Connection, work: Work, used: InUse, digest: str) -> tuple[str, float] | None:
    """Why and when the certificate of a router was retired; None: it stands, or there is none."""
    folder = work.folder_of(digest, used)
    target = str(work.config.routing.target)
    return in_use.retired(connection, in_use.certificate_digests(in_use.manifest_of(folder), target))


def look(
    work: Work, used: InUse, asked: str = "", every_s: float | None = None, student: StudentAsked | None = None
) -> tuple[Due, Known, float | None]:
    with work.engine.connect() as connection:
        found, broken_s = known(connection, work, used)
        own = known_of(connection, work, used, student) if student else found
    rule = due_student if student else due
    return rule(own, work.config.flywheel, work.clock(), asked, every_s), own, broken_s


def begin(work: Work, asked: str = "", every_s: float | None = None, student: StudentAsked | None = None) -> Looked:
    """Begin a run if one is due; otherwise say why not. student: which tier is to learn; None: a router alone."""
    with work.engine.connect() as connection:
        used = in_use.in_use(connection, work.config)
    found, figures, broken_s = look(work, used, asked, every_s, student)
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
        **(settings_of_student(work, student) if student else {}),
    }
    now_s = work.clock()

    def writing(connection: Connection) -> Run:
        numbers = {"why": found.why, "pairs": figures.pairs}
        stage = "training"
        return runs.begin(
            connection,
            kind=STUDENT if student else ROUTER,
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


def settings_of_student(work: Work, student: StudentAsked) -> dict[str, Any]:
    """What a student's run needs to be the same whenever it goes on."""
    since_s = work.oldest_s()
    with work.engine.connect() as connection:
        paid_usd = sum(served_rows.spent(connection, since_s, role) for role in ("fill", "judge"))
    return {"student": student.as_json(), "since_s": since_s, "labels_usd": paid_usd}
