"""Grades the answers of new weights to kept requests, by the kept answers of the top tier alone: nobody is asked.

What only a judge, a person or the client's tests could grade is left out and counted. Which requests are left out depends on the
new answer too, as where it is free text and the top tier's is not; so their number belongs beside every figure.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from router.flywheel.grading.agreement import Known, grade, is_sure
from router.flywheel.grading.comparing import equal, fault
from router.flywheel.grading.filling import mean_logprob
from router.flywheel.served import Answer, Grade, Served

NO_ANSWER = "the new weights gave no answer"
NOT_COMPARABLE = "only a judge could compare the new answer with the top tier's"


@dataclass(frozen=True, slots=True)
class Regraded:
    """Requests with one tier's answer replaced."""

    rows: tuple[Served, ...]
    left_out: Mapping[str, int]
    """reason -> number of requests"""


def regraded(rows: Sequence[Served], tier: str, answers: Mapping[str, Answer], tiers: Sequence[str]) -> Regraded:
    """The requests on new weights of `tier`. answers: by trace id. tiers: cheapest first; the last one grades, and is
    not `tier`."""
    top = tiers[-1]
    seen = [mean for row in rows if (mean := mean_logprob(row.answers.get(top))) is not None]
    found, left = list[Served](), Counter[str]()
    for row in rows:
        answer = answers.get(row.trace_id)
        made = Grade(None, "agreement", NO_ANSWER) if answer is None else grade_of(row, tier, answer, tiers, seen)
        if answer is None or made.score is None:
            left[made.detail] += 1
            continue
        found.append(replace(row, answers={**row.answers, tier: answer}, grades={**row.grades, tier: made}))
    return Regraded(tuple(found), dict(sorted(left.items())))


def grade_of(row: Served, tier: str, answer: Answer, tiers: Sequence[str], seen: Sequence[float]) -> Grade:
    """score None: it is left out. seen: mean log-probabilities of the top tier's answers."""
    top, own = row.answers.get(tiers[-1]), row.grades.get(tiers[-1])
    if top is None or own is None or own.score is None:
        return Grade(None, "agreement", "the top tier's answer has no grade")
    if any(found.source == "tests" for found in row.grades.values()):
        return Grade(None, "tests", "the client's tests decide, and they are not run here")
    if own.score < 1:
        return beside_a_bad_one(row, answer, top, own)
    known = Known((tier, tiers[-1]), row.body, {tier: answer, tiers[-1]: top}, judges=False, sure=trusted(row, tiers, seen))
    made = grade(known, tier)
    if isinstance(made, str):
        return Grade(None, "agreement", "the top tier was not sure of its answer")
    return Grade(None, made.source, NOT_COMPARABLE) if made.score is None else made


def beside_a_bad_one(row: Served, answer: Answer, top: Answer, own: Grade) -> Grade:
    """Somebody said that the top tier's answer was not good: only the same answer is worth as much."""
    if not fault(answer, row.body) and equal(answer, top, row.body):
        return Grade(own.score, "agreement", "the same as the top tier's answer, which was graded")
    return Grade(None, "agreement", "the top tier's answer was not good, so it grades no other")


def trusted(row: Served, tiers: Sequence[str], seen: Sequence[float]) -> bool:
    """Whether to differ from the top tier's kept answer is to be worse: it was sure, or was found so when the row was graded.

    A tier that has only a fault of its own, as an empty answer, was graded without that.
    """
    found = (grade for tier in tiers[:-1] if (grade := row.grades.get(tier)) and grade.source == "agreement")
    compared = any(grade.score is not None and (grade.score > 0 or "the top tier" in grade.detail) for grade in found)
    return compared or is_sure(mean_logprob(row.answers.get(tiers[-1])), seen)
