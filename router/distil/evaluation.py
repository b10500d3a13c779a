"""A student before and after training, compared on the test rows of a data folder: two answers beside the one to learn.

Test rows are drawn requests whose teacher's answer can be trusted, so to differ from it is to be worse. Rows whose answers cannot
be compared, as free text without a judge, are counted and prove nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifiers.choose import Floats
from router.distil.rows import Row
from router.flywheel.grading.comparing import calls_of, equal, fault, refuses
from router.flywheel.served import Answer
from router.learn import evaluation as ev
from router.request.body import wants_json

N_DRAWS = 1_000
SURE = 0.95  # of each one-sided bound
FEWEST_OF_SLICE = 20  # rows of a slice that is looked at
FAILING = 0.05  # a slice fails where the student's mean score is so far below the answer to learn
Masks = NDArray[np.bool_]
Judge = Callable[[Row, Answer], float | None]
"""the score of an answer that cannot be compared; None: not known"""
NOT_ANSWERED = "one of the two gave no answer"
NOT_COMPARABLE = "its answers cannot be compared with the one to learn"


def body_of(row: Row) -> dict[str, Any]:
    """The request as a chat body."""
    return {**row.sampling, **({"tools": list(row.tools)} if row.tools else {}), "messages": list(row.messages)}


def score(row: Row, answer: Answer, judge: Judge | None = None) -> float | None:
    """How good an answer is beside the one to learn, in [0, 1]; None: they cannot be compared."""
    body = body_of(row)
    if fault(answer, body):
        return 0.0
    found = equal(answer, Answer("", "answer", row.answer), body)
    return float(found) if found is not None else (judge(row, answer) if judge else None)


class Draws:
    """Bootstrap over groups (conversations and near-duplicates): one is drawn whole. Rows count by weight."""

    def __init__(self, rows: Sequence[Row]) -> None:
        _, self.member = np.unique([row.group or row.id for row in rows], return_inverse=True)
        given = np.array([row.weight for row in rows], dtype=np.float64)
        self.shares: Floats = given / given.mean() if len(rows) else given
        drawn = ev.draws(int(self.member.max(initial=-1)) + 1, N_DRAWS) if len(rows) else np.ones((N_DRAWS + 1, 0))
        self.weights: Floats = drawn[:, self.member] * self.shares

    def mean(self, values: Floats, of: Masks | None = None) -> Floats:
        """(N_DRAWS + 1,) weighted means of values (n,) over some rows, the estimate first; NaN where a draw has none."""
        weights = self.weights if of is None else self.weights * of
        total = weights.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(weights @ values / total)

    def effective(self, of: Masks) -> float:
        """Groups of equal weight that would prove as much as these rows (Kish)."""
        sizes = np.bincount(self.member, weights=self.shares * of)
        return ev.effective(sizes.astype(np.float64)) if sizes.any() else 0.0


@dataclass(frozen=True)
class Compared:
    """The test rows with both answers, and how good these are. Arrays have one entry a row."""

    rows: tuple[Row, ...]
    before: tuple[Answer, ...]
    after: tuple[Answer, ...]
    old: Floats
    """in [0, 1]"""
    new: Floats
    failing: Mapping[str, Masks] = field(default_factory=dict)
    """slices in which the student failed on rows that are not of the test: name -> which rows"""
    slices: Mapping[str, Masks] = field(default_factory=dict)
    """all slices with FEWEST_OF_SLICE rows"""
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_failing(self) -> Masks:
        """Rows of at least one failing slice; all, where no slice is known to fail."""
        if not self.failing:
            return np.ones(len(self.rows), dtype=bool)
        return np.asarray(np.any(list(self.failing.values()), axis=0))


def compare(
    rows: Sequence[Row],
    before: Mapping[str, Answer],
    after: Mapping[str, Answer],
    known: Sequence[Row] = (),
    judge: Judge | None = None,
) -> Compared:
    """before, after: by row id. known: rows that are not of the test, by whose kept scores failing slices are found: chosen by
    the test's own, a slice would look better afterwards by luck alone.
    """
    left = {NOT_ANSWERED: 0, NOT_COMPARABLE: 0}
    kept: list[tuple[Row, Answer, Answer, float, float]] = []
    for row in rows:
        a, b = before.get(row.id), after.get(row.id)
        if a is None or b is None:
            left[NOT_ANSWERED] += 1
            continue
        x, y = score(row, a, judge), score(row, b, judge)
        if x is None or y is None:
            left[NOT_COMPARABLE] += 1
        else:
            kept.append((row, a, b, x, y))
    found = tuple(one[0] for one in kept)
    masks = masks_of(found)
    bad = failing_slices(known)
    return Compared(
        found,
        tuple(one[1] for one in kept),
        tuple(one[2] for one in kept),
        np.array([one[3] for one in kept], dtype=np.float64),
        np.array([one[4] for one in kept], dtype=np.float64),
        {name: mask for name, mask in masks.items() if name in bad},
        {name: mask for name, mask in masks.items() if mask.sum() >= FEWEST_OF_SLICE},
        {why: count for why, count in left.items() if count},
    )


def masks_of(rows: Sequence[Row]) -> dict[str, Masks]:
    """`app=mail` -> which rows, for each slice that some but not all rows belong to."""
    names = sorted({f"{name}={value}" for row in rows for name, value in row.slices.items()})
    of_row = [{f"{name}={value}" for name, value in row.slices.items()} for row in rows]
    masks = {name: np.array([name in mine for mine in of_row]) for name in names}
    return {name: mask for name, mask in masks.items() if not mask.all()}


def failing_slices(rows: Sequence[Row]) -> set[str]:
    """Slices in which the student's kept answers are worse than those to learn."""
    fair = [row for row in rows if row.student.score is not None]
    scores = np.array([row.student.score for row in fair], dtype=np.float64)
    weights = np.array([row.weight for row in fair], dtype=np.float64)
    found = set()
    for name, mask in masks_of(fair).items():
        if mask.sum() >= FEWEST_OF_SLICE and np.average(scores[mask], weights=weights[mask]) < 1 - FAILING:
            found.add(name)
    return found


# -- forms of answers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Forms:
    """How answers look, whatever they say. Shares in [0, 1]; NaN where no row asks for it."""

    json: float
    """valid, of those that were to be JSON"""
    calls: float
    """with calls of tools, of those whose answer to learn has some"""
    refusals: float
    """refused or empty"""
    tokens: float
    """mean length"""

    @classmethod
    def of(cls, rows: Sequence[Row], answers: Sequence[Answer]) -> "Forms":
        pairs = list(zip(rows, answers, strict=True))
        json = [not fault(answer, body_of(row)) for row, answer in pairs if wants_json(row.sampling)]
        calls = [bool(calls_of(answer)) for row, answer in pairs if row.answer.get("tool_calls")]
        refused = [refuses(answer) or not (answer.text.strip() or calls_of(answer)) for answer in answers]
        lengths = [answer.output_tokens for answer in answers]
        return cls(share(json), share(calls), share(refused), share(lengths))


def share(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
