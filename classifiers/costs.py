"""What a request will cost on each tier, guessed from its text: one ridge regression of the logarithm a tier.

Costs differ between prompts by far more than routers gain on average prices: a long answer on the large tier may cost
twenty times a short one. Deciding by guessed instead of mean costs doubles what is recovered (docs/experiments.md).
"""

from typing import Any

import numpy as np
from sklearn.linear_model import Ridge

from classifiers.arrays import Floats
from classifiers.text.features import FEATURES
from classifiers.text.view import View

STRENGTH = 10.0


def fit_costs(view: View, costs: Floats) -> dict[str, Any]:
    """costs: (n, n_tiers) in USD, NaN where unknown; every tier needs one. The top tier's mean becomes 1."""
    mean, scale = view.hand.mean(0), view.hand.std(0) + 1e-6
    x = _scaled(view.hand, mean, scale)
    top = float(np.nanmean(costs[:, -1])) or 1.0
    heads = [_head(x, costs[:, k] / top) for k in range(costs.shape[1])]
    coef, bias, low, high = (np.stack(side, axis=-1) for side in zip(*heads, strict=True))
    return {"mean": mean, "scale": scale, "coef": coef, "bias": bias, "low": low, "high": high}


def _scaled(x: Floats, mean: Floats, scale: Floats) -> Floats:
    return np.asarray(np.clip((x - mean) / scale, -4, 4))


def _head(x: Floats, cost: Floats) -> tuple[Floats, float, float, float]:
    """Coefficients and intercept of the logarithm of one tier's cost, and the range it was seen in."""
    known = np.isfinite(cost)
    x, y = x[known], np.log(np.maximum(cost[known], 1e-9))  # a tier may be free
    model = Ridge(alpha=STRENGTH).fit(x, y)
    # The mean of exp is not exp of the mean: shift so that guesses add up to what was spent.
    guessed = np.exp(np.clip(model.predict(x), y.min(), y.max())).mean()
    shift = float(np.log(max(cost[known].mean(), 1e-9) / guessed))
    return model.coef_, float(model.intercept_) + shift, float(y.min()), float(y.max())


def guess_costs(fitted: dict[str, Any], view: View) -> Floats:
    """(n, n_tiers) guessed costs, the top tier's mean in training = 1."""
    x = _scaled(view.hand, fitted["mean"], fitted["scale"])
    return np.asarray(np.exp(np.clip(x @ fitted["coef"] + fitted["bias"], fitted["low"], fitted["high"])))


def constant_costs(costs: Floats) -> dict[str, Any]:
    """The same cost for every prompt: what artefacts of format 3 knew. costs: (n_tiers,)."""
    log = np.log(np.maximum(costs, 1e-9))
    zero = np.zeros((len(FEATURES), len(costs)))
    return {"mean": zero[:, 0], "scale": zero[:, 0] + 1, "coef": zero, "bias": log, "low": log, "high": log}
