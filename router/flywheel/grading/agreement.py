"""Grading without labels: how good each tier's answer to one request was, relative to the top tier's.

Five sources, the best first: what the client said of the answer; the tests that came with the request; being the top tier's own
answer; agreement with the top tier, where answers can be compared; the top tier as a blind judge, where they cannot.

To differ from the top tier counts as worse only where the top tier can be trusted: it is sure by its log-probabilities, or a
second sample of it agrees with the first. Elsewhere the whole request stays without grades, also of answers that agree: which
requests are graded depends on the top tier alone, so the graded ones do not flatter smaller tiers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from router.flywheel.grading.comparing import equal, fault
from router.flywheel.served import Answer, Grade

UNSURE_SHARE = 0.2  # of the top tier's answers, by their mean log-probability, count as unsure
LEAST_SEEN = 20  # answers of the top tier before that quantile is used; until then a second sample decides
Need = Literal["second", "judge"]
"""what has to be asked before an answer can be graded: the top tier once more, or the top tier as a judge"""


@dataclass(frozen=True, slots=True)
class Told:
    """What was said of the answer that the client got."""

    score: float | None = None
    """in [0, 1]"""
    correction: str = ""
    """the answer as it should have been"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge found of one tier's answer. score: None where it could not be judged."""

    score: float | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """All that the grades of one request go by. The last of `tiers` is the top tier."""

    tiers: Sequence[str]
    body: Mapping[str, Any]
    """the request"""
    answers: Mapping[str, Answer]
    answered_by: str = ""
    missing: Mapping[str, str] = field(default_factory=dict)
    """tier -> why it has no answer"""
    told: Told = Told()
    passed: Mapping[str, bool | None] = field(default_factory=dict)
    """tier -> whether its answer passed the request's tests; None: that could not be told"""
    sure: bool = False
    """the top tier was sure of its answer"""
    second: Answer | None = None
    """a second sample of the top tier"""
    no_second: str = ""
    """why there cannot be one"""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    judges: bool = True
    """there is a judge"""

    @property
    def top(self) -> str:
        return self.tiers[-1]


def grades(known: Known) -> dict[str, Grade]:
    """The grade of each tier; one that would need more to be asked is missing."""
    found = {tier: grade(known, tier) for tier in known.tiers}
    return {tier: missing(known, made) if isinstance(made, str) else made for tier, made in found.items()}


def wanted(known: Known) -> dict[str, Need]:
    """What has to be asked for the grades of which tiers; empty: they are as good as they get."""
    found = {tier: grade(known, tier) for tier in known.tiers}
    return {tier: made for tier, made in found.items() if isinstance(made, str)}


def reference(known: Known) -> Answer:
    """What the judge compares with: the client's correction, else the top tier's answer."""
    return correction_of(known) if known.told.correction else known.answers[known.top]


def missing(known: Known, need: Need) -> Grade:
    if need == "judge":
        return Grade(None, "judge", "free text, which was not judged")
    return Grade(None, "agreement", "the top tier is unsure, and was not asked again")


def grade(known: Known, tier: str) -> Grade | Need:
    """The grade of one tier's answer by the best source there is."""
    answer = known.answers.get(tier)
    if answer is None:
        return Grade(None, "top" if tier == known.top else "agreement", known.missing.get(tier, "it was not asked"))
    found = by_feedback(known, tier, answer) or by_tests(known, tier)
    if found:
        return found
    if tier != known.top:
        return by_top(known, tier, answer)
    wrong = fault(answer, known.body)
    return Grade(None, "top", wrong) if wrong else Grade(1.0, "top", "the top tier's own answer")


# -- feedback and tests ----------------------------------------------------------------------------------------------------


def by_feedback(known: Known, tier: str, answer: Answer) -> Grade | Need | None:
    """None: what was said tells nothing of this tier's answer."""
    told, scored = known.told, known.answers.get(known.answered_by)
    if told.score is not None and tier == known.answered_by:
        return Grade(told.score, "feedback", "scored")
    if told.correction:
        return by_correction(known, tier, answer)
    if told.score is not None and scored and scored.role == "answer" and equal(answer, scored, known.body):
        return Grade(told.score, "feedback", "the same as the answer that was scored")
    return None


def by_correction(known: Known, tier: str, answer: Answer) -> Grade | Need:
    agrees = equal(answer, correction_of(known), known.body)
    if agrees is None:
        return judged(known, tier, "beside the correction")
    return Grade(float(agrees), "feedback", "as corrected" if agrees else "differs from the correction")


def correction_of(known: Known) -> Answer:
    return Answer(known.answered_by, "answer", {"role": "assistant", "content": known.told.correction})


def by_tests(known: Known, tier: str) -> Grade | None:
    passed = known.passed.get(tier)
    return None if passed is None else Grade(float(passed), "tests", "passes" if passed else "fails")


# -- the top tier ----------------------------------------------------------------------------------------------------------


def by_top(known: Known, tier: str, answer: Answer) -> Grade | Need:
    """By agreement with the top tier's answer, or by its verdict."""
    top, own = known.answers.get(known.top), grade(known, known.top)
    if top is None or isinstance(own, str) or own.score is None:
        why = own.detail if isinstance(own, Grade) else "it could not be judged"
        return Grade(None, "agreement", f"nothing to compare with: the top tier's answer: {why}")
    agrees = equal(answer, top, known.body)
    if own.score < 1:
        return beside_a_bad_one(own, agrees)
    if wrong := fault(answer, known.body):
        return Grade(0.0, "agreement", wrong)
    if agrees is None:
        return judged(known, tier, "beside the top tier's answer")
    return by_agreement(known, top, agrees)


def beside_a_bad_one(own: Grade, agrees: bool | None) -> Grade:
    """The top tier's answer is known not to be good: only the same answer can be graded by it."""
    if agrees:
        return Grade(own.score, "agreement", f"the same as the top tier's answer, by {own.source} {own.score:g}")
    return Grade(None, "agreement", f"the top tier's answer was not good, by {own.source} {own.score:g}")


def by_agreement(known: Known, top: Answer, agrees: bool) -> Grade | Need:
    if known.sure:
        how = "which is sure"
    elif known.second is None:
        return Grade(None, "agreement", f"the top tier is unsure, and {known.no_second}") if known.no_second else "second"
    elif equal(known.second, top, known.body):
        how = "whose two samples agree"
    else:
        return Grade(None, "agreement", "the top tier's two samples differ")
    return Grade(float(agrees), "agreement", f"{'agrees with' if agrees else 'differs from'} the top tier, {how}")


def judged(known: Known, tier: str, beside: str) -> Grade | Need:
    if not known.judges:
        return Grade(None, "judge", "free text, and nobody judges it (learning.judge)")
    found = known.verdicts.get(tier)
    return "judge" if found is None else Grade(found.score, "judge", found.why or beside)


def is_sure(mean: float | None, seen: Sequence[float]) -> bool:
    """Whether the top tier is sure of an answer with this mean log-probability. seen: those of its answers so far."""
    if mean is None or len(seen) < LEAST_SEEN:
        return False
    return mean >= sorted(seen)[int(len(seen) * UNSURE_SHARE)]
