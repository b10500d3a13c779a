"""Platt scaling: makes log-odds agree with how often the answers were right."""

import numpy as np
from scipy.optimize import minimize

from classifiers.arrays import Floats
from classifiers.models.base import sigmoid

PRIOR_ROWS = 20.0  # the fit is pulled towards slope 1 and offset 0 as if by this many rows


def platt(z: Floats, y: Floats, weight: Floats, free: bool = True) -> tuple[float, Floats]:
    """One slope and an offset a tier (n_tiers,) that calibrate log-odds z (n, n_tiers); near 1 and 0 when rows are few.

    y: (n, n_tiers) in [0, 1], NaN where unknown. Without `free` the slope is 1.

    The slope is shared: slopes of their own, each with its own error, blur the differences between tiers that decide.
    """
    known = ~np.isnan(y) * weight[:, None]
    won, n_tiers = np.nan_to_num(y), y.shape[1]

    def loss(ab: Floats) -> float:
        p = np.clip(sigmoid(ab[0] * z + ab[1:]), 1e-9, 1 - 1e-9)
        fit = -(known * (won * np.log(p) + (1 - won) * np.log1p(-p))).sum()
        return float(fit + PRIOR_ROWS * (n_tiers * (ab[0] - 1) ** 2 + (ab[1:] ** 2).sum()) / 8)

    slopes = (0.0, 5.0) if free else (1.0, 1.0)
    start, bounds = np.array([1.0, *[0.0] * n_tiers]), [slopes, *[(-10.0, 10.0)] * n_tiers]
    a, *b = minimize(loss, start, method="L-BFGS-B", bounds=bounds).x
    return float(a), np.array(b)
