"""Finds the price of cost that fulfils a wish: a quality to keep, money to spend, or a share of large calls.

The rule is `utility`: argmax p - price * cost. Quality is promised on a lower confidence bound, found by bootstrap: a
price that just keeps the promise on these rows would miss it half of the time on others.

On few rows a bootstrap alone is too optimistic: ten prompts sent down and all answered well show no spread at all. So the
bound also subtracts the losses that may have gone unseen, and never exceeds what the chances themselves predict.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifiers import Rule
from classifiers.choose import Floats
from router.config import NamedTarget
from router.learn import evaluation as ev
from router.learn.measures import frontier, measure, single_tiers
from router.learn.outcomes import Outcomes

# The share of the top tier's quality that auto:NAME keeps.
QUALITY_OF: dict[NamedTarget, float] = {"cheap": 0.95, "balanced": 0.98, "quality": 0.995}
DEFAULT_RULE = "balanced"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Menu:
    """Every price with what it gives, relative to always taking the top tier. All arrays (m,)."""

    prices: Floats  # rising, so cost falls
    cost: Floats
    quality: Floats
    bound: Floats  # lower bound of quality
    large: Floats  # share of requests that go to the top tier
    n_tiers: int


def menu(p: Floats, guessed: Floats, outcomes: Outcomes, confidence: float = CONFIDENCE, n_draws: int = 400) -> Menu:
    """Play every price on rows with known outcomes.

    p, guessed: (n, n_tiers) chances by a classifier that had not seen the rows, and guessed costs, by which tiers are
    chosen; the result counts the real costs.
    """
    choice, prices = ev.sweep(p, guessed, n_points=200)
    shares = outcomes.shares
    weights = ev.draws(len(outcomes), n_draws, shares=shares)
    f, top = frontier(choice, outcomes, weights), top_quality(outcomes, weights)
    large = np.average(choice == p.shape[1] - 1, axis=1, weights=shares)
    chances = np.average(np.take_along_axis(p, choice.T, axis=1), axis=0, weights=shares)
    expected = chances / max(float(np.average(p[:, -1], weights=shares)), 1e-9)
    bound = np.minimum(lower_bound(f.quality, top, large < 1, confidence, ev.effective(shares)), expected)
    return Menu(prices, f.cost[0], f.quality[0] / top[0], bound, large, p.shape[1])


def top_quality(outcomes: Outcomes, weights: Floats) -> Floats:
    """(n_draws,) mean score of the top tier, at least 1e-9 so that it can be a divisor."""
    return np.asarray(np.maximum(weights @ outcomes.scores[:, -1] / weights.sum(axis=1), 1e-9))


def lower_bound(quality: Floats, top: Floats, sends_down: NDArray[np.bool_], confidence: float, n_rows: float) -> Floats:
    """(n_points,) lower bound of a quality (n_draws, n_points) relative to the top tier's (n_draws,).

    Where any prompt is sent down, it subtracts the losses that may have gone unseen: up to -ln(1 - confidence) in n rows,
    about 3 at 95 % (the rule of three).
    """
    unseen = -math.log(1 - confidence) / n_rows
    ratio = (quality - unseen * sends_down) / top[:, None]
    return np.asarray(np.quantile(ratio[1:], 1 - confidence, axis=0))


def _rule(found: Menu, i: int) -> Rule:
    return Rule("utility", *(float(column[i]) for column in (found.prices, found.cost, found.quality, found.bound)))


def for_quality(found: Menu, share: float) -> Rule:
    """The cheapest rule whose bound keeps `share` of the top tier's quality, before the first rule that fails.

    Rules are tried from the most expensive down, in that fixed order, up to the first that fails (Learn-then-Test, arXiv
    2110.01052); the best of all that pass would be the luckiest. Where none that sends a prompt down passes, the rule is
    the top tier itself.
    """
    failed = np.flatnonzero(found.bound < share)
    passed = np.arange(failed[0] if len(failed) else len(found.bound))
    passed = passed[found.large[passed] < 1]
    if not len(passed):
        return Rule("tier", found.n_tiers - 1, 1.0, 1.0, 1.0)
    return _rule(found, int(passed[np.argmin(found.cost[passed])]))


def _best_within(found: Menu, spend: Floats, limit: float) -> Rule:
    """The best rule that spends at most `limit`, else always the cheapest tier."""
    good = np.flatnonzero(spend <= limit + 1e-9)
    if not len(good):
        return Rule("tier", 0, float(found.cost[-1]), float(found.quality[-1]), float(found.bound[-1]))
    return _rule(found, int(good[np.argmax(found.quality[good])]))


def for_cost(found: Menu, share: float) -> Rule:
    """The best rule that costs at most `share` of always taking the top tier."""
    return _best_within(found, found.cost, share)


def for_large_share(found: Menu, share: float) -> Rule:
    """The best rule that sends at most `share` of the requests to the top tier."""
    return _best_within(found, found.large, share)


def solve(
    p: Floats,
    guessed: Floats,
    outcomes: Outcomes,
    quality: float | None = None,
    cost: float | None = None,
    large_share: float | None = None,
    confidence: float = CONFIDENCE,
) -> Rule:
    """The rule for the one wish that is given; p, guessed: as in menu."""
    whole = outcomes.is_complete
    found = menu(p[whole], guessed[whole], outcomes.complete(), confidence)
    if quality is not None:
        return for_quality(found, quality)
    return for_cost(found, cost) if cost is not None else for_large_share(found, large_share or 0.0)


def single_rule(outcomes: Outcomes, share: float) -> Rule:
    """The router switched off: always the cheapest tier whose bound keeps `share` of the top tier's quality."""
    weights = ev.draws(len(outcomes), 400, shares=outcomes.shares)
    f, top, last = single_tiers(outcomes, weights), top_quality(outcomes, weights), len(outcomes.tiers) - 1
    bound = lower_bound(f.quality, top, np.arange(last + 1) < last, CONFIDENCE, ev.effective(outcomes.shares))
    tier = int(np.flatnonzero(bound >= share)[0]) if share <= 1 else last
    return Rule("tier", tier, float(f.cost[0, tier]), float(f.quality[0, tier] / top[0]), float(bound[tier]))


def named_rules(p: Floats, guessed: Floats, outcomes: Outcomes) -> tuple[dict[str, Rule], ev.Estimate]:
    """The rules of the named targets, and the share of the oracle's gain over a random mix of tiers that is recovered.

    p, guessed: as in menu. A router whose interval does not show it better than the mix is switched off.
    """
    gain = ev.estimate(measure(p, guessed, outcomes)["recovered"])
    if not gain.low > 0:
        return {name: single_rule(outcomes, share) for name, share in QUALITY_OF.items()}, gain
    found = menu(p, guessed, outcomes)
    return {name: for_quality(found, share) for name, share in QUALITY_OF.items()}, gain
