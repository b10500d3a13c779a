"""Answers of new weights graded by the kept answers of the top tier; and which rows may make a router for them."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from kept_rows import kept_rows

from router.distil.fair_rows import TRAINED_ON, fair
from router.distil.regrading import NO_ANSWER, NOT_COMPARABLE, regraded
from router.distil.training_costs import training_usd
from router.flywheel.rows.sides import held_out
from router.flywheel.served import Answer, Grade
from router.tier_settings import Price

TIERS = ("small", "medium", "large")
SURE = Grade(1.0, "agreement", "agrees with the top tier, which is sure")


def row_with(text="4", top="4", medium=SURE, own=None):
    found = kept_rows(1)[0]
    answers = {name: replace(one, message={"role": "assistant", "content": top}) for name, one in found.answers.items()}
    grades = {"small": Grade(1.0, "agreement"), "medium": medium, "large": own or Grade(1.0, "top")}
    return replace(found, answers=answers, grades=grades), answer(text)


def answer(text):
    return Answer("small", "fill", {"role": "assistant", "content": text}, "stop", 5, 1, 0.5)


def made(row, given):
    found = regraded([row], "small", {row.trace_id: given} if given else {}, TIERS)
    return (found.rows[0].grades["small"].score if found.rows else None), list(found.left_out)


def test_the_same_as_the_top_tiers_is_right_and_another_is_wrong():
    assert made(*row_with("4")) == (1.0, []) and made(*row_with("5")) == (0.0, []) and made(*row_with("")) == (0.0, [])


def test_the_new_answer_takes_the_place_of_the_old_one():
    row, given = row_with("5")
    found = regraded([row], "small", {row.trace_id: given}, TIERS).rows[0]
    assert found.answers["small"] == given and found.answers["medium"] == row.answers["medium"]
    assert found.grades["medium"] == row.grades["medium"]


def test_what_only_a_judge_could_compare_is_left_out_and_counted():
    free, other = "One sentence after another.\n" * 10, "Quite other words, which may mean the same.\n" * 10
    assert made(*row_with(free, other)) == (None, [NOT_COMPARABLE])
    assert made(row_with()[0], None) == (None, [NO_ANSWER])


def test_where_the_top_tier_was_not_sure_to_differ_proves_nothing():
    row, given = row_with("5", medium=Grade(0.0, "agreement", "it is empty"))
    row = replace(row, grades={**row.grades, "small": Grade(0.0, "agreement", "it is empty")})
    bare = {name: replace(one, signals={}) for name, one in row.answers.items()}
    assert made(replace(row, answers=bare), given) == (None, ["the top tier was not sure of its answer"])


def test_beside_an_answer_that_was_not_good_only_the_same_one_is_known():
    bad = Grade(0.0, "feedback", "scored")
    assert made(*row_with("4", own=bad)) == (0.0, [])
    assert made(*row_with("5", own=bad))[0] is None


def test_the_clients_tests_are_not_run_here():
    assert made(*row_with("4", medium=Grade(1.0, "tests")))[0] is None


def test_a_router_learns_from_no_row_of_the_time_that_taught_the_student_but_those_that_never_teach():
    rows = kept_rows(400, every_s=60.0)
    trained = {row.trace_id for row in rows[:200] if not held_out(row)}
    found, left = fair(rows, trained, rows[199].at_s)
    assert {row.trace_id for row in found} == {row.trace_id for row in rows[200:]} | {
        row.trace_id for row in rows[:200] if held_out(row)
    }
    assert left == {TRAINED_ON: len(trained)} and 0 < 200 - len(trained) < 60


def test_what_was_chosen_around_the_training_rows_is_no_fair_sample_either():
    rows = kept_rows(400, every_s=60.0)
    found, _ = fair(rows, {rows[10].trace_id}, rows[199].at_s)
    assert all(held_out(row) or row.at_s > rows[199].at_s for row in found)


def test_a_training_costs_its_time_or_else_its_tokens():
    class Tier:
        accelerators = 2
        price = Price(usd_per_accelerator_hour=3.6)

    assert training_usd(Tier(), 100.0, 10**6) == 0.2
    Tier.price = Price(usd_per_1m_input=0.5, usd_per_1m_output=2.0)
    assert training_usd(Tier(), 100.0, 10**6) == 1.5
