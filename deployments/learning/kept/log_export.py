"""Kept requests as rows of a training file, read a page at a time."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import Engine

from deployments.learning.kept import feedback
from deployments.learning.kept.completions import Chosen, Place, page, trace_of
from deployments.learning.kept.served_rows import built
from router.flywheel.rows.export_rows import FORMATS, Hook, answer_of, redacted
from router.flywheel.rows.outcome_rows import Row, outcome_row
from router.flywheel.served import Served
from router.flywheel.variants import Versions

log = logging.getLogger("stepdown")
Format = Literal["stepdown", "openai", "sharegpt", "trl"]
PAGE = 200  # requests
NOT_GRADED = "not every tier has a grade (--partial)"
REDACTED = "learning.redact keeps nothing of it"
HOOK_FAILED = "learning.redact failed"
NO_ANSWER = "it has no answer"
BELOW = "its answer's score is below --least-score, or unknown"


@dataclass(slots=True)
class Export:
    """What is exported, and how. tiers: cheapest first."""

    form: Format
    tiers: Sequence[str]
    partial: bool = False
    """stepdown: also requests of which some tier has no grade"""
    least_score: float | None = None
    """the others: only answers with at least this score, or a correction"""
    hook: Hook | None = None
    versions: Versions | None = None
    """where tiers have learned weights: which answer is of which"""
    weights: Mapping[str, str] = field(default_factory=dict)
    """tier -> digest of the weights whose answers stepdown's form is to have; one that is missing: the configured ones"""
    left_out: Counter[str] = field(default_factory=Counter)
    """reason -> requests, counted while the rows are read"""

    def rows(self, engine: Engine, chosen: Chosen) -> Iterator[Row]:
        """The oldest first. Between pages no transaction is open."""
        after: Place | None = None
        while True:
            with engine.connect() as connection:
                places = page(connection, chosen, PAGE, after)
                if not places:
                    return
                found, after = built(connection, places, self.versions if self.form == "stepdown" else None)
                said = feedback.of_traces(connection, [trace_of(id) for _, id in places])
            for kept in found:
                served = kept.on(self.weights) if self.form == "stepdown" and self.versions else kept
                if (row := self.row(served, feedback.correction_of(said.get(served.trace_id, [])))) is not None:
                    yield row

    def row(self, served: Served, correction: str | None) -> Row | None:
        """One request's row; None: it is left out, and counted."""
        try:
            shown = (served, correction) if self.hook is None else redacted(served, correction, self.hook)
        except Exception as error:  # noqa: BLE001 the hook is not ours, and an unredacted text must not leave
            log.error("%s was not exported: learning.redact raised %s", served.trace_id, type(error).__name__)
            return self.out(HOOK_FAILED)
        if shown is None:
            return self.out(REDACTED)
        served, correction = shown
        if self.form == "stepdown":
            whole = self.partial or served.complete(tuple(self.tiers))
            return outcome_row(served, self.tiers) if whole else self.out(NOT_GRADED)
        if not self.good_enough(served, correction):
            return self.out(BELOW)
        answer = answer_of(served, correction)
        return self.out(NO_ANSWER) if answer is None else FORMATS[self.form](served, answer)

    def good_enough(self, served: Served, correction: str | None) -> bool:
        if self.least_score is None or correction is not None:
            return True
        answer = served.answers.get(served.answered_by)
        name = self.versions.name(answer.tier, answer.model) if self.versions and answer else None
        grade = served.grades.get(name or served.answered_by)
        return grade is not None and grade.score is not None and grade.score >= self.least_score

    def out(self, why: str) -> Row | None:
        self.left_out[why] += 1
        return None
