"""The regressions behind a posterior: calibrated chances of all tiers, and costs guessed again, from what answers look like."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.linear_model import Ridge

from classifiers.arrays import Floats, Ints
from classifiers.models.base import sigmoid
from classifiers.models.linear import fit_head
from classifiers.replies.signals import LENGTH, Answered

STRENGTH = 0.3  # inverse of the ridge of each head
COST_RIDGE = 1.0
AS_IT_IS = 20.0  # rows by whose weight recalibration is held to "as it is"


@dataclass(frozen=True)
class Head:
    """Calibrated logistic regressions of all tiers on one design. scaled = clip((x - mean) / scale), NaN as 0.

    mean, scale: (n_features,). coef: (n_features, n_tiers). bias: (n_tiers,).
    """

    mean: Floats
    scale: Floats
    coef: Floats
    bias: Floats

    def scaled(self, x: Floats) -> Floats:
        """What is not known is taken as usual."""
        return np.nan_to_num(np.clip((x - self.mean) / self.scale, -5, 5))

    def logits(self, x: Floats) -> Floats:
        """(n, n_tiers)."""
        return np.asarray(self.scaled(x) @ self.coef + self.bias)

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean, "scale": self.scale, "coef": self.coef, "bias": self.bias}


def _bare_fit(x: Floats, y: Floats, weight: Floats) -> Head:
    with np.errstate(invalid="ignore"):
        known = np.isfinite(x)
        count = np.maximum(known.sum(0), 1)
        mean = np.where(known, x, 0).sum(0) / count
        scale = np.sqrt(np.where(known, (x - mean) ** 2, 0).sum(0) / count) + 1e-3
    plain = Head(mean, scale, np.zeros((x.shape[1], y.shape[1])), np.zeros(y.shape[1]))
    heads = [fit_head(plain.scaled(x), y[:, k], weight, STRENGTH) for k in range(y.shape[1])]
    return Head(mean, scale, np.stack([coef for coef, _ in heads], axis=1), np.array([bias for _, bias in heads]))


def fit_calibrated(x: Floats, y: Floats, weight: Floats, fold: Ints) -> tuple[Head, Floats]:
    """A head calibrated on log-odds of rows it did not see, and those rows' chances (n, n_tiers)."""
    z = np.zeros(y.shape)
    for k in np.unique(fold):
        z[fold == k] = _bare_fit(x[fold != k], y[fold != k], weight[fold != k]).logits(x[fold == k])
    head, columns = _bare_fit(x, y, weight), range(y.shape[1])
    slope, offset = (np.array(side) for side in zip(*(_straighten(z[:, k], y[:, k], weight) for k in columns), strict=True))
    return Head(head.mean, head.scale, head.coef * slope, head.bias * slope + offset), sigmoid(z * slope + offset)


def _straighten(z: Floats, y: Floats, weight: Floats) -> tuple[float, float]:
    """Slope and offset that calibrate log-odds z (n,); near 1 and 0 when rows are few (Platt)."""
    known = np.isfinite(y)
    z, y, weight = z[known], y[known], weight[known]

    def loss(ab: Floats) -> float:
        p = np.clip(sigmoid(ab[0] * z + ab[1]), 1e-9, 1 - 1e-9)
        fit = -(weight * (y * np.log(p) + (1 - y) * np.log1p(-p))).sum()
        return float(fit + AS_IT_IS * ((ab[0] - 1) ** 2 + ab[1] ** 2) / 8)

    a, b = minimize(loss, np.array([1.0, 0.0]), method="L-BFGS-B", bounds=[(0.0, 5.0), (-10.0, 10.0)]).x
    return float(a), float(b)


@dataclass(frozen=True)
class CostHead:
    """Ridge regression of each tier's logarithmic cost on all guessed costs and the answers' lengths."""

    coef: Floats  # (n_tiers + n_answered, n_tiers)
    bias: Floats  # (n_tiers,)
    low: Floats
    high: Floats

    def costs(self, x: Floats) -> Floats:
        """(n, n_tiers), the top tier's mean = 1."""
        return np.asarray(np.exp(np.clip(np.nan_to_num(x) @ self.coef + self.bias, self.low, self.high)))

    def state(self) -> dict[str, Any]:
        return {"coef": self.coef, "bias": self.bias, "low": self.low, "high": self.high}


def cost_design(guessed: Floats, tiers: Answered, found: Floats) -> Floats:
    """(n, n_tiers + n_answered): logarithms of the guessed costs and of the answers' lengths."""
    lengths = found[:, list(tiers), LENGTH]
    return np.concatenate([np.log(np.maximum(guessed, 1e-9)), np.nan_to_num(lengths)], axis=1)


def fit_costs(x: Floats, costs: Floats) -> CostHead:
    """x: see cost_design. costs: (n, n_tiers), NaN where unknown."""
    columns = []
    for k in range(costs.shape[1]):
        known = np.isfinite(costs[:, k])
        y = np.log(np.maximum(costs[known, k], 1e-9))
        model = Ridge(alpha=COST_RIDGE).fit(x[known], y)
        # The mean of exp is not exp of the mean: shift so that guesses add up to what was spent.
        guessed = np.exp(np.clip(model.predict(x[known]), y.min(), y.max())).mean()
        shift = np.log(max(float(costs[known, k].mean()), 1e-9) / guessed)
        columns.append((model.coef_, float(model.intercept_) + shift, y.min(), y.max()))
    coef, bias, low, high = (np.stack(side, axis=-1) for side in zip(*columns, strict=True))
    return CostHead(coef, bias, low, high)


def cross_costs(x: Floats, costs: Floats, fold: Ints) -> Floats:
    """Costs guessed by heads that had not seen the row."""
    found = np.zeros(costs.shape)
    for k in np.unique(fold):
        found[fold == k] = fit_costs(x[fold != k], costs[fold != k]).costs(x[fold == k])
    return found
