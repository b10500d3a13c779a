"""Kept requests as the tables that `stepdown train` and `calibrate` read, so that both learn from the same form."""

from collections.abc import Sequence
from pathlib import Path

from classifiers import Artifact
from classifiers.files import atomic_write
from classifiers.replies.signals import PREFIX, Seen
from router.errors import BadInput
from router.flywheel.rows.dataset import Dataset
from router.flywheel.rows.outcome_rows import line_of, outcome_row
from router.flywheel.served import Served
from router.learn.evidence import read_seen
from router.learn.outcomes import Outcomes, read_outcomes


def tables_of(rows: Sequence[Served], dataset: Dataset, path: Path, prefix: int = PREFIX) -> tuple[Outcomes, Seen]:
    """Writes some rows of the dataset to `path` and reads them: outcomes, and the signals of the answers. Raises BadInput.

    Not joined, as `stepdown` joins files: there a row that is given twice counts once, here two requests are two.
    """
    known = [
        {**outcome_row(row, dataset.tiers), "weight": dataset.weights[row.trace_id], "stem_sha256": dataset.groups[row.trace_id]}
        for row in rows
    ]
    atomic_write(path, "".join(line_of(row) + "\n" for row in known))
    outcomes = read_outcomes(path, {tier: tier for tier in dataset.tiers})
    return outcomes, signals(path, outcomes, prefix)


def answers(path: Path, outcomes: Outcomes, artefact: Artifact) -> Seen:
    """The signals of the answers to some of the rows of `path`, as the artefact reads them."""
    return signals(path, outcomes, artefact.posterior.prefix if artefact.posterior else PREFIX)


def signals(path: Path, outcomes: Outcomes, prefix: int) -> Seen:
    """The signals of the answers, one row for each row of `outcomes`. Raises BadInput where some tier has none."""
    seen = read_seen([path], {tier: tier for tier in outcomes.tiers}, outcomes, prefix)
    if seen is None:
        raise BadInput("the rows hold no answers of some tier")
    return seen
