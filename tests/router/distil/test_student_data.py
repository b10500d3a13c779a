"""From candidates to a data folder's rows: failures, more successes, and three sides that share nothing."""

from collections import Counter
from dataclasses import replace

import pytest
from student_rows import answer, asked, collected, log

from router.distil.card import card
from router.distil.dataset import build, summary
from router.errors import BadInput
from router.flywheel.rows import dataset as flywheel_rows
from router.flywheel.rows.sides import held_out

pytestmark = pytest.mark.slow
WORDS = "amber birch cedar delta ember fjord grove heron inlet jetty knoll larch maple north ochre pearl quartz ridge".split()


def worded(i):
    """A text unlike the others: no two share many words."""
    return " ".join(WORDS[(i * k + i // 7 * k * k) % len(WORDS)] + str(i) for k in range(1, 6))


ROWS = log(800)


def test_all_failures_train_and_up_to_twice_as_many_successes():
    found = build(collected(ROWS))
    kinds = found.counts["train"]
    assert 100 < kinds["failure"] < kinds["success"] <= 2 * kinds["failure"]
    old = [row for row in ROWS if row.at_s < min(row.at_s for row in found.dev if not held_out(as_served(row)))]
    failures = [row for row in old if row.grades["small"].score == 0 and not held_out(row)]
    assert kinds["failure"] >= 0.97 * len(failures)  # the gap between the sides takes some


def as_served(row):
    return next(one for one in ROWS if one.trace_id == row.id)


def test_what_a_row_stands_for_is_kept():
    rows = [replace(row, chance=0.5) for row in ROWS]
    found = build(collected(rows))
    failures = {row.weight for row in found.train if row.kind == "failure"}
    successes = {row.weight for row in found.train if row.kind == "success"}
    assert failures == {2.0} and len(successes) == 1 and 2.5 < successes.pop() < 3.5
    assert {row.weight for row in (*found.dev, *found.test)} == {2.0}


def test_test_and_dev_are_the_traffic_as_it_came():
    found = build(collected(ROWS))
    share = found.counts["test"]["failure"] / len(found.test)
    assert 0.2 < share < 0.3 and 150 <= len(found.test) <= 160 and len(found.dev) > 75


def test_sides_follow_each_other_in_time_with_a_gap():
    found = build(collected([replace(row, at_s=900.0 * i) for i, row in enumerate(ROWS)]))
    newer = [row.at_s for row in found.dev if not held_out(as_served(row))]
    assert max(row.at_s for row in found.train) + 3_600 < min(newer)
    assert max(newer) + 3_600 < min(row.at_s for row in found.test)


def test_one_conversation_in_eight_is_never_trained_on():
    found = build(collected(ROWS))
    assert not any(held_out(as_served(row)) for row in found.train)
    assert sum(held_out(as_served(row)) for row in found.dev) > 30


def test_no_conversation_and_no_near_duplicate_stands_on_two_sides():
    rows = [replace(row, conversation=f"c{i % 200}") for i, row in enumerate(log(800))]
    rows += [replace(asked(i, text=f"{worded(i % 90)} and now tell me"), trace_id=f"again {i}") for i in range(800, 1_000)]
    found = build(collected(rows))
    sides = {side: {row.group for row in some} for side, some in found.sides.items()}
    assert not (sides["train"] & sides["test"] or sides["train"] & sides["dev"] or sides["dev"] & sides["test"])
    assert found.left_out["like one of dev or test"] > 0
    texts = {side: {row.messages[-1]["content"] for row in some} for side, some in found.sides.items()}
    assert not (texts["train"] & texts["test"] or texts["dev"] & texts["test"])


def test_numbers_make_two_tasks_of_one_text():
    found = build(collected(log(400)))
    assert len({row.group for row in found.rows}) == len(found.rows)


def test_rows_that_were_not_drawn_teach_and_test_nothing():
    rows = [replace(row, drawn=i % 2 == 0) for i, row in enumerate(log(1_200, wrong=3))]
    found = build(collected(rows))
    assert any(not row.drawn for row in found.train) and all(row.drawn for row in (*found.dev, *found.test))


def test_a_request_for_a_tier_by_name_is_no_fair_test():
    rows = [replace(row, wanted="large" if i % 2 else "auto") for i, row in enumerate(log(1_200, wrong=3))]
    assert {int(row.id, 16) % 2 for row in build(collected(rows)).test} == {0}


def test_the_same_rows_and_seed_give_the_same_hash_and_others_another():
    one, again = build(collected(ROWS)), build(collected(ROWS[::-1]))
    assert one.sha256 == again.sha256 and one == again
    assert one.sha256 != build(collected(ROWS, seed=1)).sha256
    assert one.sha256 != build(collected(ROWS[:-1])).sha256


def test_another_seed_draws_other_successes_and_the_same_failures():
    one, other = build(collected(ROWS)), build(collected(ROWS, seed=1))
    ids = [
        {kind: {row.id for row in found.train if row.kind == kind} for kind in ("failure", "success")} for found in (one, other)
    ]
    assert ids[0]["failure"] == ids[1]["failure"] and ids[0]["success"] != ids[1]["success"]
    assert one.test == other.test


def test_one_key_teaches_at_most_its_share(monkeypatch):
    monkeypatch.setattr(flywheel_rows, "KEY_FLOOR", 5)
    rows = [replace(row, key_id="big" if i % 3 else f"k{i % 10}") for i, row in enumerate(log(1_600, wrong=2))]
    found = build(collected(rows))
    count = Counter(row.key_id for row in found.train if row.kind == "failure")
    assert 0 < count["big"] <= 0.2 * count.total() and found.left_out["beyond what one key may teach"] > 50
    assert Counter(row.key_id for row in found.test)["big"] > 0.5 * len(found.test)


def test_the_student_is_asked_where_it_has_not_answered():
    rows = [replace(row, drawn=row.drawn and i % 2 == 0) for i, row in enumerate(log(1_200, wrong=3))]
    rows = [asked(i, student=False, drawn=False) if i % 2 else row for i, row in enumerate(rows)]
    asked_for = []

    def ask(some):
        asked_for.extend(row.trace_id for row in some)
        return {row.trace_id: answer("small", "no idea") for row in some[10:]}

    found = build(collected(rows), ask)
    assert asked_for and all(int(id, 16) % 2 for id in asked_for) and found.left_out["the student has not answered it"] == 10
    assert any(row.student.message["content"] == "no idea" and row.kind == "failure" for row in found.train)
    alone = build(collected(rows))
    assert alone.left_out["the student has not answered it"] == len(asked_for)


def test_corrections_are_learned_beside_failures():
    corrections = {row.trace_id: "four" for row in ROWS[:40]}
    found = build(collected(ROWS, corrections))
    assert found.counts["train"]["correction"] > 25 and found.licences["correction"] > 25
    kinds = found.counts["train"]
    assert kinds["success"] == 2 * (kinds["failure"] + kinds["correction"])


def test_too_little_to_learn_or_to_test_says_what_is_missing():
    with pytest.raises(BadInput, match=r"requests that the student answers worse than its teacher, at least 20"):
        build(collected(log(400, wrong=10_000)))
    with pytest.raises(BadInput, match=r"0 drawn requests to test on, at least 20 are needed.*fill_share"):
        build(collected([replace(row, drawn=False) for row in log(800, wrong=2)]))
    with pytest.raises(BadInput, match="at least 20"):
        build(collected([]))


def test_a_card_says_what_the_folder_holds():
    found = build(collected(ROWS))
    about = {"student": {"tier": "small"}, "teacher": {"tier": "large"}}
    text = card({**about, **summary(found)})
    assert "for small, from the answers of large" in text and found.sha256 in text and "apache-2.0: " in text
