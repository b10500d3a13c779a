"""All measures of one router on one table, and the baselines it must be shown beside."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifiers import CLASSIFIERS
from classifiers.models.base import sigmoid
from classifiers.sufficiency import cross_fit, folds_of
from classifiers.text.view import View
from router.errors import BadInput
from router.learn import evaluation as ev
from router.learn.outcomes import Outcomes

Floats = NDArray[np.float64]
N_DRAWS = 300


@dataclass(frozen=True)
class Frontier:
    """Mean cost (as a share of always taking the top tier) and quality of a policy, by bootstrap draw."""

    cost: Floats  # (n_draws, n_points)
    quality: Floats


def is_complete(outcomes: Outcomes) -> NDArray[np.bool_]:
    """(n,) whether every tier has a score and a cost."""
    return np.asarray(~np.isnan(outcomes.scores).any(axis=1) & ~np.isnan(outcomes.costs).any(axis=1))


def complete(outcomes: Outcomes) -> Outcomes:
    """The rows where every tier has a score and a cost: only there can policies be compared."""
    whole = is_complete(outcomes)
    if whole.sum() < 10:
        raise BadInput(f"only {whole.sum()} rows have a score and a cost of every tier; 10 are needed to evaluate")
    return outcomes.take(np.asarray(whole))


def frontier(choice: NDArray[np.int64], outcomes: Outcomes, weights: Floats) -> Frontier:
    """Each row of `choice` (n_points, n) as one point."""
    cost, quality = ev.points(choice, outcomes.scores, outcomes.costs, weights)
    top = weights @ outcomes.costs[:, -1] / weights.sum(axis=1)
    return Frontier(cost / top[:, None], quality)


def single_tiers(outcomes: Outcomes, weights: Floats) -> Frontier:
    """Always the same tier: one point a tier. Its hull is what mixing them at random gives."""
    n, k = outcomes.scores.shape
    return frontier(np.repeat(np.arange(k)[:, None], n, axis=1), outcomes, weights)


def router_frontier(p: Floats, cost: Floats, outcomes: Outcomes, weights: Floats) -> Frontier:
    """A router with chances p and guessed costs, both (n, n_tiers), at every price of cost."""
    choice, _ = ev.sweep(p, cost)
    return frontier(choice, outcomes, weights)


def oracle_frontier(outcomes: Outcomes, weights: Floats) -> Frontier:
    """Who knows every score beforehand."""
    choice, _ = ev.sweep(outcomes.scores, outcomes.costs / outcomes.costs[:, -1].mean())
    return frontier(choice, outcomes, weights)


def _rows(f: Frontier, function: Callable[[int, Floats, Floats], float]) -> Floats:
    return np.array([function(i, c, q) for i, (c, q) in enumerate(zip(f.cost, f.quality, strict=True))])


def measure(p: Floats, cost: Floats, outcomes: Outcomes, seed: int = 0, n_draws: int = N_DRAWS) -> dict[str, Floats]:
    """Every measure by name, each (n_draws + 1,): the estimate first. Rows must be complete.

    cost: guessed, (n, n_tiers) or (n_tiers,); what is counted is what was spent. With more than two tiers PGR, APGR
    and CPT compare the cheapest with the top tier.
    """
    weights = ev.draws(len(outcomes), n_draws, seed)
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
    area = {
        name: _rows(f, lambda i, c, q: ev.aiq(c, q, low[i], high[i]))
        for name, f in (("ours", ours), ("mix", singles), ("oracle", best))
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {"aiq": area["ours"], "recovered": (area["ours"] - area["mix"]) / (area["oracle"] - area["mix"])}
    for share in ev.QUALITIES:
        top = singles.quality[:, -1]
        found[f"cost_at_{share * 100:.0f}"] = _rows(
            ours,
            lambda i, c, q, bar=share * top: ev.cost_at(c, q, bar[i]),  # type: ignore[misc]
        )
    usd = ours.cost * (weights @ outcomes.costs[:, -1] / weights.sum(axis=1))[:, None]
    found["arena"] = ev.arena(ours.quality, usd).max(axis=1)
    return found


def _chance(p: Floats, outcomes: Outcomes, weights: Floats) -> dict[str, Floats]:
    """AUC, ECE and Brier score of each tier's chance, and of the cheapest under the bare name."""
    found: dict[str, Floats] = {}
    for k, tier in enumerate(outcomes.tiers):
        for name, function in (("auc", ev.auc), ("ece", ev.ece), ("brier", ev.brier)):
            found[f"{name}[{tier}]"] = function(p[:, k], outcomes.scores[:, k], weights)
    return found


def baselines(test: Outcomes, train: Outcomes | None, seed: int = 0) -> dict[str, Floats]:
    """p of each baseline on the test rows: a coin, the length rule, kNN.

    The learned ones learn from `train`; without it from the other four fifths of the test rows, in turn.
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
