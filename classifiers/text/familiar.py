"""How unlike the training prompts a text is: 0 for what was seen, 1 for what no classifier here should judge.

Two signals, each scaled by how far it goes for training prompts that were held out: the share of n-grams never seen,
and the distance of the hand-made features from their mean in units of their spread (Mahalanobis). A router trained
on some tasks is a coin on others (docs/experiments.md), so an unfamiliar text gets the tiers' means instead.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifiers.arrays import Floats, Ints
from classifiers.text.ngrams import N_BUCKETS, Counts
from classifiers.text.view import View

USUAL = 0.95  # up to this quantile of held-out training prompts nothing is unfamiliar

# Training prompts all of one pattern must not make every other wording strange: least spread of a feature (most are
# logarithms of counts), and the least edge of what is usual, of each signal (mixed tables reach 0.2 to 0.3, and 1.1 to 1.4).
NARROWEST = 0.25
LEAST_EDGE = np.array([0.15, 1.0])

# Deviations count up to this many spreads: one wild feature makes no stranger of a prompt, many moderate ones do.
REACH = 4.0


def fit_signals(view: View) -> dict[str, Any]:
    """What the two signals need: n-grams seen (bit-packed), mean of the features, and a whitening matrix."""
    seen = np.zeros(N_BUCKETS, dtype=bool)
    seen[view.words.bucket] = True
    mean, scale = view.hand.mean(0), np.maximum(view.hand.std(0), NARROWEST)
    x = np.clip((view.hand - mean) / scale, -REACH, REACH)
    covariance = x.T @ x / len(x)
    # Ledoit-Wolf would do; a fifth of the identity is plenty against 68 correlated features.
    value, vector = np.linalg.eigh(0.8 * covariance + 0.2 * np.eye(len(covariance)))
    whiten = vector / np.sqrt(value) / scale[:, None]
    return {"seen": np.packbits(seen), "mean": mean, "whiten": whiten.astype(np.float32), "reach": REACH * scale}


def signals(fitted: dict[str, Any], view: View) -> Floats:
    """(n, 2): share of n-grams never seen; distance of the features."""
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
    """The signals' state with the usual range (2,) x (middle, edge) of each, taken on folds held out."""
    held = np.zeros((len(view), 2))
    for k in np.unique(fold):
        out, rest = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
        if len(rest):
            held[out] = signals(fit_signals(view.take(rest)), view.take(out))
    middle, edge = np.quantile(held, [0.5, USUAL], axis=0)
    return {**fit_signals(view), "middle": middle, "edge": np.maximum(np.maximum(edge, middle + 0.1), LEAST_EDGE)}


def unfamiliar(fitted: dict[str, Any], view: View) -> Floats:
    """(n,) 0 within the usual range of both signals, rising to 1 at twice the distance from the middle."""
    beyond = (signals(fitted, view) - fitted["edge"]) / (fitted["edge"] - fitted["middle"])
    return np.asarray(np.clip(beyond, 0, 1).max(axis=1))
