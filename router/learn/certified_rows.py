"""Which rows a certificate may be made of: complete, given once, not trained on, and drawn in proportion to their weights.

A certificate's bound is exact for independent draws of the traffic that it is about. A weight says that a row stands for more or
less of that traffic than another, so rows are drawn by it: each is kept with a chance of its weight over the largest one, after
which the rows that are left are such draws, and the bound holds as it stands. The draw depends on the row's content alone, so
giving rows again, or in another order, draws the same ones.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifiers import Artifact
from classifiers.choose import Floats
from classifiers.sufficiency import hash_texts
from router.errors import BadInput
from router.learn.outcomes import Outcomes

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Left:
    """How many rows were left out, and why."""

    repeated: int = 0
    incomplete: int = 0
    trained_on: int = 0
    by_weight: int = 0

    def lines(self) -> list[str]:
        """What was left out, for people."""
        said = (
            (self.repeated, "were given before (same prompt and replies)"),
            (self.incomplete, "lack a score or a cost of some tier"),
            (self.trained_on, "were trained on: a promise needs rows that were not"),
            (self.by_weight, "were not drawn by their weight"),
        )
        return [f"left out: {count} rows {why}" for count, why in said if count]


def certifiable(artefact: Artifact, outcomes: Outcomes) -> tuple[Outcomes, Left]:
    """The rows that a certificate may be made of, and what was left out. Raises BadInput where nothing is left."""
    whole = outcomes.is_complete
    fresh = whole & ~artefact.trained_on(list(outcomes.texts))
    if whole.any() and not fresh.any():
        raise BadInput(
            f"all {int(whole.sum())} complete rows were trained on, and a promise needs rows that were not; label fresh prompts, "
            "or train again without these rows (mark them split=test)"
        )
    if fresh.any() and not outcomes.weights[fresh].max() > 0:
        raise BadInput(f"all {int(fresh.sum())} rows that may be used have weight 0, so they stand for no traffic")
    drawn = np.zeros(len(outcomes), dtype=bool)
    drawn[fresh] = by_weight(outcomes.take(fresh))
    counts = (int((~whole).sum()), int((whole & ~fresh).sum()), int((fresh & ~drawn).sum()))
    return outcomes.take(drawn), Left(outcomes.repeated, *counts)


def by_weight(outcomes: Outcomes) -> Mask:
    """(n,) the rows that are drawn: all of them where all weights are the same."""
    if not len(outcomes):
        return np.zeros(0, dtype=bool)
    return np.asarray(chances(outcomes) < outcomes.weights / outcomes.weights.max())


def chances(outcomes: Outcomes) -> Floats:
    """(n,) a number in [0, 1) for each row, fixed by its content."""
    named = outcomes.contents if len(outcomes.contents) == len(outcomes) else outcomes.texts
    return np.asarray(hash_texts([f"drawn {name}" for name in named]) / 2.0**64)
