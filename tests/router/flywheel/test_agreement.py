"""Grades without labels, case by case: which source decides, what it says, and what has to be asked first."""

import json
from dataclasses import replace

import pytest

from router.flywheel.grading import agreement
from router.flywheel.grading.agreement import Known, Told, Verdict
from router.flywheel.served import Answer

PROSE = "Rain falls because warm air rises, cools, and lets go of its water.\nThat is all there is to it."
OTHER = "Water in the air condenses into drops, which fall once they are heavy.\nSo it rains."
JSON = {"response_format": {"type": "json_object"}}


def said(tier, text="", finish="stop", role="fill", **message):
    return Answer(tier, role, {"role": "assistant", "content": text, **message}, finish)


def calling(tier, *calls):
    given = [{"type": "function", "function": {"name": name, "arguments": arguments}} for name, arguments in calls]
    return said(tier, tool_calls=given)


def known(small, large, sure=True, body=None, **more):
    made = [said(tier, text) if isinstance(text, str) else text for tier, text in (("small", small), ("large", large))]
    answers = {answer.tier: answer for answer in made if answer}
    return Known(("small", "large"), {"messages": [], **(body or {})}, answers, "small", sure=sure, **more)


def shown(case):
    """(score, source) of the small and of the large tier."""
    return [(grade.score, grade.source) for grade in agreement.grades(case).values()]


TOP = (1.0, "top")
SMALL_TOOLS = calling("small", ("find", '{"city": "Bonn", "n": 1}'))
LARGE_TOOLS = calling("large", ("find", '{"n": 1.0,  "city": "Bonn"}'))


@pytest.mark.parametrize(
    "small, large, body, score",
    [
        ("42", "42", {}, 1.0),
        ("so the answer is 42.0", "#### 42", {}, 1.0),
        ("41", "42", {}, 0.0),
        ("", "42", {}, 0.0),
        (said("small", "4", "length"), "42", {"max_tokens": 1}, 0.0),
        (said("small", "42", "length"), "42", {"max_tokens": 1}, 1.0),
        (PROSE, PROSE, {}, 1.0),
        ('{"b": 1, "a": [1, 2]}', '{"a": [1, 2.0], "b": 1}', JSON, 1.0),
        ('```json\n{"a": 1}\n```', '{"a": 1}', JSON, 0.0),
        ('{"a": 1}', '{"a": true}', JSON, 0.0),
        ('{"a": 1, "c": 2}', '{"a": 1}', JSON, 0.0),
        ("no idea", '{"a": 1}', JSON, 0.0),
        (SMALL_TOOLS, LARGE_TOOLS, {}, 1.0),
        (calling("small", ("find", '{"city": "Köln", "n": 1}')), LARGE_TOOLS, {}, 0.0),
        (calling("small", ("look", "{}")), LARGE_TOOLS, {}, 0.0),
        (calling("small", ("a", "{}"), ("b", "1")), calling("large", ("b", "1"), ("a", "{}")), {}, 1.0),
        ("Bonn", LARGE_TOOLS, {}, 0.0),
        (said("small", refusal="I may not"), said("large", refusal="No."), {}, 1.0),
    ],
)
def test_answers_that_can_be_compared_are_graded_by_agreement_with_a_sure_top_tier(small, large, body, score):
    assert shown(known(small, large, body=body)) == [(score, "agreement"), TOP]


@pytest.mark.parametrize(
    "small, large, body",
    [
        (PROSE, OTHER, {}),
        (f'{{"why": {json.dumps(PROSE)}}}', f'{{"why": {json.dumps(OTHER)}}}', JSON),
        (said("small", refusal="I may not"), "42", {}),
        (calling("small", ("write", json.dumps({"text": PROSE}))), calling("large", ("write", json.dumps({"text": OTHER}))), {}),
    ],
)
def test_answers_that_cannot_be_compared_are_judged(small, large, body):
    case = known(small, large, body=body)
    assert agreement.wanted(case) == {"small": "judge"} and shown(case)[0] == (None, "judge")
    judged = replace(case, verdicts={"small": Verdict(0.5)})
    assert shown(judged) == [(0.5, "judge"), TOP] and not agreement.wanted(judged)
    assert agreement.reference(case) == case.answers["large"]
    alone = replace(case, judges=False)
    assert shown(alone) == [(None, "judge"), TOP] and not agreement.wanted(alone)


@pytest.mark.parametrize("small, score", [("42", 1.0), ("41", 0.0)])
@pytest.mark.parametrize("second, counts", [("42", True), ("7", False), (PROSE, False)])
def test_an_unsure_top_tier_counts_only_where_a_second_sample_agrees_with_it_whatever_the_others_say(
    small, score, second, counts
):
    case = known(small, "42", sure=False)
    assert agreement.wanted(case) == {"small": "second"} and shown(case)[0] == (None, "agreement")
    asked = replace(case, second=said("large", second))
    assert shown(asked) == [(score if counts else None, "agreement"), TOP] and not agreement.wanted(asked)
    refused = replace(case, no_second="it refused a second sample")
    assert shown(refused)[0] == (None, "agreement") and not agreement.wanted(refused)


@pytest.mark.parametrize(
    "small, large, told, small_grade, large_grade",
    [
        ("41", "42", Told(1.0), (1.0, "feedback"), TOP),
        ("42", "42", Told(0.0), (0.0, "feedback"), (0.0, "feedback")),
        ("42", "41", Told(None, "42"), (1.0, "feedback"), (0.0, "feedback")),
        ("41", "42", Told(0.3, "42"), (0.3, "feedback"), (1.0, "feedback")),
        (PROSE, OTHER, Told(0.8), (0.8, "feedback"), TOP),
        (PROSE, "42", Told(None, OTHER), (None, "judge"), (None, "judge")),
    ],
)
def test_what_the_client_said_goes_before_all(small, large, told, small_grade, large_grade):
    case = known(said("small", small, role="answer"), large, told=told, passed={"small": False})
    assert shown(case) == [small_grade, large_grade]


def test_answers_beside_a_correction_in_free_text_are_judged_by_it():
    case = known(PROSE, OTHER, told=Told(None, "It rains.\nBecause of the clouds."))
    assert agreement.wanted(case) == {"small": "judge", "large": "judge"}
    assert agreement.reference(case).text.startswith("It rains")
    assert shown(replace(case, verdicts={"small": Verdict(1.0), "large": Verdict(0.0)})) == [(1.0, "judge"), (0.0, "judge")]


def test_an_answer_that_only_resembles_the_scored_one_by_a_later_question_is_not_graded_by_it():
    case = known(said("small", "42", role="fill"), "42", told=Told(0.0))
    assert shown(case) == [(0.0, "feedback"), TOP]


def test_beside_a_top_tier_that_is_known_to_be_wrong_only_the_same_answer_is_graded():
    wrong = replace(known("42", "41"), passed={"large": False})
    assert shown(wrong) == [(None, "agreement"), (0.0, "tests")]
    assert shown(replace(known("41", "41"), passed={"large": False})) == [(0.0, "agreement"), (0.0, "tests")]


def test_tests_that_came_with_the_request_go_before_agreement():
    case = known("def f(): ...", "def f(): return 1", passed={"small": True, "large": True})
    assert shown(case) == [(1.0, "tests"), (1.0, "tests")]
    assert shown(replace(case, passed={"small": None, "large": True}))[0] == (0.0, "agreement")  # they could not tell


@pytest.mark.parametrize("large", [None, "", said("large", PROSE, "length"), said("large", "no JSON")])
def test_without_a_good_answer_of_the_top_tier_there_is_nothing_to_compare_with(large):
    case = known("42", large, body=JSON if large and large.text == "no JSON" else {}, missing={"large": "takes 9 tokens"})
    (small, top) = agreement.grades(case).values()
    assert (small.score, top.score) == (None, None) and small.detail.startswith("nothing to compare with") and top.detail


def test_a_tier_without_an_answer_has_no_score_and_the_reason():
    case = replace(known(None, "42"), missing={"small": "takes no tools"})
    (small, top) = agreement.grades(case).values()
    assert small.score is None and small.detail == "takes no tools" and top.score == 1.0


def test_every_grade_says_why():
    for case in (known("42", "42"), known("41", "42", told=Told(1.0)), known(PROSE, OTHER), known("41", "42", sure=False)):
        assert all(grade.detail for grade in agreement.grades(case).values())


@pytest.mark.parametrize("calls", ["no list", [None], [{"function": None}], [{"function": {"name": 7}}], [{}]])
def test_whatever_a_tier_wrote_as_calls_is_compared_without_an_error(calls):
    case = known(said("small", "42", tool_calls=calls), "42")
    assert agreement.grades(case)["small"].score in (0.0, 1.0)


def test_json_that_is_nested_too_deeply_cannot_be_compared():
    deep = '{"a": ' * 900 + "1" + "}" * 900
    assert shown(known(deep, deep.replace("1", "2"), body=JSON))[0][0] in (None, 0.0)


@pytest.mark.parametrize("mean, sure", [(-0.5, True), (-0.81, False), (-0.8, True), (None, False)])
def test_the_top_tier_is_sure_above_the_lower_fifth_of_its_own_answers(mean, sure):
    assert agreement.is_sure(mean, [-i / 100 for i in range(101)]) is sure
    assert not agreement.is_sure(mean, [-0.9] * 19)
