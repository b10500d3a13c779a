"""The price of cost at which a cascade saves most under the certificate that is about to be made.

`stepdown train` chooses a price whose quality it can promise by the training rows alone; on a few hundred rows none can be, and
the rule is the top tier. Here the promise comes from the certificate, made on rows of its own, so the price only has to be
good: among prices whose expected quality is the target's, the one that costs least once the certificate's threshold sends
doubtful answers up. Training rows, by classifiers that had not seen them, say where about that threshold will be.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from classifiers import Rule
from classifiers.choose import Floats
from router.decide.certificates import THRESHOLDS
from router.learn import evaluation as ev
from router.learn.calibration import CONFIDENCE, lower_bound
from router.learn.cascades import Lesson, to_certify
from router.learn.simulate import PRICES, Played, Rows

N_DRAWS = 400


@dataclass(frozen=True)
class Tried:
    """One price under its likely threshold. cost, quality: (n,) of each row, in the top tier's mean cost and as a score."""

    price: float
    cost: Floats
    quality: Floats
    sends_down: bool


def best_rule(lesson: Lesson, n_certify: int, alpha: float, delta: float, share: float) -> Rule | None:
    """The rule of kind `cascade`, without a threshold; None: nothing is cheaper than the top tier.

    n_certify: rows that the certificate will be made of. share: of the top tier's quality that is to be expected.
    """
    rows = lesson.rows
    weights = np.ones(len(rows)) if rows.weights is None else rows.weights
    least = share * float(np.average(rows.scores[:, -1], weights=weights)) if lesson.played else 0.0
    every = zip(PRICES.tolist(), lesson.played, strict=False)
    tried = [under_threshold(price, played, rows, weights, n_certify, alpha, delta) for price, played in every]
    good = [t for t in tried if t.sends_down and np.average(t.quality, weights=weights) >= least]
    if not good:
        return None
    best = min(good, key=lambda t: float(np.average(t.cost, weights=weights)))
    cost, quality, bound = measured(best, rows, weights)
    return Rule("cascade", best.price, cost, quality, bound) if cost < 1 else None


def under_threshold(
    price: float, played: Played, rows: Rows, weights: Floats, n_certify: int, alpha: float, delta: float
) -> Tried:
    """What a price gives if the certificate is as strict as these rows let expect."""
    scores, loss, _ = to_certify(played, rows)
    below = scores < likely_threshold(scores, loss, weights, n_certify, alpha, delta)
    up = below & np.isfinite(scores)
    cost = played.cost + np.where(up, rows.costs[:, -1], 0.0)
    quality = np.where(up, rows.scores[:, -1], played.scores(rows))
    return Tried(price, cost, quality, bool((~below).any()))


def likely_threshold(scores: Floats, loss: Floats, weights: Floats, n_certify: int, alpha: float, delta: float) -> float:
    """The threshold that n_certify rows like these would certify; above 1: none. See certificates.certify for the arguments."""
    order = np.argsort(-scores, kind="stable")
    lost = np.concatenate([[0.0], np.cumsum((loss * weights * np.isfinite(scores))[order])]) / weights.sum()
    risk = lost[np.searchsorted(-scores[order], -THRESHOLDS, side="right")]
    expected = np.minimum(risk * n_certify, n_certify - 1)
    bound = beta.ppf(1 - delta, expected + 1, n_certify - expected)  # Clopper-Pearson, also between whole losses
    failed = np.flatnonzero(bound > alpha)
    passed = failed[0] if len(failed) else len(THRESHOLDS)
    return float(THRESHOLDS[passed - 1]) if passed else math.inf


def measured(tried: Tried, rows: Rows, weights: Floats) -> tuple[float, float, float]:
    """Cost, quality, and its lower confidence bound, as shares of always asking the top tier."""
    drawn = ev.draws(len(rows), N_DRAWS, shares=weights / weights.mean())
    total = drawn.sum(axis=1)
    top = np.maximum(drawn @ rows.scores[:, -1] / total, 1e-9)
    quality, cost = drawn @ tried.quality / total, drawn @ tried.cost / (drawn @ rows.costs[:, -1])
    down = np.array([tried.sends_down])
    bound = lower_bound(quality[:, None], top, down, CONFIDENCE, ev.effective(weights / weights.mean()))
    return float(cost[0]), float(quality[0] / top[0]), float(bound[0])
