"""Texts with the features that classifiers use; each is computed once, for all classifiers."""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from classifiers.arrays import Floats, Ints, Singles
from classifiers.pretrained import language, minilm
from classifiers.pretrained.remembered import Remembered
from classifiers.text.features import hand_features
from classifiers.text.ngrams import Counts, Tokens, count_grams, stack, token_hashes, tokenize
from classifiers.text.prompt import clip

CHUNK = 64  # texts tokenised together: enough to spread the overhead of numpy's calls, few enough for the processor's cache


Progress = Callable[[int, int], None]  # gets (done, total)


def no_progress(done: int, total: int) -> None:
    """The default of `progress`."""


def pretrained(name: str) -> Remembered:
    """The model behind `View.meaning` or `View.reading`, loaded at first use. Raises MissingExtra."""
    return minilm.encoder() if name == "meaning" else language.reader()


def check_extra(name: str) -> None:
    """Raises MissingExtra if the package behind `View.meaning` or `View.reading` is not installed. Loads no weights."""
    minilm.model_folder() if name == "meaning" else language.weights_file()


class View:
    """n texts, clipped. Features are computed at first use."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = [clip(text) for text in texts]

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def _parts(self) -> list[tuple[Tokens, NDArray[np.uint64]]]:
        groups = [self.texts[i : i + CHUNK] for i in range(0, len(self.texts), CHUNK)]
        tokens = [tokenize(group) for group in groups]
        return [(part, token_hashes(part)) for part in tokens]

    @cached_property
    def hand(self) -> Floats:
        """(n, len(FEATURES)) hand-made features."""
        return np.concatenate([hand_features(*part) for part in self._parts])

    @cached_property
    def words(self) -> Counts:
        """Counts of hashed word n-grams."""
        return stack([count_grams(*part) for part in self._parts])

    @cached_property
    def size(self) -> Floats:
        """(n,) length in bytes."""
        return np.concatenate([np.diff(part.bounds) - 1.0 for part, _ in self._parts])

    @cached_property
    def meaning(self) -> Singles:
        """(n, 384) sentence embeddings; needs the extra `embed`."""
        return self.slow_feature("meaning")

    @cached_property
    def reading(self) -> Singles:
        """(n, language.READING) a small language model's reading of each text; needs the extra `surprisal`."""
        return self.slow_feature("reading")

    def slow_feature(self, name: str, progress: Progress = no_progress) -> Singles:
        """`meaning` or `reading`, chunk by chunk. Raises MissingExtra."""
        model = pretrained(name)
        parts = []
        for start in range(0, max(1, len(self)), 4 * CHUNK):
            parts.append(model(self.texts[start : start + 4 * CHUNK]))
            progress(min(start + 4 * CHUNK, len(self)), len(self))
        found = self.__dict__[name] = np.concatenate(parts)
        return found

    def take(self, rows: Ints) -> "View":
        """Some of the texts, with the features that are already computed."""
        picked = View.__new__(View)
        picked.texts = [self.texts[i] for i in rows]
        picked.__dict__.update(hand=self.hand[rows], words=self.words.take(rows), size=self.size[rows])
        for name in ("meaning", "reading"):
            if name in self.__dict__:
                picked.__dict__[name] = getattr(self, name)[rows]
        return picked
