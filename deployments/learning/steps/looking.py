"""Looks at a run whose candidate stands: plays new requests, counts what a canary did, and does what the stages say.

Each look that found something is one event, written together with the requests that it counted and with the change of the
bundles that it decided. So a process that is killed between two looks has lost nothing, and the next one counts nothing twice.
"""

from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection

from deployments.learning.kept import served_rows
from deployments.learning.live import bundles, model_store, weights_used
from deployments.learning.live.bundles import Bundle
from deployments.learning.runs import Event, Run
from deployments.learning.steps import in_use, live_counts, pairs
from deployments.learning.steps.in_use import InUse
from deployments.learning.steps.live_counts import Decided
from deployments.learning.steps.pairs import Compared
from deployments.learning.steps.parts import Compare
from deployments.learning.steps.work import MANY, STUDENT, Looked, Work, measure_of, settings_of
from router.config import Flywheel
from router.errors import BadInput
from router.flywheel.pairs import Faulty, Tally
from router.flywheel.played import CannotPlay
from router.flywheel.safeguards import Arm, Counts
from router.flywheel.served import Served
from router.flywheel.stages import RunState, Step, next_step, state_of
from router.flywheel.variants import names_on

COUNTS_EVERY_S = 60.0  # between two events that say nothing but how many requests there were
ANSWER_WAIT_S = 3_600.0  # that a graded request waits for the answer of weights that were put beside the others later
LIVE = ("canary", "promoted")  # stages in which somebody gets the candidate's answers


@dataclass
class Look:
    """One look at one run."""

    work: Work
    run: Run
    used: InUse
    state: RunState
    settings: Flywheel
    counts: Counts
    auto: bool
    compared: list[Compared] = field(default_factory=list)

    def decide(self) -> Step:
        return next_step(self.state, self.counts, self.settings, self.work.clock(), self.auto)

    def take(self, served: Served | None, trace_id: str, compare: Compare, seen: set[str]) -> None:
        """Count one request."""
        conversation = (served.conversation if served else "") or trace_id
        chance = served.chance if served else 1.0

        def left_out(why: str) -> None:
            self.compared.append(Compared(trace_id, self.state.stage, conversation, None, chance, why=why[:200]))

        if served is None:
            return left_out("it is no longer kept")
        if conversation in seen:
            return left_out("a request of its conversation has counted")
        try:
            pair = compare(served)
        except CannotPlay as error:
            self.tally(self.state.tally.skip())
            return left_out(str(error))
        except Faulty as error:
            self.tally(self.state.tally.skip(fault=True))
            return left_out(str(error))
        self.tally(self.state.tally.add(pair))
        if pair.d is None:
            return left_out("not every answer has a score")
        seen.add(conversation)
        usd = (pair.candidate.cost_usd, pair.incumbent.cost_usd)
        self.compared.append(Compared(trace_id, self.state.stage, conversation, pair.d, chance, *usd))
        return None

    def tally(self, tally: Tally) -> None:
        self.state = RunState(self.state.stage, self.state.since_s, tally, self.state.latest)


def look(work: Work, run: Run, events: list[Event], used: InUse, compare: Compare, auto: bool) -> Looked:
    """One look. Raises WrittenMeanwhile."""
    settings = settings_of(run)
    state = state_of(events, settings.margin)
    with work.engine.connect() as connection:
        waiting = ready(connection, work, run, state.since_s)
        counts = counts_of(connection, work, run, state, used)
        looked = Look(work, run, used, state, settings, counts, auto)
        step = looked.decide()
        if step.to == state.stage:
            step = play(connection, looked, waiting, compare)
    if step.to == state.stage and not looked.compared and not worth_noting(events, looked):
        return Looked(step.to, step.what, step.why, run.id, numbers=step.event)
    return written(looked, step, len(events))


def ready(connection: Connection, work: Work, run: Run, since_s: float) -> list[str]:
    """Requests that can be looked at: graded since then, with an answer of each of the weights that are compared.

    One that lacks such an answer waits for it, since the filler asks new weights later than others; but ANSWER_WAIT_S at most.
    """
    if run.kind != STUDENT:
        return pairs.waiting(connection, run.id, since_s, MANY)
    sides = [weights_stored(connection, work, digest) for digest in {run.candidate, measure_of(run)}]
    compared = {name for weights in sides for name in names_on(tuple(work.config.names), weights)}
    return pairs.waiting(connection, run.id, since_s, MANY, sorted(compared), work.clock() - ANSWER_WAIT_S)


def weights_stored(connection: Connection, work: Work, digest: str) -> dict[str, str]:
    """tier -> digest of the weights that a learned or the configured artefact is for."""
    if not digest:
        return {}
    try:
        return weights_used.weights_of(model_store.manifest(connection, digest))
    except BadInput:  # the configured one, which is not in the database
        place = work.config.routing.artefact
        return weights_used.weights_of(place) if place else {}


def play(connection: Connection, looked: Look, waiting: list[str], compare: Compare) -> Step:
    """Play the requests one by one, up to the first that decides: the evidence is looked at after every pair."""
    versions = looked.work.versions(connection)
    rows = {trace_id: served_rows.one(connection, trace_id, versions=versions) for trace_id in waiting}
    asked = [row.conversation if row and row.conversation else trace_id for trace_id, row in rows.items()]
    seen = pairs.known(connection, looked.run.id, asked)
    step = looked.decide()
    for trace_id, row in rows.items():
        looked.take(row, trace_id, compare, seen)
        step = looked.decide()
        if step.to != looked.state.stage:
            break
    return step


def worth_noting(events: list[Event], looked: Look) -> bool:
    """Whether the counts of a canary have changed and were not written for a while."""
    before = looked.state.latest.get("counts", {}).get("candidate", {}).get("requests", 0)
    changed = looked.state.stage in LIVE and looked.counts.candidate.requests != before
    return changed and looked.work.clock() - events[-1].at_s >= COUNTS_EVERY_S


# -- counts ----------------------------------------------------------------------------------------------------------------


def counts_of(connection: Connection, work: Work, run: Run, state: RunState, used: InUse) -> Counts:
    """What happened since the stage began."""
    target = str(work.config.routing.target)
    retired = retired_of(connection, work.folder_of(run.candidate, used), target)
    told = {
        "retired": retired,
        "incumbent_retired": bool(retired_of(connection, work.folder_of(run.incumbent, used), target)),
        "asked": state.latest.get("asked", ""),
        "by": state.latest.get("by", ""),
    }
    if state.stage not in LIVE:
        return Counts(**told)
    mine = arm(live_counts.decided(connection, run.candidate, state.since_s))
    if state.stage == "promoted":  # the incumbent decides no more: what it did during the canary is the measure
        before = state.latest.get("counts", {}).get("incumbent")
        return Counts(mine, Arm(**before) if before else Arm(), **told)
    return Counts(mine, arm(live_counts.decided(connection, run.incumbent, state.since_s)), **told)


def retired_of(connection: Connection, folder: Path | None, target: str) -> str:
    found = in_use.retired(connection, in_use.certificate_digests(in_use.manifest_of(folder), target))
    return found[0] if found else ""


def arm(found: Decided) -> Arm:
    return Arm(found.requests, found.errors, found.p95_s, found.escalated, found.usd)


# -- writing ---------------------------------------------------------------------------------------------------------------


def written(looked: Look, step: Step, number: int) -> Looked:
    """Write what was seen and decided, and put the bundles in order, all at once."""
    work, run, stage = looked.work, looked.run, looked.state.stage

    def also(connection: Connection) -> None:
        pairs.add(connection, run.id, looked.compared, work.clock())
        if step.to != stage:
            entered(connection, looked, step)

    return work.write(run, number, step, also)


def entered(connection: Connection, looked: Look, step: Step) -> None:
    """What every ingress decides by from now on."""
    work, run, over = looked.work, looked.run, looked.used.configured
    now_s, share = work.clock(), looked.settings.canary_share
    if step.to == "canary":
        bundles.put(connection, Bundle("canary", run.candidate, run.id, share, now_s, over, work.by))
    elif step.to == "promoted":
        bundles.promote(connection, run.candidate, run.id, over, work.by, now_s)
    elif step.to == "rolled back":
        taken_back(connection, looked.state.stage, work.by, now_s)
    elif step.to == "done":
        bundles.clear(connection, "previous")


def taken_back(connection: Connection, stage: str, by: str, now_s: float) -> None:
    if stage == "promoted":
        bundles.rollback(connection, by, now_s)
    else:
        bundles.clear(connection, "canary")
