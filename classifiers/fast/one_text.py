"""One decision compiled: the default classifier on one text, in a tenth of the time of numpy's calls.

A text of 500 characters is 110 tokens: too few for numpy, whose 250 calls then take a millisecond whatever they do. Here the
same steps are loops (classifiers/fast/loops.py). The results equal theirs to 1e-9
(tests/classifiers/fast/test_one_text.py); batches and
training stay with numpy, and so does everything where numba is missing.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifiers.arrays import Floats
from classifiers.fast.loops import NO_GROUP, assess
from classifiers.models.base import logit
from classifiers.models.ensemble import Ensemble
from classifiers.sufficiency import TRUSTED_UP_TO, Sufficiency
from classifiers.text import features, ngrams
from classifiers.text.prompt import clip


def groups_of_bytes() -> NDArray[np.uint8]:
    """(256,) which group of signs a byte is in; NO_GROUP where in none."""
    table = np.full(256, NO_GROUP, dtype=np.uint8)
    for at, signs in enumerate(features.SIGN_GROUPS.values()):
        table[[ord(sign) for sign in signs]] = at
    return table


def flat_trees(forest: dict[str, Any]) -> tuple[NDArray[Any], ...]:
    """roots, feature, threshold, child, value as the function `forest` takes them."""
    feature = np.where(forest["leaf"] >= 0, -1 - forest["leaf"], forest["feature"]).astype(np.int32)
    child = forest["child"].reshape(-1, 2).astype(np.int32)
    return forest["roots"].astype(np.int32), feature, forest["threshold"], child, forest["value"]


def ready(array: Any, kind: type) -> NDArray[Any]:
    """As what is compiled takes it: of that kind, in one piece, writable; copied only where it is not so."""
    return np.require(array, dtype=kind, requirements=["C", "W"])


def all_ready(*pairs: tuple[Any, type]) -> tuple[NDArray[Any], ...]:
    return tuple(ready(array, kind) for array, kind in pairs)


class Compiled:
    """A fitted Sufficiency of the default kind, to be asked about one text at a time."""

    def __init__(self, model: Sufficiency) -> None:
        """model: one that `precompile.compilable` has passed. Raises TypeError for another."""
        if not isinstance(model.inner_, Ensemble):
            raise TypeError(f"{type(model.inner_).__name__} is not compiled, only Ensemble")
        f8, f4, i4 = np.float64, np.float32, np.int32
        line, trees, near, cost = model.inner_.linear_, model.inner_.forest_, model.familiar_, model.cost_
        tables = (
            *all_ready((ngrams.CLASS_OF_BYTE, np.uint8), (groups_of_bytes(), np.uint8), (features.OPENS_OPTION, np.bool_)),
            *all_ready((features.CLOSES_OPTION, np.bool_), (features.WORDS, np.uint64), (features.MEMBER, f8)),
            len(features.SIGN_GROUPS),
        )
        linear = (
            *all_ready((line.words_["column"], i4), (line.words_["rarity"], f4), (line.coef_, f4), (line.mean_, f8)),
            ready(line.scale_, f8),
            float(line.hand_weight),
            ready(line.hand_, f8),
            ready(line.bias_, f8),
        )
        words = trees.latent_["words"]
        roots, feature, threshold, child, value = flat_trees(trees.forest_)
        reach = np.broadcast_to(near.get("reach", np.inf), np.shape(near["mean"]))  # older artefacts set no limit
        self.fitted = (
            all_ready((ngrams.CLASS_OF_BYTE, np.uint8), (ngrams.FOLD, np.uint64), (ngrams.POWERS, np.uint64)),
            tables,
            (ngrams.MIX, np.uint64(64 - ngrams.BITS)),
            linear,
            all_ready((words["column"], i4), (words["rarity"], f4), (trees.latent_["axes"], f4)),
            all_ready((roots, i4), (feature, i4), (threshold, f4), (child, i4), (value, f4)),
            (*all_ready((model.slope_, f8), (model.offset_, f8), (logit(np.clip(model.prior_, 0.01, 0.99)), f8)), TRUSTED_UP_TO),
            all_ready(*((cost[key], f8) for key in ("mean", "scale", "coef", "bias", "low", "high"))),
            all_ready(
                (near["seen"], np.uint8),
                (near["mean"], f8),
                (reach, f8),
                (near["whiten"], f4),
                (near["middle"], f8),
                (near["edge"], f8),
            ),
        )
        self.assess("")  # compiles, or takes what was compiled before

    def assess(self, text: str) -> tuple[Floats, Floats, float]:
        """(n_tiers,) log-odds, (n_tiers,) costs with the top tier's mean = 1, how unfamiliar: Sufficiency.assess's row."""
        raw = np.frombuffer(bytearray(clip(text).encode("utf-8", "replace") + b" "), dtype=np.uint8)
        found: tuple[Floats, Floats, float] = assess(raw, *self.fitted)
        return found
