"""Guesses from a request's text what it will cost on each tier: a ridge regression of the logarithmic cost per tier.

Costs differ between prompts by far more than a router saves on average: a long answer on the large tier may cost twenty
times as much as a short one. Deciding by guessed costs, not mean costs, doubles the gain (docs/experiments.md).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.linear_model import Ridge

from classifiers.arrays import Floats
from classifiers.text.features import FEATURES
from classifiers.text.view import View

RIDGE = 10.0


def fit_log_costs(x: Floats, costs: Floats, ridge: float) -> dict[str, Floats]:
    """A regression of each tier's logarithmic cost on x (n, n_features), and the range of costs it was seen in.

    costs: (n, n_tiers), NaN where unknown. coef: (n_features, n_tiers). bias, low, high: (n_tiers,).
    """
    tiers = []
    for cost in costs.T:
        known = np.isfinite(cost)
        y = np.log(np.maximum(cost[known], 1e-9))  # a tier may be free
        model = Ridge(alpha=ridge).fit(x[known], y)
        # The mean of exp is not exp of the mean: shift so that the guesses add up to the true total.
        guessed = np.exp(np.clip(model.predict(x[known]), y.min(), y.max())).mean()
        shift = float(np.log(max(float(cost[known].mean()), 1e-9) / guessed))
        tiers.append((model.coef_, float(model.intercept_) + shift, y.min(), y.max()))
    return {
        name: np.stack(side, axis=-1)
        for name, side in zip(("coef", "bias", "low", "high"), zip(*tiers, strict=True), strict=True)
    }


def apply_log_costs(fitted: Mapping[str, Any], x: Floats) -> Floats:
    """(n, n_tiers) costs by what `fit_log_costs` learned."""
    return np.asarray(np.exp(np.clip(x @ fitted["coef"] + fitted["bias"], fitted["low"], fitted["high"])))


def fit_costs(view: View, costs: Floats) -> dict[str, Any]:
    """costs: (n, n_tiers) in USD, NaN where unknown; every tier needs one. The top tier's mean becomes 1."""
    mean, scale = view.hand.mean(0), view.hand.std(0) + 1e-6
    top = float(np.nanmean(costs[:, -1])) or 1.0
    return {"mean": mean, "scale": scale, **fit_log_costs(_scaled(view.hand, mean, scale), costs / top, RIDGE)}


def _scaled(x: Floats, mean: Floats, scale: Floats) -> Floats:
    return np.asarray(np.clip((x - mean) / scale, -4, 4))


def guess_costs(fitted: Mapping[str, Any], view: View) -> Floats:
    """(n, n_tiers) guessed costs, the top tier's mean in training = 1."""
    return apply_log_costs(fitted, _scaled(view.hand, fitted["mean"], fitted["scale"]))


def constant_costs(costs: Floats) -> dict[str, Any]:
    """The same costs (n_tiers,) for every prompt, as in artefacts of format 3."""
    log = np.log(np.maximum(costs, 1e-9))
    zero = np.zeros((len(FEATURES), len(costs)))
    return {"mean": zero[:, 0], "scale": zero[:, 0] + 1, "coef": zero, "bias": log, "low": log, "high": log}
