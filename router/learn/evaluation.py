"""The field's measures of a router, each with a bootstrap interval over prompts.

Every measure takes weights of shape (n_draws, n). Row 0 is all ones and gives the estimate; the other rows are bootstrap
draws, so the same code gives both. Sources: PGR, APGR, CPT from RouteLLM (arXiv 2406.18665); AIQ from RouterBench
(2403.12031); arena score from RouterArena (2510.00202).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifiers.choose import Floats

SHARES = (0.50, 0.80, 0.95)
QUALITIES = (0.95, 0.98, 0.99, 1.00)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def rounded(self, digits: int) -> list[float | None]:
        """[value, low, high] for JSON; None where not defined."""
        return [None if np.isnan(v) else round(float(v), digits) for v in (self.value, self.low, self.high)]


@dataclass(frozen=True)
class Frontier:
    """Mean cost (as a share of always taking the top tier) and quality of a policy, by bootstrap draw."""

    cost: Floats  # (n_draws, n_points)
    quality: Floats

    def cost_at(self, share: Floats | float) -> Floats:
        """(n_draws,) least cost at a quality, one or one a draw; NaN where it is never reached."""
        shares = np.broadcast_to(share, len(self.cost))
        return np.array([cost_at(c, q, s) for c, q, s in zip(self.cost, self.quality, shares, strict=True)])

    def band(self, grid: Floats) -> Floats:
        """(2, len(grid)) lower and upper bound of the hull's 95 % interval at these costs."""
        drawn = [np.interp(grid, *hull(c, q)) for c, q in zip(self.cost[1:], self.quality[1:], strict=True)]
        return np.asarray(np.quantile(drawn, [0.025, 0.975], axis=0))


def draws(n: int, n_draws: int = 300, seed: int = 0, shares: Floats | None = None) -> Floats:
    """(n_draws + 1, n) weights: ones, then multinomial counts of prompts drawn with replacement.

    shares: (n,) weights of the rows, with a mean of 1, by which all of them are multiplied.
    """
    random = np.random.default_rng(seed)
    drawn = np.concatenate([np.ones((1, n)), random.multinomial(n, np.full(n, 1 / n), size=n_draws)])
    return drawn if shares is None else np.asarray(drawn * shares)


def effective(shares: Floats) -> float:
    """How many rows of equal weight prove as much (Kish): n where all weights are the same."""
    return float(shares.sum() ** 2 / (shares**2).sum())


def estimate(values: Floats) -> Estimate:
    """The estimate from (n_draws + 1,) values of a measure; draws where it is not defined are left out."""
    rest = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(rest, [0.025, 0.975]) if len(rest) else (np.nan, np.nan)
    return Estimate(float(values[0]), float(low), float(high))


def pgr_curve(gain: Floats, small: Floats, large: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Share of calls to the large tier, and share of the quality gap recovered: both (n_draws, m).

    Prompts are sent up by falling gain; those of equal gain in one step, which the curve crosses in a straight line.
    """
    order = np.argsort(-gain, kind="stable")
    ties = np.flatnonzero(np.diff(gain[order], prepend=np.inf))
    calls = np.cumsum(np.add.reduceat(weights[:, order], ties, axis=1), axis=1)
    won = np.cumsum(np.add.reduceat((weights * (large - small))[:, order], ties, axis=1), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share, pgr = calls / calls[:, -1:], won / won[:, -1:]
    zero = np.zeros((len(weights), 1))
    return np.concatenate([zero, share], axis=1), np.concatenate([zero, pgr], axis=1)


def apgr(gain: Floats, small: Floats, large: Floats, weights: Floats) -> Floats:
    """(n_draws,) mean share of the quality gap recovered over all shares of calls; a coin gets 0.5."""
    share, pgr = pgr_curve(gain, small, large, weights)
    with np.errstate(invalid="ignore"):  # a draw without any gap between the tiers has no PGR
        return np.asarray(np.trapezoid(pgr, share, axis=1))


def cpt(gain: Floats, small: Floats, large: Floats, weights: Floats, target: float) -> Floats:
    """(n_draws,) least share of calls to the large tier that recovers `target` of the gap."""
    share, pgr = pgr_curve(gain, small, large, weights)
    reached = pgr >= target
    return np.where(reached.any(axis=1), share[np.arange(len(share)), reached.argmax(axis=1)], np.nan)


def sweep(p: Floats, cost: Floats, n_points: int = 120) -> tuple[NDArray[np.int64], Floats]:
    """Choices (n_points, n) by argmax p - price * cost, and the prices, from 0 (quality only) upwards.

    cost: (n_tiers,) or (n, n_tiers). The prices are quantiles of the prices at which some prompt changes its tier.
    """
    cost = np.broadcast_to(cost, p.shape)
    slopes = []
    for i in range(p.shape[1]):
        for j in range(i + 1, p.shape[1]):
            with np.errstate(divide="ignore", invalid="ignore"):
                slopes.append((p[:, j] - p[:, i]) / (cost[:, j] - cost[:, i]))
    slope = np.concatenate(slopes)
    slope = slope[np.isfinite(slope)]
    grid = np.quantile(slope, np.linspace(0, 1, n_points - 2)) if len(slope) else np.zeros(0)
    # Negative prices go on from the best tier by p to the top tier: needed where p ranks a smaller tier higher.
    prices = np.unique(np.concatenate([[-1e6, 0.0], grid, [1e6]]))
    return np.stack([(p - price * cost).argmax(axis=1) for price in prices]), prices


def points(choice: NDArray[np.int64], scores: Floats, costs: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Mean cost and quality of each choice: two arrays (n_draws, n_points)."""
    rows = np.arange(len(scores))
    total = weights.sum(axis=1, keepdims=True)
    return weights @ costs[rows, choice].T / total, weights @ scores[rows, choice].T / total


def hull(cost: Floats, quality: Floats) -> tuple[Floats, Floats]:
    """The non-decreasing concave hull over points (m,): corners from the cheapest to the best."""
    order = np.lexsort((-quality, cost))
    corners: list[tuple[float, float]] = []
    for x, y in zip(cost[order], quality[order], strict=True):
        if corners and y <= corners[-1][1]:
            continue
        while len(corners) > 1 and _above(corners[-2], corners[-1], (x, y)):
            corners.pop()
        corners.append((float(x), float(y)))
    return np.array([c[0] for c in corners]), np.array([c[1] for c in corners])


def _above(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Whether b lies on or below the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])


def aiq(cost: Floats, quality: Floats, low: float, high: float) -> float:
    """Mean quality between two costs: the area under the hull, divided by the width."""
    x, y = hull(cost, quality)
    grid = np.unique(np.concatenate([[low, high], x[(x > low) & (x < high)]]))
    return float(np.trapezoid(np.interp(grid, x, y), grid) / (high - low)) if high > low else float(y[-1])


def cost_at(cost: Floats, quality: Floats, target: float) -> float:
    """Least cost on the hull at that quality; NaN where it is never reached."""
    x, y = hull(cost, quality)
    if target > y[-1] + 1e-12:
        return float("nan")
    return float(np.interp(target, y, x)) if len(x) > 1 else float(x[0])


def arena(quality: Floats, usd_per_request: Floats) -> Floats:
    """RouterArena's score of accuracy (0 to 1) and cost, in [0, 1]; beta 0.1, costs per 1,000 queries."""
    usd = np.clip(usd_per_request * 1000, 0.0044, 200)
    cheap = (np.log2(200) - np.log2(usd)) / (np.log2(200) - np.log2(0.0044))
    with np.errstate(invalid="ignore"):
        return np.asarray(1.1 * quality * cheap / (0.1 * quality + cheap))


def auc(p: Floats, y: Floats, weights: Floats) -> Floats:
    """(n_draws,) chance that a good answer got a higher p than a bad one; graded scores count in parts."""
    order = np.argsort(p, kind="stable")
    ties = np.flatnonzero(np.diff(p[order], prepend=-np.inf))
    good = np.add.reduceat((weights * y)[:, order], ties, axis=1)
    bad = np.add.reduceat((weights * (1 - y))[:, order], ties, axis=1)
    below = np.cumsum(bad, axis=1) - bad / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((good * below).sum(1) / (good.sum(1) * bad.sum(1)))


def ece(p: Floats, y: Floats, weights: Floats, bins: int = 10) -> Floats:
    """(n_draws,) expected calibration error, in bins of equal width."""
    member = np.eye(bins)[np.minimum((p * bins).astype(int), bins - 1)]
    gaps = np.abs((weights * (p - y)) @ member)
    return np.asarray(gaps.sum(axis=1) / weights.sum(axis=1))


def brier(p: Floats, y: Floats, weights: Floats) -> Floats:
    """(n_draws,) mean squared error of p."""
    return np.asarray(weights @ (p - y) ** 2 / weights.sum(axis=1))
