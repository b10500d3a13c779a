"""Latent directions of word use (truncated SVD of TF-IDF rows): a few numbers that describe a text's topic."""

from typing import Any

import numpy as np
from sklearn.decomposition import TruncatedSVD

from classifiers.arrays import Floats
from classifiers.text.ngrams import Counts
from classifiers.text.rarity import WordWeights, fit_words

RAREST = 3  # an n-gram counts if this many texts share it


def fit_latent(counts: Counts, size: int, seed: int) -> dict[str, Any]:
    """{"words": WordWeights' arrays, "axes": (n_columns, size)}; fewer directions where the texts are few."""
    words = fit_words(counts, RAREST)
    rows = words.matrix(counts)
    if rows.shape[1] < 2:  # texts without words have no directions
        return {"words": words.state(), "axes": np.zeros((rows.shape[1], 2), dtype=np.float32)}
    size = max(2, min(size, min(rows.shape) - 1))
    svd = TruncatedSVD(size, n_iter=4, random_state=seed).fit(rows)
    return {"words": words.state(), "axes": svd.components_.T.astype(np.float32)}


def latent(fitted: dict[str, Any], counts: Counts) -> Floats:
    """(n, size) position of each text, scaled to length 1; zeros where no n-gram is known."""
    position = WordWeights(**fitted["words"]).project(counts, fitted["axes"])
    length = np.linalg.norm(position, axis=1, keepdims=True)
    return np.asarray(position / np.maximum(length, 1e-9))
