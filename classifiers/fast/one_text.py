"""The default classifier compiled for one text: a tenth of numpy's time.

A text of 500 characters has 110 tokens, so the overhead of 250 numpy calls dominates and takes a millisecond. Here the same
steps are compiled loops (loops.py), equal to numpy's to 1e-9 (tests/classifiers/fast/test_one_text.py). Batches and
training use numpy, and so does everything if numba is not installed.
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


def ready(kind: type, *arrays: Any) -> list[NDArray[Any]]:
    """The arrays as compiled code takes them: of that type, contiguous and writable; copied only where they are not."""
    return [np.require(array, dtype=kind, requirements=["C", "W"]) for array in arrays]


def flat_trees(forest: dict[str, Any]) -> list[NDArray[Any]]:
    """The arguments of `loops.walk_average` after x."""
    feature = np.where(forest["leaf"] >= 0, -1 - forest["leaf"], forest["feature"])
    roots, feature, child = ready(np.int32, forest["roots"], feature, forest["child"].reshape(-1, 2))
    threshold, value = ready(np.float32, forest["threshold"], forest["value"])
    return [roots, feature, threshold, child, value]


class Compiled:
    """A fitted Sufficiency around the default classifier, compiled to assess one text at a time."""

    def __init__(self, model: Sufficiency) -> None:
        """model: one that `precompile.compilable` accepts. Raises TypeError for another."""
        if not isinstance(model.inner_, Ensemble):
            raise TypeError(f"{type(model.inner_).__name__} is not compiled, only Ensemble")
        u1, u8, i4, f4, f8 = np.uint8, np.uint64, np.int32, np.float32, np.float64
        line, trees, near, cost = model.inner_.linear_, model.inner_.forest_, model.familiar_, model.cost_
        in_group = features.SIGN_MEMBER  # a byte is in one group at most
        classes, group_of = ready(u1, ngrams.CLASS_OF_BYTE, np.where(in_group.any(1), in_group.argmax(1), NO_GROUP))
        themes = [*ready(u8, features.WORDS), *ready(f8, features.WORD_MEMBER)]
        options = ready(np.bool_, features.OPENS_OPTION, features.CLOSES_OPTION)
        words = trees.latent_["words"]
        by_word = [*ready(i4, line.words_["column"]), *ready(f4, line.words_["rarity"], line.coef_)]
        mean, scale, hand, bias = ready(f8, line.mean_, line.scale_, line.hand_, line.bias_)
        reach = np.broadcast_to(near.get("reach", np.inf), np.shape(near["mean"]))  # older artefacts set no limit
        usual, reach, middle, edge = ready(f8, near["mean"], reach, near["middle"], near["edge"])
        self.fitted = (  # as `loops.assess` unpacks it
            (classes, *ready(u8, ngrams.FOLD, ngrams.POWERS)),
            (classes, group_of, *options, *themes, len(features.SIGN_GROUPS)),
            (ngrams.MIX, u8(64 - ngrams.BITS)),
            (*by_word, mean, scale, float(line.hand_weight), hand, bias),
            (*ready(i4, words["column"]), *ready(f4, words["rarity"], trees.latent_["axes"])),
            tuple(flat_trees(trees.forest_)),
            (*ready(f8, model.slope_, model.offset_, logit(np.clip(model.prior_, 0.01, 0.99))), TRUSTED_UP_TO),
            tuple(ready(f8, *(cost[key] for key in ("mean", "scale", "coef", "bias", "low", "high")))),
            (*ready(u1, near["seen"]), usual, reach, *ready(f4, near["whiten"]), middle, edge),
        )
        self.assess("")  # compiles, or loads what an earlier process compiled

    def assess(self, text: str) -> tuple[Floats, Floats, float]:
        """A row of Sufficiency.assess: (n_tiers,) log-odds, (n_tiers,) costs with the top tier's mean = 1, unfamiliarity."""
        raw = np.frombuffer(bytearray(clip(text).encode("utf-8", "replace") + b" "), dtype=np.uint8)
        found: tuple[Floats, Floats, float] = assess(raw, self.fitted)
        return found
