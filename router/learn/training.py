"""Fit, calibrate, choose targets, write the artefact: what `stepdown train` does."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifiers import DEFAULT, Rule, Sufficiency
from classifiers.models.base import sigmoid
from classifiers.sufficiency import folds_of
from classifiers.text.view import View
from router.errors import BadInput
from router.learn.calibration import named_rules
from router.learn.evaluation import Estimate
from router.learn.measures import complete, is_complete
from router.learn.outcomes import Outcomes

Floats = NDArray[np.float64]
FEWEST_ROWS = 20


@dataclass(frozen=True)
class Trained:
    """A fitted classifier, its manifest, and its chances for the training rows as if it had not seen them."""

    model: Sufficiency
    manifest: dict[str, Any]
    unseen: Floats  # (n, n_tiers)


def check_teaches(outcomes: Outcomes) -> None:
    """Refuse tables nothing can be learned from, in one line."""
    n = len(outcomes)
    if n < FEWEST_ROWS:
        raise BadInput(f"{n} rows with a score; at least {FEWEST_ROWS} are needed to train, 200 to 500 to be useful")
    if not outcomes.weights.sum() > 0:
        raise BadInput("every row has weight 0, so there is nothing to learn")
    if len(np.unique(folds_of(list(outcomes.groups), Sufficiency().n_folds))) < 2:
        raise BadInput(
            f"the {n} rows are near-duplicates of {len(set(outcomes.groups))} prompts (stem_sha256): too few to judge "
            "some by what was learned from others"
        )
    spread = np.nanmax(outcomes.scores, axis=0) - np.nanmin(outcomes.scores, axis=0)
    if not (spread > 0).any():
        raise BadInput("one class only: every tier has the same score in all rows, so there is nothing to learn")


def data_hash(outcomes: Outcomes) -> str:
    """SHA-256 over texts, scores and costs, in order."""
    digest = hashlib.sha256(repr(outcomes.tiers).encode())
    for text in outcomes.texts:
        digest.update(text.encode("utf-8", "replace") + b"\0")
    for array in (outcomes.scores, outcomes.costs, outcomes.weights):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def train(
    outcomes: Outcomes,
    name: str = DEFAULT,
    progress: Callable[[int, int], None] = lambda done, total: None,
    kept: Outcomes | None = None,
) -> Trained:
    """Fit a classifier of CLASSIFIERS on all rows; targets come from `kept` rows, else from cross-fitted chances."""
    check_teaches(outcomes)
    complete(outcomes if kept is None else kept)  # before the work, not after it
    model = Sufficiency(name)
    texts, groups = list(outcomes.texts), list(outcomes.groups)
    model.fit(texts, outcomes.scores, outcomes.weights, outcomes.helper_scores(), groups, progress, outcomes.costs)
    trained = Trained(model, {}, model.unseen)
    rules, gain = named_rules(*measured_on(trained, outcomes, kept))
    return replace(trained, manifest=_manifest(outcomes, name, rules, gain))


def measured_on(trained: Trained, outcomes: Outcomes, kept: Outcomes | None) -> tuple[Floats, Floats, Outcomes]:
    """Chances and guessed costs of unseen rows, and those rows: the kept ones, else the training rows by cross-fitting.

    Only rows where every tier has a score and a cost.
    """
    rows = outcomes if kept is None else kept
    logits, cost, _ = trained.model.assess(View(list(rows.texts)))
    p = trained.unseen if kept is None else sigmoid(logits)
    whole = is_complete(rows)
    return p[whole], cost[whole], complete(rows)


def _manifest(outcomes: Outcomes, name: str, rules: dict[str, Rule], gain: Estimate) -> dict[str, Any]:
    return {
        "tiers": outcomes.tiers,
        "costs": outcomes.relative_costs().tolist(),
        "rules": {key: rule.to_dict() for key, rule in rules.items()},
        "recovered": [gain.value, gain.low, gain.high],
        "classifier": name,
        "rows": len(outcomes),
        "data_sha256": data_hash(outcomes),
    }
