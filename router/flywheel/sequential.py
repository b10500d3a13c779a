"""Sequential tests on pairs: is a candidate worse than an incumbent by a margin, or not? They may be looked at after every pair.

A pair gives d in [-1, 1]: the candidate's score less the incumbent's, on the same request. Two claims can be tested:

- `not worse`: E d > -margin. The hypothesis to refute is E[d | past] <= -margin. A bet on x = d + margin.
- `worse`: E d < -margin. The hypothesis to refute is E[d | past] >= -margin. A bet on x = -(d + margin).

A bet multiplies its wealth by 1 + l x. x is never below -b (b = 1 - margin, or 1 + margin), so with 0 <= l < 1 / b the wealth
stays positive, and under the hypothesis E[1 + l x | past] <= 1: the wealth is a supermartingale that starts at 1. By Ville's
inequality the chance that it *ever* reaches a is at most 1 / a, however often one looks and whenever one stops.

**Which l.** The best l depends on how often the two differ, which nobody knows before. `Wealth` therefore divides its stake
among `BETS`, each with an l that is fixed beforehand, and its wealth is their sum: a mean of such supermartingales is one, so
the bound holds exactly (a universal portfolio over few bets, Cover 1991). It is the same as one bet whose l is the mean of all l
weighted by what each has won so far, which depends on the past alone. A single bet must stay at half of what one pair could
lose, or one unlucky pair ends it; a mixture may hold bolder bets beside careful ones, since a loss can never take all of it. That
decides sooner where nearly every pair is equal (d = 0), as between a certified router and the top tier. The wealth does not
depend on the order of the pairs.

**Weights.** Where requests were drawn with different chances, x is multiplied by `weight` = least chance / chance, in (0, 1].
Among drawn requests a request of chance c occurs in proportion to c, so E[weight x | drawn] is E[x] over all requests times a
positive constant: it is <= 0 under the same hypothesis, and weight x is no lower than -b, so the bound holds unchanged. Accepting
a pair with that chance instead would be valid as well, but needs a further random number and loses pairs.

**What cannot be graded** is undecided: it is counted and bets nothing, so the test is about requests that can be graded. Pairs
of one conversation are not independent: take one of each (`pairs.py`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Claim = Literal["not worse", "worse"]

BETS = (0.3, 0.5, 0.9)
"""l of each bet, as a share of 1 / b, at which one pair could lose all"""
STAKES = (0.25, 0.5, 0.25)
"""share of the first wealth that each bet begins with; they and BETS were chosen by `benchmarks/sequential.py`"""
MOST_LOG = 600.0  # of a bet's wealth when it is shown: exp of it is still a float


@dataclass(frozen=True, slots=True)
class Wealth:
    """The evidence for one claim so far; 1 at the start, and at most 1 / p of a test's p-value."""

    margin: float
    """in [0, 1)"""
    claim: Claim = "not worse"
    logs: tuple[float, ...] = (0.0,) * len(BETS)
    """logarithm of each bet's wealth"""
    pairs: int = 0
    """looked at, undecided ones included"""
    undecided: int = 0
    sum_d: float = 0.0
    peak: float = 1.0
    """highest wealth so far: what Ville's inequality bounds"""

    @property
    def wealth(self) -> float:
        return mixed(self.logs)

    @property
    def decided(self) -> int:
        return self.pairs - self.undecided

    @property
    def mean_d(self) -> float | None:
        """Mean of d over decided pairs; None: there are none."""
        return self.sum_d / self.decided if self.decided else None

    def update(self, d: float | None, weight: float = 1.0) -> "Wealth":
        """The evidence after one more pair.

        d: candidate's score less incumbent's, in [-1, 1] (values beyond are cut); None or NaN: undecided. weight: in (0, 1].
        """
        if d is None or math.isnan(d) or not weight > 0:
            return replace(self, pairs=self.pairs + 1, undecided=self.undecided + 1)
        d, weight = min(max(d, -1.0), 1.0), min(weight, 1.0)
        gains = log_gains(d, self.margin, self.claim, weight)
        logs = tuple(log + gain for log, gain in zip(self.logs, gains, strict=True))
        grown = replace(self, logs=logs, pairs=self.pairs + 1, sum_d=self.sum_d + d)
        return replace(grown, peak=max(self.peak, grown.wealth))

    def as_json(self) -> dict[str, Any]:
        return {
            "margin": self.margin,
            "claim": self.claim,
            "logs": list(self.logs),
            "pairs": self.pairs,
            "undecided": self.undecided,
            "sum_d": self.sum_d,
            "wealth": self.wealth,
            "peak": self.peak,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Wealth":
        """What `as_json` gave. A state of other bets begins anew, with its counts: its evidence cannot be continued."""
        known = ("margin", "claim", "pairs", "undecided", "sum_d", "peak")
        logs = tuple(float(log) for log in data["logs"])
        kept = {"logs": logs} if len(logs) == len(BETS) else {"peak": 1.0}
        return cls(**{**{name: data[name] for name in known}, **kept})


def mixed(logs: Sequence[float]) -> float:
    """The wealth of the mixture, from each bet's."""
    return sum(stake * math.exp(min(log, MOST_LOG)) for stake, log in zip(STAKES, logs, strict=True))


def rates_of(margin: float, claim: Claim) -> tuple[float, ...]:
    """l of each bet."""
    most_lost = 1 - margin if claim == "not worse" else 1 + margin
    return tuple(share / most_lost for share in BETS)


def log_gains(d: float, margin: float, claim: Claim, weight: float = 1.0) -> list[float]:
    """By how much each bet's logarithm of wealth changes with a decided pair."""
    x = weight * (d + margin if claim == "not worse" else -(d + margin))
    return [math.log1p(rate * x) for rate in rates_of(margin, claim)]


def expected_pairs(
    losses: float,
    wins: float,
    margin: float,
    goal: float,
    claim: Claim = "not worse",
    logs: Sequence[float] = (),
    most: int = 100_000,
) -> int | None:
    """About how many further pairs take the wealth to `goal`, where it grows as it does in the mean; None: over `most`, or never.

    losses, wins: rates of d = -1 and d = 1 among pairs; all others are equal. logs: of the bets so far; empty: at the start.
    """
    start = list(logs) or [0.0] * len(BETS)
    shares = {-1.0: losses, 0.0: max(0.0, 1 - losses - wins), 1.0: wins}
    each = {d: log_gains(d, margin, claim) for d in shares}
    growth = [sum(share * each[d][k] for d, share in shares.items()) for k in range(len(BETS))]

    def reached(n: int) -> bool:
        return mixed([log + n * gain for log, gain in zip(start, growth, strict=True)]) >= goal

    if reached(0):
        return 0
    if not reached(most):
        return None
    low, high = 0, most  # convex in n and below the goal at 0: it crosses once
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
