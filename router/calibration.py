"""From a wish (quality kept, money spent, share of large calls) to the price of cost that fulfils it.

The rule is `utility`: argmax p - price * cost. Quality is promised on a lower confidence bound, found by bootstrap:
a price that only just kept the promise on the rows at hand misses it half of the time on others.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifiers import Rule
from router import evaluation as ev
from router.learn_measures import complete
from router.outcomes import Outcomes

Floats = NDArray[np.float64]
NAMED = {
    "cheap": 0.95,
    "balanced": 0.98,
    "quality": 0.995,
}  # share of the top tier's quality behind auto:NAME
DEFAULT_RULE = "balanced"
CONFIDENCE = 0.90


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


def menu(p: Floats, outcomes: Outcomes, confidence: float = CONFIDENCE, n_draws: int = 400) -> Menu:
    """Play every price on rows with known outcomes. p must come from a classifier that did not see them."""
    choice, prices = ev.sweep(p, outcomes.relative_costs(), n_points=200)
    weights = ev.draws(len(outcomes), n_draws)
    cost, quality = ev.points(choice, outcomes.scores, outcomes.costs, weights)
    total = weights.sum(axis=1)
    top_cost, top = weights @ outcomes.costs[:, -1] / total, weights @ outcomes.scores[:, -1] / total
    ratio = quality / np.maximum(top, 1e-9)[:, None]
    return Menu(
        prices=prices,
        cost=cost[0] / top_cost[0],
        quality=ratio[0],
        bound=np.quantile(ratio[1:], 1 - confidence, axis=0),
        large=(choice == p.shape[1] - 1).mean(axis=1),
    )


def _cheapest(found: Menu, good: NDArray[np.bool_], top: int) -> Rule:
    """The cheapest price among the good ones; none: always the top tier."""
    if not good.any():
        return Rule("tier", top, 1.0, 1.0, 1.0)
    i = int(np.flatnonzero(good)[np.argmin(found.cost[good])])
    return Rule(
        "utility",
        float(found.prices[i]),
        float(found.cost[i]),
        float(found.quality[i]),
        float(found.bound[i]),
    )


def for_quality(found: Menu, share: float, n_tiers: int) -> Rule:
    """The cheapest rule whose lower bound keeps `share` of the top tier's quality; else the top tier itself."""
    return _cheapest(found, found.bound >= share, n_tiers - 1)


def _best_within(found: Menu, spend: Floats, limit: float) -> Rule:
    good = spend <= limit
    if not good.any():
        return Rule("tier", 0, float(found.cost.min()), float(found.quality[-1]), float(found.bound[-1]))
    i = int(np.flatnonzero(good)[np.argmax(found.quality[good])])
    return Rule(
        "utility",
        float(found.prices[i]),
        float(found.cost[i]),
        float(found.quality[i]),
        float(found.bound[i]),
    )


def for_cost(found: Menu, share: float) -> Rule:
    """The best rule that costs at most `share` of always taking the top tier."""
    return _best_within(found, found.cost, share)


def for_large_share(found: Menu, share: float) -> Rule:
    """The best rule that sends at most `share` of the requests to the top tier."""
    return _best_within(found, found.large, share)


def solve(
    p: Floats,
    outcomes: Outcomes,
    quality: float | None = None,
    cost: float | None = None,
    large_share: float | None = None,
    confidence: float = CONFIDENCE,
) -> Rule:
    """The rule for the one wish that is given. p: (n, n_tiers), for rows the classifier did not learn from."""
    whole = ~np.isnan(outcomes.scores).any(axis=1) & ~np.isnan(outcomes.costs).any(axis=1)
    found = menu(p[whole], complete(outcomes), confidence)
    if quality is not None:
        return for_quality(found, quality, len(outcomes.tiers))
    return for_cost(found, cost) if cost is not None else for_large_share(found, large_share or 0.0)


def named_rules(p: Floats, outcomes: Outcomes) -> dict[str, Rule]:
    """The rules behind auto:cheap, auto:balanced and auto:quality, from predictions on unseen rows."""
    found = menu(p, outcomes)
    return {name: for_quality(found, share, len(outcomes.tiers)) for name, share in NAMED.items()}


__all__ = ["NAMED", "Menu", "for_cost", "for_large_share", "for_quality", "menu", "named_rules", "solve"]
