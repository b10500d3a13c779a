"""The regressions of a posterior: calibrated chances of all tiers, and costs guessed anew, from features of the answers."""

from dataclasses import dataclass

import numpy as np

from classifiers.arrays import Floats, Ints
from classifiers.costs import apply_log_costs, fit_log_costs
from classifiers.models.base import sigmoid
from classifiers.models.linear import fit_heads
from classifiers.models.platt import platt
from classifiers.replies.signals import LENGTH, Answered

STRENGTH = 0.3  # inverse of the ridge of each head
COST_RIDGE = 1.0


@dataclass(frozen=True)
class Head:
    """Calibrated logistic regressions of all tiers on one design.

    mean, scale: (n_features,). coef: (n_features, n_tiers). bias: (n_tiers,).
    """

    mean: Floats
    scale: Floats
    coef: Floats
    bias: Floats

    def scaled(self, x: Floats) -> Floats:
        """Standardised and clipped to ±5; NaN becomes 0, the training mean."""
        return np.nan_to_num(np.clip((x - self.mean) / self.scale, -5, 5))

    def logits(self, x: Floats) -> Floats:
        """(n, n_tiers)."""
        return np.asarray(self.scaled(x) @ self.coef + self.bias)


def _fit_uncalibrated(x: Floats, y: Floats, weight: Floats) -> Head:
    with np.errstate(invalid="ignore"):
        known = np.isfinite(x)
        count = np.maximum(known.sum(0), 1)
        mean = np.where(known, x, 0).sum(0) / count
        scale = np.sqrt(np.where(known, (x - mean) ** 2, 0).sum(0) / count) + 1e-3
    blank = Head(mean, scale, np.zeros((x.shape[1], y.shape[1])), np.zeros(y.shape[1]))
    return Head(mean, scale, *fit_heads(blank.scaled(x), y, weight, STRENGTH))


def fit_calibrated(x: Floats, y: Floats, weight: Floats, fold: Ints) -> tuple[Head, Floats]:
    """A head calibrated on out-of-fold log-odds, and the out-of-fold chances (n, n_tiers)."""
    z = np.zeros(y.shape)
    for k in np.unique(fold):
        z[fold == k] = _fit_uncalibrated(x[fold != k], y[fold != k], weight[fold != k]).logits(x[fold == k])
    slope, offset = np.ones(y.shape[1]), np.zeros(y.shape[1])
    for k in range(y.shape[1]):  # each tier has a slope of its own
        known = np.isfinite(y[:, k])
        slope[k], (offset[k],) = platt(z[known, k : k + 1], y[known, k : k + 1], weight[known])
    head = _fit_uncalibrated(x, y, weight)
    return Head(head.mean, head.scale, head.coef * slope, head.bias * slope + offset), sigmoid(z * slope + offset)


@dataclass(frozen=True)
class CostHead:
    """Ridge regression of each tier's logarithmic cost on all guessed costs and the answers' lengths."""

    coef: Floats  # (n_tiers + n_answered, n_tiers)
    bias: Floats  # (n_tiers,)
    low: Floats
    high: Floats

    def costs(self, x: Floats) -> Floats:
        """(n, n_tiers), the top tier's mean = 1."""
        return apply_log_costs(vars(self), np.nan_to_num(x))


def cost_design(guessed: Floats, tiers: Answered, found: Floats) -> Floats:
    """(n, n_tiers + n_answered): logarithms of the guessed costs and of the answers' lengths."""
    lengths = found[:, list(tiers), LENGTH]
    return np.concatenate([np.log(np.maximum(guessed, 1e-9)), np.nan_to_num(lengths)], axis=1)


def fit_cost_head(x: Floats, costs: Floats) -> CostHead:
    """x: see cost_design. costs: (n, n_tiers), NaN where unknown."""
    return CostHead(**fit_log_costs(x, costs, COST_RIDGE))


def cross_costs(x: Floats, costs: Floats, fold: Ints) -> Floats:
    """(n, n_tiers) out-of-fold costs."""
    found = np.zeros(costs.shape)
    for k in np.unique(fold):
        found[fold == k] = fit_cost_head(x[fold != k], costs[fold != k]).costs(x[fold == k])
    return found
