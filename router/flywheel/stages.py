"""The stages of a run, as a pure state machine: what to do next, and why, in words with numbers.

collecting -> training -> shadow -> (waiting ->) canary -> promoted -> done
                             |          |             |          |
                     refused, undecided  refused   rolled back  rolled back             failed: from any stage before canary

shadow: nobody gets the candidate's answers, it is played on new requests beside the incumbent. waiting: it passed, and a person
has to say so. canary: a share of the conversations gets it. promoted: everybody does; the replaced router is kept ready, and
comes back if the candidate turns out worse. done, refused, undecided, rolled back and failed are ends.

A run is nothing but its events (`run_events`), so that any process can go on with it: `state_of`. The evidence begins anew with
each stage, for two reasons: one that was long good is found out as quickly as any when it becomes worse; and each stage's chance
of a wrong rollback is its own, at most 1 / rollback_wealth.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast, get_args

from router.config import Flywheel
from router.flywheel.pairs import Tally
from router.flywheel.safeguards import Counts, harm, spends_more

FAULTY = 0.01  # share of the requests on which a candidate may fail; two it may always
Stage = Literal[
    "collecting", "training", "shadow", "waiting", "canary", "promoted", "done", "refused", "undecided", "rolled back", "failed"
]
STAGES: tuple[str, ...] = get_args(Stage)
ENDS = frozenset({"done", "refused", "undecided", "rolled back", "failed"})
NEXT: Mapping[str, frozenset[str]] = {
    "collecting": frozenset({"training", "refused", "failed"}),
    "training": frozenset({"shadow", "refused", "failed"}),
    "shadow": frozenset({"waiting", "canary", "refused", "undecided", "failed"}),
    "waiting": frozenset({"canary", "refused", "failed"}),
    "canary": frozenset({"promoted", "rolled back"}),
    "promoted": frozenset({"done", "rolled back"}),
}
"""the stages that may follow each; none follows an end"""


def may_follow(before: str, after: str) -> bool:
    """Whether a run in stage `before` may be in stage `after` next. Staying is always possible."""
    return before == after or after in NEXT.get(before, ())


class RunEvent(Protocol):
    """A row of `run_events`, oldest first."""

    @property
    def stage(self) -> str: ...
    @property
    def what(self) -> str: ...
    @property
    def at_s(self) -> float: ...
    @property
    def numbers(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a run stands."""

    stage: Stage
    since_s: float
    """Unix time of the stage's first event"""
    tally: Tally
    """what its pairs have shown since then"""
    latest: Mapping[str, Any] = field(default_factory=dict)
    """numbers of the stage's events, the later of two with the same name: also what the caller notes there, as how far it read"""

    @property
    def over(self) -> bool:
        return self.stage in ENDS


def state_of(events: Iterable[RunEvent], margin: float) -> RunState:
    """Where a run with these events stands. An event after an end changes nothing, nor does one that may not follow.

    The event that begins a stage holds the evidence by which the last one ended, so the new one's begins after it.
    """
    state: RunState | None = None
    for event in events:
        if event.stage not in STAGES or not may_follow(state.stage if state else event.stage, event.stage):
            continue
        if state is None or event.stage != state.stage:
            state = RunState(cast(Stage, event.stage), event.at_s, Tally.begin(margin), event.numbers)
        elif not state.over:
            tally = event.numbers.get("tally")
            read = state.tally if tally is None else Tally.from_json(tally)
            state = RunState(state.stage, state.since_s, read, {**state.latest, **event.numbers})
    return state or RunState("collecting", 0.0, Tally.begin(margin))


@dataclass(frozen=True, slots=True)
class Step:
    """What to do next."""

    to: Stage
    """the stage to go to; the present one: stay"""
    what: str
    """for the event: looked, passed, approved, promoted, done, refused, undecided, rolled back"""
    why: str
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def event(self) -> dict[str, Any]:
        """The numbers of the event that the caller writes, with the reason."""
        return {**self.numbers, "why": self.why}


def next_step(state: RunState, counts: Counts, settings: Flywheel, now_s: float, auto: bool = False) -> Step:
    """What a run does next. counts: since its stage began. auto: it does not wait for a person after the shadow.

    `collecting` and `training` are the caller's work: they stay until an event of its says that they are over. The evidence
    is written with the event that leaves a stage, too: the next one begins with none.
    """
    rules = {"shadow": in_shadow, "waiting": in_waiting, "canary": in_canary, "promoted": in_promoted}
    rule = rules.get(state.stage)
    if rule is None:
        return Step(state.stage, "ended" if state.over else "looked", f"the run is in stage {state.stage}")
    go_on = auto or settings.promote == "auto" or counts.asked == "promote"
    to, what, why = rule(state, counts, settings, now_s, go_on)
    numbers = {"tally": state.tally.as_json(), "counts": counts.as_json(), "seconds": round(max(0.0, now_s - state.since_s), 1)}
    return Step(to, what, why, numbers)


Found = tuple[Stage, str, str]
"""stage, what, why"""


def in_shadow(state: RunState, counts: Counts, settings: Flywheel, now_s: float, go_on: bool) -> Found:
    tally = state.tally
    if why := refusal(tally, counts, settings):
        return "refused", "refused", why
    shown = f"wealth {tally.not_worse.wealth:.3g} of {settings.shadow_wealth:g} after {tally.decided} graded pairs"
    if tally.not_worse.wealth >= settings.shadow_wealth and tally.decided >= settings.shadow_pairs:
        if why := spends_more(tally, counts):
            return "refused", "refused", why
        passed = f"not worse by {settings.margin:g}: {shown}, {tally.lost} lost and {tally.won} won"
        if go_on:
            return "canary", "passed", passed
        return "waiting", "passed", f"{passed}; `stepdown flywheel promote` lets it go on"
    if tally.pairs >= settings.shadow_most_pairs:
        return "undecided", "undecided", f"{tally.pairs} pairs without a result: {shown}"
    return "shadow", "looked", f"{shown}; at least {settings.shadow_pairs} pairs are needed"


def in_waiting(state: RunState, counts: Counts, settings: Flywheel, now_s: float, go_on: bool) -> Found:
    if why := refusal(state.tally, counts, settings):
        return "refused", "refused", why
    if go_on:
        return "canary", "approved", f"approved by {counts.by or 'the settings'}"
    return "waiting", "looked", "it passed the shadow and waits for `stepdown flywheel promote`"


def in_canary(state: RunState, counts: Counts, settings: Flywheel, now_s: float, go_on: bool) -> Found:
    if why := worse(state.tally, settings) or harm(state.tally, counts):
        return "rolled back", "rolled back", why
    seconds, requests = now_s - state.since_s, counts.candidate.requests
    shown = f"{requests} requests of {settings.canary_requests} in {seconds:.0f} s of {settings.canary_s:.0f} s"
    if seconds >= settings.canary_s and requests >= settings.canary_requests:
        return "promoted", "promoted", f"{shown}, and nothing against it: {evidence(state.tally, settings)}"
    return "canary", "looked", f"{shown}; {evidence(state.tally, settings)}"


def in_promoted(state: RunState, counts: Counts, settings: Flywheel, now_s: float, go_on: bool) -> Found:
    if why := worse(state.tally, settings) or harm(state.tally, counts):
        return "rolled back", "rolled back", why
    seconds = now_s - state.since_s
    if seconds >= settings.keep_old_s:
        return "done", "done", f"watched for {seconds:.0f} s: {evidence(state.tally, settings)}"
    return "promoted", "looked", f"watched for {seconds:.0f} s of {settings.keep_old_s:.0f} s; {evidence(state.tally, settings)}"


def refusal(tally: Tally, counts: Counts, settings: Flywheel) -> str:
    """Why a candidate that nobody gets yet is given up; empty: it is not."""
    if counts.asked == "rollback":
        return f"given up by {counts.by or 'a person'}"
    most = max(2, FAULTY * tally.pairs)
    faults = tally.faults + counts.faults
    if faults > most:
        return f"it failed on {faults} of {tally.pairs + faults} requests that the incumbent decided"
    return worse(tally, settings)


def worse(tally: Tally, settings: Flywheel) -> str:
    """Why the pairs say that the candidate is worse; empty: they do not. Its highest wealth counts: see sequential.py."""
    if tally.worse.peak < settings.rollback_wealth:
        return ""
    return (
        f"worse by more than {settings.margin:g}: {evidence(tally, settings)}, {tally.lost} lost and {tally.won} won, "
        f"mean difference {tally.worse.mean_d or 0.0:+.3f}"
    )


def evidence(tally: Tally, settings: Flywheel) -> str:
    return f"wealth {tally.worse.peak:.3g} of {settings.rollback_wealth:g} against it after {tally.decided} graded pairs"
