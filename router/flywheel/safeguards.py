"""What speaks against a candidate besides its answers' scores: errors, latency, escalations, spending, its own certificate.

The two arms of a canary serve different requests, so a difference has to be larger than chance makes it: shares are compared by
Fisher's exact test. Spending is compared on the same requests, as both routers were played on them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from scipy.stats import hypergeom

from router.flywheel.pairs import Tally

SURE = 0.001  # chance of so many more errors or escalations by accident, below which they count; small, as it is looked at often
LEAST_REQUESTS = 200  # of each arm, for a 95 % quantile
LEAST_PAIRS = 100  # for a mean cost
SLOWER = 1.5  # times the incumbent's 95 % quantile of latency
SLOWER_THAN_TOP = 3.0  # the same where the incumbent always asks one tier: an escalated request waits for two and more
MORE_ESCALATIONS = 1.2


@dataclass(frozen=True, slots=True)
class Arm:
    """What one router did since the stage began; of the incumbent after a promotion, what it did during the canary."""

    requests: int = 0
    errors: int = 0
    p95_s: float | None = None
    """95 % quantile of the seconds until the whole answer; None: not known"""
    escalations: int = 0
    """requests for which a larger tier was asked after a smaller one"""
    usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Counts:
    """What happened since a run's stage began."""

    candidate: Arm = Arm()
    incumbent: Arm = Arm()
    faults: int = 0
    """requests on which the candidate failed and the incumbent did not, beside those that its tally counts"""
    retired: str = ""
    """why the candidate's certificate was retired; empty: it is not, or it has none"""
    incumbent_retired: bool = False
    """the incumbent's certificate is retired: its promise is broken, so it is no measure of cost"""
    asked: Literal["", "promote", "rollback"] = ""
    """what a person asked for"""
    by: str = ""
    """who"""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Counts":
        arms = {name: Arm(**data[name]) for name in ("candidate", "incumbent") if name in data}
        return cls(**{**data, **arms})


def harm(tally: Tally, counts: Counts) -> str:
    """Why a candidate that somebody gets is taken back, apart from its scores; empty: nothing speaks against it."""
    if counts.asked == "rollback":
        return f"taken back by {counts.by or 'a person'}"
    if counts.retired:
        return f"its certificate was retired: {counts.retired}"
    return more_errors(counts) or slower(counts) or more_escalations(counts) or spends_more(tally, counts)


def more_errors(counts: Counts) -> str:
    mine, other = counts.candidate, counts.incumbent
    if by_chance(mine.errors, mine.requests, other.errors, other.requests) >= SURE:
        return ""
    return f"more errors: {shown(mine.errors, mine.requests)}, the incumbent {shown(other.errors, other.requests)}"


def more_escalations(counts: Counts) -> str:
    """An incumbent that never escalates, as the top tier alone, is no measure; and who tries smaller tiers more often, as better
    ones call for, may escalate more often as long as its requests cost less.
    """
    mine, other = counts.candidate, counts.incumbent
    if mine.usd * other.requests < other.usd * mine.requests:
        return ""
    if not other.escalations or mine.escalations * other.requests <= MORE_ESCALATIONS * other.escalations * mine.requests:
        return ""
    if by_chance(mine.escalations, mine.requests, other.escalations, other.requests) >= SURE:
        return ""
    return (
        f"more escalations: {shown(mine.escalations, mine.requests)}, the incumbent {shown(other.escalations, other.requests)}, "
        f"permitted {MORE_ESCALATIONS:g} times as many"
    )


def slower(counts: Counts) -> str:
    mine, other = counts.candidate, counts.incumbent
    if min(mine.requests, other.requests) < LEAST_REQUESTS or mine.p95_s is None or not other.p95_s:
        return ""
    most = SLOWER if other.escalations else SLOWER_THAN_TOP
    if mine.p95_s <= most * other.p95_s:
        return ""
    return f"slower: 95 % within {mine.p95_s:.2f} s, the incumbent within {other.p95_s:.2f} s, permitted {most:g} times that"


def spends_more(tally: Tally, counts: Counts) -> str:
    """On the same requests, from the costs of the kept answers."""
    if tally.pairs < LEAST_PAIRS:
        return ""
    name, usd = ("the top tier alone", tally.top_usd) if counts.incumbent_retired else ("the incumbent", tally.incumbent_usd)
    if tally.candidate_usd <= usd:
        return ""
    return f"spends more: {tally.candidate_usd:.3g} USD on {tally.pairs} requests, {name} {usd:.3g} USD"


def by_chance(k: int, n: int, k_other: int, n_other: int) -> float:
    """Chance that k or more of the k + k_other cases fall on n of the n + n_other requests (Fisher's exact test, one-sided)."""
    if not k or not n_other:
        return 1.0
    return float(hypergeom.sf(k - 1, n + n_other, k + k_other, n))


def shown(k: int, n: int) -> str:
    return f"{k} of {n} requests"
