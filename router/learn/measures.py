"""All measures of one router on one table, and the baselines for comparison."""

import numpy as np
from numpy.typing import NDArray

from classifiers import CLASSIFIERS
from classifiers.choose import Floats
from classifiers.models.base import sigmoid
from classifiers.sufficiency import cross_fit, folds_of
from classifiers.text.view import View
from router.learn import evaluation as ev
from router.learn.evaluation import Frontier
from router.learn.outcomes import Outcomes

N_DRAWS = 300


def frontier(choice: NDArray[np.int64], outcomes: Outcomes, weights: Floats) -> Frontier:
    """The frontier with one point for each row of `choice` (n_points, n)."""
    cost, quality = ev.points(choice, outcomes.scores, outcomes.costs, weights)
    top = weights @ outcomes.costs[:, -1] / weights.sum(axis=1)
    return Frontier(cost / top[:, None], quality)


def single_tiers(outcomes: Outcomes, weights: Floats) -> Frontier:
    """Always the same tier: one point for each. Its hull is what mixing tiers at random gives."""
    n, k = outcomes.scores.shape
    return frontier(np.repeat(np.arange(k)[:, None], n, axis=1), outcomes, weights)


def router_frontier(p: Floats, cost: Floats, outcomes: Outcomes, weights: Floats) -> Frontier:
    """A router at every price of cost. p, cost: (n, n_tiers) chances and guessed costs."""
    choice, _ = ev.sweep(p, cost)
    return frontier(choice, outcomes, weights)


def oracle_frontier(outcomes: Outcomes, weights: Floats) -> Frontier:
    """A router that knows every score and cost beforehand."""
    return router_frontier(outcomes.scores, outcomes.costs / outcomes.costs[:, -1].mean(), outcomes, weights)


def measure(p: Floats, cost: Floats, outcomes: Outcomes, seed: int = 0, n_draws: int = N_DRAWS) -> dict[str, Floats]:
    """Every measure by name, each (n_draws + 1,), the estimate first. Rows must be complete.

    cost: guessed, (n, n_tiers) or (n_tiers,), for choosing; the measures count the real costs. With more than two tiers
    PGR, APGR and CPT compare the cheapest with the top tier.
    """
    weights = ev.draws(len(outcomes), n_draws, seed, outcomes.shares)
    return {**_gap_measures(p, outcomes, weights), **_money_measures(p, cost, outcomes, weights), **_chance(p, outcomes, weights)}


def _gap_measures(p: Floats, outcomes: Outcomes, weights: Floats) -> dict[str, Floats]:
    gain, small, large = p[:, -1] - p[:, 0], outcomes.scores[:, 0], outcomes.scores[:, -1]
    found = {"apgr": ev.apgr(gain, small, large, weights)}
    for share in ev.SHARES:
        found[f"cpt{share * 100:.0f}"] = ev.cpt(gain, small, large, weights, share)
    return found


def _money_measures(p: Floats, cost: Floats, outcomes: Outcomes, weights: Floats) -> dict[str, Floats]:
    singles = single_tiers(outcomes, weights)
    ours, best = router_frontier(p, cost, outcomes, weights), oracle_frontier(outcomes, weights)
    low, high = singles.cost.min(axis=1), singles.cost.max(axis=1)
    area, mix, oracle = (
        np.array([ev.aiq(*draw) for draw in zip(f.cost, f.quality, low, high, strict=True)]) for f in (ours, singles, best)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {"aiq": area, "recovered": (area - mix) / (oracle - mix)}
    for share in ev.QUALITIES:
        found[f"cost_at_{share * 100:.0f}"] = ours.cost_at(share * singles.quality[:, -1])
    usd = ours.cost * (weights @ outcomes.costs[:, -1] / weights.sum(axis=1))[:, None]
    found["arena"] = ev.arena(ours.quality, usd).max(axis=1)
    return found


def _chance(p: Floats, outcomes: Outcomes, weights: Floats) -> dict[str, Floats]:
    """AUC, ECE and Brier score of each tier's chance."""
    found: dict[str, Floats] = {}
    for k, tier in enumerate(outcomes.tiers):
        for name, function in (("auc", ev.auc), ("ece", ev.ece), ("brier", ev.brier)):
            found[f"{name}[{tier}]"] = function(p[:, k], outcomes.scores[:, k], weights)
    return found


def baselines(test: Outcomes, train: Outcomes | None, seed: int = 0) -> dict[str, Floats]:
    """p of each baseline on the test rows: a coin, the length rule, nearest neighbours.

    The latter two learn from `train`; without it from the test rows, by cross-fitting in five folds.
    """
    n, k = test.scores.shape
    coin = np.random.default_rng(seed).random((n, 1)) * np.arange(k) / k
    found = {"random": 0.4 + 0.2 * coin}
    for name in ("length", "neighbours"):
        found[name] = _learned(name, test, train)
    return found


def _learned(name: str, test: Outcomes, train: Outcomes | None) -> Floats:
    texts = list(test.texts)
    if train is not None:
        return CLASSIFIERS[name]().fit(list(train.texts), train.scores, train.weights).predict_proba(texts)
    fold = folds_of(list(test.groups), 5)
    extra = np.zeros((len(test), 0))
    return sigmoid(cross_fit(CLASSIFIERS[name], View(texts), test.scores, test.weights, extra, fold, lambda done, total: None))
