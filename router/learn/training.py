"""Fits a classifier on an outcome table and sets its targets, for `stepdown train`."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from classifiers import DEFAULT, Rule, Sufficiency
from classifiers.choose import Floats
from classifiers.models.base import sigmoid
from classifiers.sufficiency import folds_of
from classifiers.text.view import View
from router.errors import BadInput
from router.learn.calibration import named_rules
from router.learn.evaluation import Estimate
from router.learn.outcomes import Outcomes

FEWEST_ROWS = 20


@dataclass(frozen=True)
class Trained:
    """A fitted classifier and its manifest."""

    model: Sufficiency
    manifest: dict[str, Any]
    unseen: Floats  # (n, n_tiers) chances for the training rows, each by a classifier that had not seen the row


def check_teaches(outcomes: Outcomes) -> None:
    """Raise BadInput for a table from which nothing can be learned."""
    n = len(outcomes)
    if n < FEWEST_ROWS:
        raise BadInput(f"{n} rows with a score; at least {FEWEST_ROWS} are needed to train, 200 to 500 to be useful")
    if not outcomes.weights.sum() > 0:
        raise BadInput("every row has weight 0, so there is nothing to learn")
    if len(np.unique(folds_of(list(outcomes.groups), Sufficiency().n_folds))) < 2:
        raise BadInput(
            f"the {n} rows are near-duplicates of {len(set(outcomes.groups))} prompts (stem_sha256): too few to train on some "
            "and judge by others"
        )
    spread = np.nanmax(outcomes.scores, axis=0) - np.nanmin(outcomes.scores, axis=0)
    if not (spread > 0).any():
        raise BadInput("one class only: every tier has the same score in all rows, so there is nothing to learn")


def data_hash(outcomes: Outcomes) -> str:
    """SHA-256 over tiers, texts, scores, costs and weights, in order."""
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
    """Fit a classifier of CLASSIFIERS on all rows. The targets come from `kept` rows, else from cross-fitted chances."""
    check_teaches(outcomes)
    (outcomes if kept is None else kept).complete()  # raises before the work instead of after it
    model = Sufficiency(name)
    texts, groups = list(outcomes.texts), list(outcomes.groups)
    model.fit(texts, outcomes.scores, outcomes.weights, outcomes.helper_scores(), groups, progress, outcomes.costs)
    trained = Trained(model, {}, model.unseen)
    rules, gain = named_rules(*measured_on(trained, outcomes, kept))
    return replace(trained, manifest=_manifest(outcomes, name, rules, gain))


def measured_on(trained: Trained, outcomes: Outcomes, kept: Outcomes | None) -> tuple[Floats, Floats, Outcomes]:
    """Chances, guessed costs and outcomes of unseen rows: the kept ones, else the training rows by cross-fitting.

    Only complete rows: every tier has a score and a cost.
    """
    rows = outcomes if kept is None else kept
    logits, cost, _ = trained.model.assess(View(list(rows.texts)))
    p = trained.unseen if kept is None else sigmoid(logits)
    return p[rows.is_complete], cost[rows.is_complete], rows.complete()


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
