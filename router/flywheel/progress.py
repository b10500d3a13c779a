"""How far learning is: pairs of how many, until when at today's traffic, what it would save, and why it does not save yet."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from router.config import Config, Flywheel
from router.costs.machine_time import DAY_S
from router.decide.certificates import fewest_rows, upper_bound
from router.flywheel.rows.sides import CERTIFY
from router.flywheel.sequential import expected_pairs
from router.flywheel.served import Served
from router.flywheel.stages import RunState, Stage

LEAST_SPAN_S = 600.0  # of traffic, from which a rate is taken
MOST_NEEDED = 100_000
ASSUMED = 0.25  # share of the margin by which a certified candidate is assumed to be worse, until pairs show it


@dataclass(frozen=True, slots=True)
class LogFigures:
    """What the log holds of the requests that can teach: since the candidate in use was made, or since it was begun."""

    kept: int = 0
    """requests kept"""
    drawn: int = 0
    """of these, drawn to be filled in"""
    waiting: int = 0
    """of these, still waiting for it"""
    complete: int = 0
    """with an answer and a score of every tier: these are the pairs"""
    ungraded: int = 0
    """filled in, but some answer has no score"""
    complete_day: int = 0
    """pairs of the last 24 hours"""
    first_s: float | None = None
    """Unix time of the first kept request"""
    spent_usd_day: float = 0.0
    """by filling in and judging, since 00:00 UTC"""


@dataclass(frozen=True, slots=True)
class Saving:
    """What would be saved of the cost of always asking the top tier."""

    share: float
    """in [0, 1]"""
    rows: int
    played: bool
    """by playing a candidate; else an upper bound: as if the cheapest tier that is as good as the top one were known before"""

    @property
    def text(self) -> str:
        of = f"{self.share:.0%} of the cost of always asking the top tier"
        if self.played:
            return f"the candidate would save {of} ({self.rows} requests)"
        return f"at most {of} could be saved ({self.rows} requests; upper bound)"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far learning is. `as_json` is what /v1/status shows."""

    stage: Stage
    pairs: int
    """of the present stage"""
    needed: int | None
    """about so many; None: the pairs so far do not tell"""
    eta_s: float | None
    """Unix time by which they are there at today's traffic; None: not known"""
    when: str
    """the same in words, in the reader's time zone; empty: not known"""
    saving: Saving | None
    why: tuple[str, ...] = ()
    """why it does not save yet, the most pressing first"""

    @property
    def line(self) -> str:
        """`214 of about 400 pairs; at today's traffic: tomorrow 14:00`."""
        if self.needed is None:
            return f"{self.pairs} pairs so far"
        soon = f"; at today's traffic: {self.when}" if self.when else ""
        return f"{self.pairs} of about {self.needed} pairs{soon}"

    def text(self) -> str:
        """For a terminal: one line each."""
        known = [self.saving.text] if self.saving else []
        return "\n".join([f"{self.stage}: {self.line}" if shows_pairs(self.stage) else self.stage, *known, *self.why])

    def as_json(self) -> dict[str, Any]:
        saving = None if self.saving is None else {**asdict(self.saving), "text": self.saving.text}
        plain = {name: getattr(self, name) for name in ("stage", "pairs", "needed", "eta_s", "when")}
        return {**plain, "line": self.line, "saving": saving, "why": list(self.why), "text": self.text()}


def progress(
    config: Config, log: LogFigures, run: RunState | None, saving: Saving | None, now_s: float, zone: tzinfo, risk: float = 0.0
) -> Progress:
    """run: the one that is not over; None: none runs. saving: None: nothing is graded yet. zone: of the reader's clock.

    risk: see `rows_needed`; of the last candidate that no certificate could be made for, where there was one.
    """
    stage: Stage = run.stage if run else "collecting"
    pairs = log.complete
    needed: int | None = rows_needed(config.flywheel, risk)
    if run and stage in ("shadow", "waiting", "canary", "promoted"):
        pairs, needed = run.tally.pairs, shadow_needed(run, config.flywheel) if stage == "shadow" else None
    rate = log.complete_day / min(max(now_s - (log.first_s or now_s), LEAST_SPAN_S), DAY_S)
    left = None if needed is None else max(0, needed - pairs)
    eta_s = now_s + left / rate if left and rate > 0 else (now_s if left == 0 else None)
    blocked = tuple(obstacles(config, log)) if shows_pairs(stage) else ()
    why = (*blocked, *reasons(config, log, stage, left, pairs))
    return Progress(stage, pairs, needed, eta_s, moment(eta_s, now_s, zone) if eta_s and left else "", saving, why)


def shows_pairs(stage: str) -> bool:
    """Whether the stage waits for pairs."""
    return stage in ("collecting", "shadow")


# -- how many --------------------------------------------------------------------------------------------------------------


def rows_needed(settings: Flywheel, risk: float = 0.0) -> int:
    """About how many pairs a run needs: enough to train, and on the rest a certificate that can stand.

    risk: rate of worse answers among all that a certificate would permit; 0: even with none it needs ln(1 / delta) / alpha rows.
    """
    least = fewest_rows(settings.alpha, settings.delta)
    while least < MOST_NEEDED and upper_bound(math.floor(risk * least), least, settings.delta) > settings.alpha:
        least = math.ceil(least * 1.1)
    return max(settings.least_pairs, math.ceil(least / CERTIFY))


def shadow_needed(run: RunState, settings: Flywheel) -> int | None:
    """About how many pairs the shadow needs in all, if the candidate goes on as it did so far; None: it would not pass.

    The rate of lost pairs is drawn towards a share of the margin, which a certified candidate is assumed to have.
    """
    tally = run.tally
    prior = 1 / max(settings.margin, 1e-3)
    lost = (tally.lost + ASSUMED * settings.margin * prior) / (tally.decided + prior)
    won = tally.won / (tally.decided + prior)
    test = tally.not_worse
    more = expected_pairs(lost, won, test.margin, settings.shadow_wealth, "not worse", test.logs, settings.shadow_most_pairs)
    if more is None:
        return None
    graded = tally.decided / tally.pairs if tally.decided else 1.0
    return min(settings.shadow_most_pairs, tally.pairs + math.ceil(max(more, settings.shadow_pairs - tally.decided) / graded))


# -- what it would save ----------------------------------------------------------------------------------------------------


def saving_of(rows: Sequence[Served], tiers: Sequence[str]) -> Saving | None:
    """Upper bound of the saving on complete rows; None: there are none, or they cost nothing."""
    names = tuple(tiers)
    whole = [row for row in rows if row.complete(names)]
    top_usd = sum(row.answers[names[-1]].cost_usd / row.chance for row in whole)
    if not top_usd > 0:
        return None
    least_usd = sum(cheapest(row, names) / row.chance for row in whole)
    return Saving(1 - least_usd / top_usd, len(whole), played=False)


def cheapest(row: Served, names: tuple[str, ...]) -> float:
    """USD of the cheapest tier whose answer is as good as the top tier's. Every tier has an answer and a score."""
    scores = {name: row.grades[name].score or 0.0 for name in names}
    return min(row.answers[name].cost_usd for name in names if scores[name] >= scores[names[-1]])


def played_saving(run: RunState) -> Saving | None:
    """What the candidate saves on the pairs of its stage; None: none was played."""
    share = run.tally.saving
    return None if share is None else Saving(max(0.0, share), run.tally.pairs, played=True)


# -- why not yet -----------------------------------------------------------------------------------------------------------


def obstacles(config: Config, log: LogFigures) -> Iterator[str]:
    """What keeps pairs from coming, or a certificate from standing: each names the setting or the command that mends it."""
    learning = config.learning
    if len(config.tiers) < 2:
        yield "there is one tier only, so there is nothing to choose"
    if not config.escalation.looks:
        yield f"no certificate is possible: escalation.mode is {config.escalation.mode}; set buffer or holdback"
    if learning.collect == "off":
        yield "nothing is kept: learning.collect is off; set consented"
    elif not log.kept:
        yield "nothing was kept yet: no key (`stepdown keys create --learning`) and no request (`store: true`) has allowed it"
    if not learning.fill_share:
        yield "no tier is asked afterwards: learning.fill_share is 0"
    if log.waiting and log.spent_usd_day >= learning.fill_usd_day:
        yield (
            f"the day's budget for filling in is spent ({log.spent_usd_day:.2f} of {learning.fill_usd_day:.2f} USD, "
            "learning.fill_usd_day); it goes on at 00:00 UTC"
        )
    elif log.waiting:
        yield f"{log.waiting} drawn requests wait for an idle moment to be filled in"
    if log.ungraded > log.complete:
        yield f"{log.ungraded} of {log.ungraded + log.complete} filled requests could not be graded"


def reasons(config: Config, log: LogFigures, stage: Stage, left: int | None, pairs: int) -> Iterator[str]:
    """What the stage itself waits for."""
    asked = config.learning.start == "asked"
    if stage == "collecting":
        if left:
            yield "too few graded pairs"
        elif asked:
            yield "there are enough pairs: `stepdown flywheel run` begins (learning.start is asked)"
        return
    texts: Mapping[str, str] = {
        "training": "a candidate is being trained and certified",
        "shadow": "a candidate is played beside what serves; nobody gets its answers yet",
        "waiting": "a candidate has passed the shadow; `stepdown flywheel promote` lets it go on",
        "canary": f"a candidate answers {config.flywheel.canary_share:.0%} of the conversations",
    }
    if stage in texts:
        yield texts[stage]
    if stage == "shadow" and left is None:
        yield f"with as many lost pairs as in the {pairs} so far it would not pass within {config.flywheel.shadow_most_pairs}"


# -- when ------------------------------------------------------------------------------------------------------------------


def moment(at_s: float, now_s: float, zone: tzinfo) -> str:
    """A time to come, as people say it: `today 14:00`, `tomorrow 14:00`, `Thursday 14:00`, else the date. To the quarter hour."""
    rounded = math.ceil(at_s / 900) * 900
    then, now = (datetime.fromtimestamp(s, UTC).astimezone(zone) for s in (rounded, now_s))
    days = (then.date() - now.date()) // timedelta(days=1)
    if days > 6:
        return then.strftime("%Y-%m-%d")
    return {0: "today", 1: "tomorrow"}.get(days, then.strftime("%A")) + then.strftime(" %H:%M")
