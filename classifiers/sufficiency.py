"""The shipped classifier: any of CLASSIFIERS, calibrated per tier on its out-of-fold predictions."""

import zlib
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from classifiers.arrays import Floats, Ints, Singles
from classifiers.costs import fit_costs, guess_costs
from classifiers.models.base import Classifier, as_view, logit, sigmoid, training_inputs
from classifiers.models.platt import platt
from classifiers.models.registry import CLASSIFIERS
from classifiers.text.familiar import fit_familiar, unfamiliar
from classifiers.text.prompt import clip
from classifiers.text.view import Progress, View, no_progress

TRUSTED_UP_TO = 0.75  # up to this unfamiliarity a prompt is judged by its own chances alone
STEEPER = 0.05  # the top tier's log-odds spread this much more than the cheapest tier's; see steeper


def folds_of(groups: Sequence[str], n_folds: int) -> Ints:
    """(n,) the fold of each row. It depends on the row's group alone."""
    return np.array([zlib.crc32(str(group).encode("utf-8", "replace")) % n_folds for group in groups])


def hash_texts(texts: Sequence[str]) -> NDArray[np.uint64]:
    """(n,) eight bytes of each text's BLAKE2 hash."""
    digests = [blake2b(text.encode("utf-8", "replace"), digest_size=8).digest() for text in texts]
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def cross_fit(
    make: Callable[[], Classifier], view: View, y: Floats, weight: Floats, helpers: Floats, fold: Ints, progress: Progress
) -> Floats:
    """(n, n_tiers) log-odds of each row, by a classifier that was not trained on its fold."""
    found = np.zeros(y.shape)
    parts = np.unique(fold)
    for done, k in enumerate(parts, 1):
        seen, unseen = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        model = make().fit(view.take(seen), y[seen], weight[seen], helpers[seen])
        found[unseen] = model.logits(view.take(unseen))
        progress(int(done), len(parts) + 1)
    return found


def prepare(model: Classifier, view: View, progress: Progress = no_progress) -> None:
    """Compute the pretrained models' features once for all folds; this may take longer than all other steps."""
    for name in model.needs:
        view.slow_feature(name, progress)


def steeper(n_tiers: int) -> Floats:
    """(n_tiers,) factors on the log-odds, from 1 at the cheapest tier to 1 + STEEPER at the top.

    The change is too small for calibration to detect, and it improves decisions: prompts that no tier can answer also cost
    the most, and a wider spread at the top sends fewer of them there (docs/experiments.md).
    """
    return 1 + STEEPER * np.linspace(0, 1, n_tiers)


def calibrate(z: Floats, y: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """(slope, offset), both (n_tiers,), for log-odds z (n, n_tiers) of unseen rows; see platt and steeper."""
    common, offset = platt(z, y, weight)
    slope = common * steeper(y.shape[1])
    _, moved = platt(z * slope + offset, y, weight, free=False)
    return slope, offset + moved


class OneText(Protocol):
    """Assesses one text; gives a row of `Sufficiency.assess`."""

    def assess(self, text: str) -> tuple[Floats, Floats, float]: ...


class Sufficiency(Classifier):
    """A calibrated classifier that keeps out-of-fold chances of its training rows."""

    inner_: Classifier
    slope_: Floats  # (n_tiers,)
    offset_: Floats  # (n_tiers,)
    familiar_: dict[str, Any]  # see familiar.py
    cost_: dict[str, Any]  # see costs.py
    known_: NDArray[np.uint64]  # (n,) rising hashes of the training prompts
    unseen_: Singles  # (n, n_tiers) out-of-fold chances of the prompts of `known_`
    unseen: Floats  # (n, n_tiers) the same in the order of training; not saved

    compiled: OneText | None = None  # set by `fast.precompile`; then it answers `assess_one`

    def __init__(self, name: str = "ensemble", n_folds: int = 5) -> None:
        self.name = name
        self.n_folds = n_folds

    def fit(
        self,
        texts: Sequence[str] | View,
        y: Floats,
        sample_weight: Floats | None = None,
        helpers: Floats | None = None,
        groups: Sequence[str] | None = None,
        progress: Progress = no_progress,
        costs: Floats | None = None,
    ) -> Self:
        """As Classifier.fit; rows of one group are never on both sides of the cross-fitting.

        costs: (n, n_tiers) in USD, NaN where unknown. Default: every tier costs the same.
        """
        self.compiled = None
        view = as_view(texts)
        y, weight, extra = training_inputs(len(view), y, sample_weight, helpers)
        make = CLASSIFIERS[self.name]
        prepare(make(), view, progress)
        with threadpool_limits(1, "blas"):  # small products: threads only wait for each other
            fold = folds_of(groups or view.texts, self.n_folds)
            z = cross_fit(make, view, y, weight, extra, fold, progress)
            self.inner_ = make().fit(view, y, weight, extra)
            self.familiar_ = fit_familiar(view, fold)
            self.cost_ = fit_costs(view, np.ones(y.shape) if costs is None else costs)
        progress(len(np.unique(fold)) + 1, len(np.unique(fold)) + 1)
        self.prior_ = self.inner_.prior_
        self.slope_, self.offset_ = calibrate(z, y, weight)
        self.unseen = sigmoid(z * self.slope_ + self.offset_)
        hashes = hash_texts(view.texts)
        order = np.argsort(hashes, kind="stable")
        self.known_, self.unseen_ = hashes[order], self.unseen[order].astype(np.float32)
        return self

    def honest(self, texts: Sequence[str], p: Floats) -> tuple[Floats, int]:
        """Replace rows of p (n, n_tiers) that were trained on by their out-of-fold chances; also returns their number.

        This way targets can be solved, and quality measured, on the training table too.
        """
        at, seen = self.places(texts)
        return np.where(seen[:, None], self.unseen_[at], p), int(seen.sum())

    def places(self, texts: Sequence[str]) -> tuple[Ints, NDArray[np.bool_]]:
        """(n,) the place of each text in `known_`, and whether it was trained on; only then its place means something."""
        hashes = hash_texts([clip(text) for text in texts])
        at = np.minimum(np.searchsorted(self.known_, hashes), len(self.known_) - 1)
        return at, self.known_[at] == hashes

    def logits(self, view: View) -> Floats:
        return self.assess(view)[0]

    def assess(self, view: View) -> tuple[Floats, Floats, Floats]:
        """(n, n_tiers) log-odds, (n, n_tiers) costs with the top tier's mean = 1, (n,) how unfamiliar each text is.

        Beyond TRUSTED_UP_TO the tiers' mean chances are blended in, and replace a text's own at unfamiliarity 1. Lower scores
        say little: of a table's own prompts one in twenty is above 0 and one in a hundred above one half; giving that one
        the means cost 0.0025 of APGR and 0.008 of the gap (docs/experiments.md).
        """
        strange = unfamiliar(self.familiar_, view)
        z = self.inner_.logits(view) * self.slope_ + self.offset_
        share = np.clip((strange - TRUSTED_UP_TO) / (1 - TRUSTED_UP_TO), 0, 1)[:, None]
        z = (1 - share) * z + share * logit(np.clip(self.prior_, 0.01, 0.99))
        return z, guess_costs(self.cost_, view), strange

    def assess_one(self, text: str) -> tuple[Floats, Floats, float]:
        """As `assess`, for one text."""
        if self.compiled is not None:
            return self.compiled.assess(text)
        z, cost, strange = self.assess(View([text]))
        return z[0], cost[0], float(strange[0])

    def explain(self, text: str) -> dict[str, Floats]:
        return {name: moved * self.slope_ for name, moved in self.inner_.explain(text).items()}
