"""The gates of a trained student, on made-up answers of which it is known how good they are."""

import json
from collections import Counter

import numpy as np
import pytest
from student_rows import answer, learned

from router.distil.evaluation import NOT_ANSWERED, NOT_COMPARABLE, Draws, compare, failing_slices, score
from router.distil.gates import not_proved, passed, report, student_gates

pytestmark = pytest.mark.slow
KINDS = ("facts", "sums", "letters", "dates")


def rows(n=600, bad=("facts",), **changes):
    """Test rows of four kinds of tasks; of the bad ones the student has four of five wrong."""
    found = []
    for i in range(n):
        kind = KINDS[i % 4]
        right = i % 5 == 0 if kind in bad else i % 25 != 0
        found.append(learned(i, right, slices={"task": kind, "form": "text"}, **changes))
    return found


ROWS = rows()
KNOWN = [learned(10_000 + i, row.kind == "success", slices=row.slices) for i, row in enumerate(ROWS[:200])]


def said(row, right, tokens=4):
    return answer("small", row.answer["content"] if right else "0", tokens=tokens)


def before(some=ROWS):
    return {row.id: said(row, row.kind == "success") for row in some}


def gates(after, some=ROWS, known=KNOWN, old=None):
    found = compare(some, old or before(some), after, known)
    made = student_gates(found)
    return {gate.name: gate for gate in made}, report(found, made)


def draws(seed):
    return np.random.default_rng(seed).random(len(ROWS))


def test_a_model_that_is_better_on_one_slice_passes():
    luck = draws(0)
    after = {row.id: said(row, row.kind == "success" or luck[i] < 0.5) for i, row in enumerate(ROWS)}
    found, whole = gates(after)
    assert all(gate.passed for gate in found.values()) and whole["passed"]
    gain = found["gain"]
    assert gain.numbers["slices"] == ["task=facts"] and gain.numbers["n"] == 150 and gain.numbers["low"] > 0.25
    assert gain.numbers["after"] > gain.numbers["before"] + 0.3 and "task=facts" in gain.why
    facts = whole["slices"]["task=facts"]
    assert facts["won"] == gain.numbers["won"] and facts["lost"] == 0 and json.loads(json.dumps(whole)) == whole


def test_what_failures_alone_do_fails_the_gate_lost():
    luck = draws(1)
    after = {row.id: said(row, luck[i] > 0.26 if row.kind == "success" else luck[i] < 0.6) for i, row in enumerate(ROWS)}
    found, whole = gates(after)
    assert found["gain"].passed and not found["lost"].passed and not whole["passed"]
    assert 0.2 < found["lost"].numbers["share"] < 0.32 and "5% may be" in found["lost"].why


def test_noise_fails_the_gate_gain():
    luck = draws(2)
    after = {row.id: said(row, luck[i] > 0.02 if row.kind == "success" else luck[i] < 0.005) for i, row in enumerate(ROWS)}
    found, _ = gates(after)
    assert not found["gain"].passed and found["lost"].passed and 0 < found["lost"].numbers["lost"] < 20


def test_the_same_model_gains_nothing_and_loses_nothing():
    found, whole = gates(before())
    assert not found["gain"].passed and found["gain"].numbers["gain"] == 0
    assert found["lost"].passed and found["lost"].numbers["lost"] == 0 and found["lost"].numbers["high"] > 0.005
    assert "task=facts" in found["capacity"].numbers["slices"] and found["capacity"].passed
    assert "task=facts" in found["capacity"].why and whole["slices"]["all"]["won"] == 0


@pytest.mark.parametrize(("share", "good"), [(0.12, False), (0.04, True)])
def test_a_slice_that_is_lost_fails_although_over_all_it_is_little(share, good):
    some, luck = rows(2_000), np.random.default_rng(3).random(2_000)
    gone = {row.id for i, row in enumerate(some) if row.slices["task"] == "dates" and luck[i] < share}
    after = {row.id: said(row, row.id not in gone and (row.kind == "success" or i % 3 == 0)) for i, row in enumerate(some)}
    lost = gates(after, some)[0]["lost"]
    assert lost.numbers["high"] < 0.05 and lost.passed is good
    assert ("of task=dates" in lost.why) is not good


def test_few_rows_without_a_loss_do_not_prove_that_little_is_lost():
    some = ROWS[:40]
    found, _ = gates({row.id: said(row, True) for row in some}, some, [])
    assert not found["lost"].passed and found["lost"].numbers["lost"] == 0 and found["lost"].numbers["high"] > 0.05


def test_twice_as_long_answers_fail_the_form():
    after = {row.id: said(row, True, tokens=8) for row in ROWS}
    found, _ = gates(after)
    assert not found["form"].passed and "8.0 tokens an answer, 3.6 to 4.4 are allowed" in found["form"].why


def test_a_student_that_learns_its_teachers_length_may_grow_as_long():
    some = [learned(i, row.kind == "success", slices=row.slices, teacher_tokens=8) for i, row in enumerate(ROWS)]
    assert gates({row.id: said(row, True, tokens=8) for row in some}, some)[0]["form"].passed


def test_broken_json_fails_the_form():
    shape = {"response_format": {"type": "json_object"}}
    some = [
        learned(
            i, row.kind == "success", slices=row.slices, sampling=shape, answer={"role": "assistant", "content": f'{{"n": {i}}}'}
        )
        for i, row in enumerate(ROWS)
    ]
    old = {row.id: said(row, row.kind == "success") if row.kind == "success" else answer("small", '{"n": -1}') for row in some}
    broken = {row.id: answer("small", row.answer["content"][: -1 if i % 5 == 0 else None]) for i, row in enumerate(some)}
    found, _ = gates(broken, some, old=old)
    assert not found["form"].passed and "valid JSON 80%, before 100%" in found["form"].why


def test_lost_calls_of_tools_and_empty_answers_fail_the_form():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    learn = {"role": "assistant", "content": None, "tool_calls": [call]}
    some = [learned(i, row.kind == "success", slices=row.slices, answer=learn) for i, row in enumerate(ROWS)]
    calls = {row.id: answer("small", "") for row in some}
    old = {id: type(one)(**{**{n: getattr(one, n) for n in one.__slots__}, "message": learn}) for id, one in calls.items()}
    found, _ = gates({row.id: answer("small", "I would call f" if i % 2 else "") for i, row in enumerate(some)}, some, old=old)
    why = found["form"].why
    assert (
        not found["form"].passed and "calls of tools where they are due 0%, before 100%" in why and "refused or empty 50%" in why
    )


def test_too_few_rows_decide_nothing():
    found, whole = gates(before(ROWS[:10]), ROWS[:10])
    assert not any(gate.passed for gate in found.values()) and "at least 20 are needed" in found["gain"].why
    assert not passed(list(found.values())) and whole["rows"] == 10


def test_what_cannot_be_compared_is_counted_and_a_judge_decides_it():
    prose = "It depends on many things, as the history of the town shows; " * 5
    some = [learned(i, slices={}, answer={"role": "assistant", "content": f"{prose} {i}"}) for i in range(30)]
    other = {row.id: answer("small", f"Well, {prose}") for row in some}
    missing = dict(list(other.items())[:25])
    assert compare(some, other, missing).left_out == {NOT_ANSWERED: 5, NOT_COMPARABLE: 25}
    judged = compare(some, other, other, judge=lambda row, given: 0.5)
    assert len(judged.rows) == 30 and set(judged.old) == {0.5}


def test_failing_slices_are_found_on_other_rows_than_those_that_test():
    assert failing_slices(KNOWN) == {"task=facts"}
    assert failing_slices(KNOWN[:40]) == set()  # ten rows of each task are too few
    found = compare(ROWS, before(), before(), [])
    assert found.is_failing.all()


def test_an_empty_or_cut_answer_is_worth_nothing():
    assert score(ROWS[5], answer("small", "")) == 0 and score(ROWS[5], answer("small", "5")) == 1
    assert score(ROWS[5], answer("small", "5", finish="length")) == 0


def test_rows_of_one_group_are_drawn_together_and_count_by_weight():
    alone = Draws([learned(i) for i in range(100)])
    together = Draws([learned(i, group=f"g{i % 10}") for i in range(100)])
    values = np.array([float(i % 10 < 5) for i in range(100)])
    assert alone.mean(values)[1:].std() < 0.5 * together.mean(values)[1:].std()
    assert together.effective(np.ones(100, dtype=bool)) == pytest.approx(10)
    heavy = Draws([learned(0, weight=3.0), learned(1)])
    assert heavy.mean(np.array([1.0, 0.0]))[0] == pytest.approx(0.75)


def test_holm_asks_more_of_the_first_than_of_the_last():
    assert not_proved({"a": 0.01, "b": 0.024, "c": 0.05}) == []
    assert not_proved({"a": 0.01, "b": 0.03, "c": 0.05}) == ["b", "c"]
    assert not_proved({"a": 0.02, "b": 0.02, "c": 0.02}) == ["a", "b", "c"]
    assert Counter(not_proved({})) == {}
