"""How unlike the training prompts a text is: from 0, like them, to 1, too unlike for any classifier here to judge.

There are two signals, each scaled by its range on held-out training prompts: the share of n-grams never seen, and the
distance of the hand-made features from their mean in units of their spread (Mahalanobis). A router trained on some tasks
is no better than a coin flip on others (docs/experiments.md), so an unfamiliar text gets the tiers' mean chances instead.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifiers.arrays import Floats, Ints
from classifiers.text.ngrams import N_BUCKETS, Counts
from classifiers.text.view import View

USUAL = 0.95  # a text within this quantile of held-out training prompts is familiar

# If all training prompts follow one pattern, another wording must not look unfamiliar for that alone. Hence two lower bounds:
NARROWEST = 0.25  # of a feature's spread; most features are logarithms of counts
LEAST_EDGE = np.array([0.15, 1.0])  # of each signal's usual range; mixed tables reach 0.2 to 0.3 and 1.1 to 1.4

REACH = 4.0  # deviations are clipped to this many spreads: one wild feature does not make a prompt unfamiliar, several do


def fit_novelty(view: View) -> dict[str, Any]:
    """State of the two signals: the n-grams seen (bit-packed), the features' mean, and a whitening matrix."""
    seen = np.zeros(N_BUCKETS, dtype=bool)
    seen[view.words.bucket] = True
    mean, scale = view.hand.mean(0), np.maximum(view.hand.std(0), NARROWEST)
    x = np.clip((view.hand - mean) / scale, -REACH, REACH)
    covariance = x.T @ x / len(x)
    # A fifth of the identity is enough shrinkage for 68 correlated features; Ledoit-Wolf would do as well.
    value, vector = np.linalg.eigh(0.8 * covariance + 0.2 * np.eye(len(covariance)))
    whiten = vector / np.sqrt(value) / scale[:, None]
    return {"seen": np.packbits(seen), "mean": mean, "whiten": whiten.astype(np.float32), "reach": REACH * scale}


def novelty(fitted: dict[str, Any], view: View) -> Floats:
    """(n, 2) the two signals: share of n-grams never seen; distance of the features."""
    reach = fitted.get("reach", np.inf)  # older artefacts set no limit
    off = np.clip(view.hand - fitted["mean"], -reach, reach)
    distance = np.sqrt(((off @ fitted["whiten"]) ** 2).mean(axis=1))
    return np.stack([_unknown_share(fitted["seen"], view.words), distance], axis=1)


def _unknown_share(packed: NDArray[np.uint8], counts: Counts) -> Floats:
    bucket = counts.bucket
    known = (packed[bucket >> 3] >> (7 - (bucket & 7)).astype(np.uint8)) & 1
    total = np.diff(counts.starts)
    unknown = np.add.reduceat(np.append(1 - known.astype(np.int64), 0), counts.starts[:-1])
    return np.asarray(np.where(total > 0, unknown, 1) / np.maximum(total, 1))


def fit_familiar(view: View, fold: Ints) -> dict[str, Any]:
    """As `fit_novelty`, with the middle (2,) and the edge (2,) of each signal's usual range on held-out folds."""
    held = np.zeros((len(view), 2))
    for k in np.unique(fold):
        out, rest = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
        if len(rest):
            held[out] = novelty(fit_novelty(view.take(rest)), view.take(out))
    middle, edge = np.quantile(held, [0.5, USUAL], axis=0)
    return {**fit_novelty(view), "middle": middle, "edge": np.maximum(np.maximum(edge, middle + 0.1), LEAST_EDGE)}


def unfamiliar(fitted: dict[str, Any], view: View) -> Floats:
    """(n,) 0 within the usual range of both signals; 1 from twice the edge's distance to the middle."""
    beyond = (novelty(fitted, view) - fitted["edge"]) / (fitted["edge"] - fitted["middle"])
    return np.asarray(np.clip(beyond, 0, 1).max(axis=1))
