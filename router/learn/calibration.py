"""From a wish (quality kept, money spent, share of large calls) to the price of cost that fulfils it.

The rule is `utility`: argmax p - price * cost. Quality is promised on a lower confidence bound, found by bootstrap:
a price that only just kept the promise on the rows at hand misses it half of the time on others.

On few rows a bootstrap alone is too bold: ten prompts sent down and all answered well show no spread at all. So the bound
takes off the losses that may have gone unseen, and is never above what the chances themselves expect.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifiers import Rule
from router.learn import evaluation as ev
from router.learn.measures import complete, frontier, is_complete, measure, single_tiers
from router.learn.outcomes import Outcomes

Floats = NDArray[np.float64]
NAMED = {"cheap": 0.95, "balanced": 0.98, "quality": 0.995}  # share of the top tier's quality behind auto:NAME
DEFAULT_RULE = "balanced"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Menu:
    """Every price that can be asked, with what it gives relative to always taking the top tier.

    prices: (m,) rising, so cost falls. cost, quality, bound, large: (m,), bound being the lower bound of quality.
    """

    prices: Floats
    cost: Floats
    quality: Floats
    bound: Floats
    large: Floats  # share of requests that go to the top tier
    n_tiers: int


def menu(p: Floats, guessed: Floats, outcomes: Outcomes, confidence: float = CONFIDENCE, n_draws: int = 400) -> Menu:
    """Play every price on rows with known outcomes.

    p, guessed: (n, n_tiers) chances from a classifier that did not see the rows, and guessed costs. Decided is by the
    guesses, counted is what was spent.
    """
    choice, prices = ev.sweep(p, guessed, n_points=200)
    weights = ev.draws(len(outcomes), n_draws)
    f, top = frontier(choice, outcomes, weights), top_quality(outcomes, weights)
    large = (choice == p.shape[1] - 1).mean(axis=1)
    expected = np.take_along_axis(p, choice.T, axis=1).mean(axis=0) / max(float(p[:, -1].mean()), 1e-9)
    bound = np.minimum(lower_bound(f.quality, top, large < 1, confidence, len(outcomes)), expected)
    return Menu(prices, f.cost[0], f.quality[0] / top[0], bound, large, p.shape[1])


def top_quality(outcomes: Outcomes, weights: Floats) -> Floats:
    """(n_draws,) mean score of the top tier, kept off 0 so that a quality can be divided by it."""
    return np.asarray(np.maximum(weights @ outcomes.scores[:, -1] / weights.sum(axis=1), 1e-9))


def lower_bound(quality: Floats, top: Floats, sends_down: NDArray[np.bool_], confidence: float, n_rows: int) -> Floats:
    """(n_points,) lower bound of a quality (n_draws, n_points) relative to the top tier's (n_draws,).

    Where any prompt is sent down, as many lost answers are taken off as may have gone unseen: none of n seen leaves up
    to -ln(1 - confidence) of them, about 3 at 95 % (the rule of three).
    """
    unseen = -math.log(1 - confidence) / n_rows
    ratio = (quality - unseen * sends_down) / top[:, None]
    return np.asarray(np.quantile(ratio[1:], 1 - confidence, axis=0))


def _rule(found: Menu, i: int) -> Rule:
    return Rule("utility", *(float(column[i]) for column in (found.prices, found.cost, found.quality, found.bound)))


def for_quality(found: Menu, share: float) -> Rule:
    """The last rule that keeps `share` of the top tier's quality on its bound, walking down from the dearest.

    Prices are tried in that fixed order and the walk ends at the first that fails (Learn-then-Test, arXiv 2110.01052):
    picking the best of all that pass would pick the luckiest. Where none that sends a prompt down passes, it is the top
    tier itself.
    """
    failed = np.flatnonzero(found.bound < share)
    passed = np.arange(failed[0] if len(failed) else len(found.bound))
    passed = passed[found.large[passed] < 1]
    if not len(passed):
        return Rule("tier", found.n_tiers - 1, 1.0, 1.0, 1.0)
    return _rule(found, int(passed[np.argmin(found.cost[passed])]))


def _best_within(found: Menu, spend: Floats, limit: float) -> Rule:
    """The best rule that spends at most `limit`; none does: always the cheapest tier."""
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
    """The rule for the one wish that is given; see menu."""
    whole = is_complete(outcomes)
    found = menu(p[whole], guessed[whole], complete(outcomes), confidence)
    if quality is not None:
        return for_quality(found, quality)
    return for_cost(found, cost) if cost is not None else for_large_share(found, large_share or 0.0)


def better_than_mix(p: Floats, guessed: Floats, outcomes: Outcomes) -> ev.Estimate:
    """The share of the oracle's gap over a random mix of tiers that is recovered, with its interval."""
    return ev.estimate(measure(p, guessed, outcomes)["recovered"])


def single_rule(outcomes: Outcomes, share: float) -> Rule:
    """The router switched off: always the cheapest tier that keeps `share` of the top tier's quality on its bound."""
    weights = ev.draws(len(outcomes), 400)
    f, top, last = single_tiers(outcomes, weights), top_quality(outcomes, weights), len(outcomes.tiers) - 1
    bound = lower_bound(f.quality, top, np.arange(last + 1) < last, CONFIDENCE, len(outcomes))
    tier = int(np.flatnonzero(bound >= share)[0]) if share <= 1 else last
    return Rule("tier", tier, float(f.cost[0, tier]), float(f.quality[0, tier] / top[0]), float(bound[tier]))


def named_rules(p: Floats, guessed: Floats, outcomes: Outcomes) -> tuple[dict[str, Rule], ev.Estimate]:
    """The rules behind auto:cheap, auto:balanced and auto:quality, and how much better than a mix the router is.

    p, guessed: as in menu. A router that is not better than mixing tiers at random by its interval is switched off.
    """
    gain = better_than_mix(p, guessed, outcomes)
    if not gain.low > 0:
        return {name: single_rule(outcomes, share) for name, share in NAMED.items()}, gain
    found = menu(p, guessed, outcomes)
    return {name: for_quality(found, share) for name, share in NAMED.items()}, gain


__all__ = ["NAMED", "Menu", "for_cost", "for_large_share", "for_quality", "menu", "named_rules", "solve"]
