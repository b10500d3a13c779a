from dataclasses import replace

import pytest
from kept_rows import NAMES, kept_rows

from router.flywheel.rows import dataset as ds
from router.flywheel.rows.dataset import build
from router.flywheel.rows.sides import held_out
from router.flywheel.served import Grade

pytestmark = pytest.mark.slow
DAY = 86_400.0
LATE = 1e9


def made(rows, **given):
    return build(rows, NAMES, given.pop("now_s", LATE), given.pop("seed", 0), **given)


def ids(rows):
    return {row.trace_id for row in rows}


# -- sides ----------------------------------------------------------------------------------------------------------------------


def test_the_oldest_train_the_newest_test_and_certificates_come_between():
    found = made(kept_rows(400))
    held = {row.trace_id for row in found.certify if held_out(row)}
    new = [row.at_s for row in found.certify if row.trace_id not in held]
    assert max(row.at_s for row in found.train) < min(new) < max(new) < min(row.at_s for row in found.test)
    assert 150 < len(found.train) < 215 and 115 < len(found.certify) < 160 and 50 <= len(found.test) <= 60


def test_one_conversation_in_eight_is_never_trained_on():
    found = made(kept_rows(400))
    assert not any(held_out(row) for row in found.train)
    assert 0.08 < sum(held_out(row) for row in kept_rows(2_000)) / 2_000 < 0.17


def test_a_gap_is_left_out_between_the_sides():
    found = made(kept_rows(400, every_s=DAY / 4))
    begins = min(row.at_s for row in found.test)
    assert all(begins - row.at_s > 3_600 for row in found.certify)


def test_rows_that_were_not_drawn_teach_and_prove_nothing():
    rows = [replace(row, drawn=i % 2 == 0, chance=0.1 if i % 2 == 0 else 1.0) for i, row in enumerate(kept_rows(400))]
    found = made(rows)
    assert any(not row.drawn for row in found.train)
    assert all(row.drawn for row in (*found.certify, *found.test))
    assert {found.weights[row.trace_id] for row in found.train if row.drawn} == {10.0}
    assert {found.weights[row.trace_id] for row in found.train if not row.drawn} == {1.0}


def test_a_request_for_a_tier_by_name_proves_nothing_about_auto():
    found = made([replace(row, wanted="large" if i % 3 else "auto:balanced") for i, row in enumerate(kept_rows(300))])
    assert found.certify and all(row.wanted == "auto:balanced" for row in (*found.certify, *found.test))


def test_no_conversation_and_no_near_duplicate_stands_on_two_sides():
    rows = kept_rows(400)
    rows = [replace(row, conversation=f"c{i * 7 % 97}") if i % 3 else row for i, row in enumerate(rows)]
    rows = [replace(row, messages=rows[i // 2].messages) if i % 5 == 0 else row for i, row in enumerate(rows)]
    found = made(rows)
    sides = (found.train, found.certify, found.test)
    kinds = (lambda row: row.conversation or row.trace_id, lambda row: str(row.messages), lambda row: found.groups[row.trace_id])
    for kind in kinds:
        seen = [{kind(row) for row in side} for side in sides]
        assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    talks = [row.conversation for row in found.certify if row.conversation]
    assert len(talks) == len(set(talks))


def test_an_application_that_asks_in_one_long_form_can_be_learned_from():
    form = "please classify the following review of our shop as good, bad or neutral, and answer with that one word: "
    words = ["fine", "poor", "late", "nice", "slow", "warm", "cold", "dear"]
    said = [f"{words[i % 8]} {words[i // 8 % 8]} {words[i // 64 % 8]}" for i in range(400)]
    rows = [replace(row, messages=({"role": "user", "content": form + s},)) for row, s in zip(kept_rows(400), said, strict=True)]
    assert min(made(rows).counts.values()) > 40


def test_after_a_retired_certificate_only_newer_rows_prove_and_the_older_teach_less():
    rows = kept_rows(600)
    since = rows[300].at_s
    found = made(rows, since_certify_s=since)
    assert all(row.at_s >= since for row in (*found.certify, *found.test))
    old = [row for row in found.train if row.at_s < since]
    assert old and len(old) < len(found.train)
    assert {found.weights[row.trace_id] for row in old} == {ds.OLD_WEIGHT}


def test_a_log_without_a_drawn_row_has_nothing_to_certify_with():
    found = made([replace(row, drawn=False) for row in kept_rows(100)])
    assert found.counts["certify"] == found.counts["test"] == 0 and found.counts["train"] > 50


def test_an_empty_log_is_an_empty_dataset():
    assert made([]).counts == {"train": 0, "certify": 0, "test": 0}


# -- the same again -------------------------------------------------------------------------------------------------------------


def test_the_same_rows_and_seed_give_the_same_digest_in_any_order():
    rows = kept_rows(300)
    assert made(rows).digest == made(list(reversed(rows))).digest
    assert made(rows).digest != made(rows, seed=1).digest
    other = replace(rows[0], grades={**rows[0].grades, "small": Grade(0.5, "judge")})
    assert made(rows).digest != made([other, *rows[1:]]).digest


def test_rows_that_came_later_change_nothing():
    rows = kept_rows(300)
    assert made(rows[:200], now_s=rows[199].at_s).digest == made(rows, now_s=rows[199].at_s).digest


def test_it_says_what_the_truth_rests_on_and_which_rows_it_is_made_of():
    found = made(kept_rows(200))
    assert found.rests_on == {"agreement": 1.0}
    assert set(found.trace_ids) == ids((*found.train, *found.certify))
    assert found.requests_a_day == pytest.approx(1_440, rel=0.02)


# -- caps -----------------------------------------------------------------------------------------------------------------------


def test_a_key_teaches_at_most_its_share_if_there_are_others(monkeypatch):
    monkeypatch.setattr(ds, "KEY_FLOOR", 10)
    rows = [replace(row, key_id="big" if i % 2 else f"k{i % 10}") for i, row in enumerate(kept_rows(600))]
    found = made(rows)
    of_big = sum(row.key_id == "big" for row in found.train)
    assert 0 < of_big <= 0.2 * len(found.train)
    assert sum(row.key_id == "big" for row in found.certify) > 0.3 * len(found.certify)
    assert found.left_out["beyond what one key may teach"] > 50


def test_a_key_may_always_give_as_many_rows_as_the_floor():
    rows = [replace(row, key_id="big" if i % 2 else f"k{i % 10}") for i, row in enumerate(kept_rows(600))]
    assert "beyond what one key may teach" not in made(rows).left_out


def test_a_log_of_one_key_is_used_whole(monkeypatch):
    monkeypatch.setattr(ds, "KEY_FLOOR", 10)
    found = made(kept_rows(300))
    assert "beyond what one key may teach" not in found.left_out
    assert "fewer than 5 keys with 20 training rows, so no key is capped" in found.notes


def test_templates_are_capped_only_above_the_floor_and_if_there_are_others(monkeypatch):
    whole = made(kept_rows(600))
    assert "beyond what one template may teach" not in whole.left_out
    monkeypatch.setattr(ds, "TEMPLATE_FLOOR", 20)
    assert made(kept_rows(600)).digest == whole.digest
    monkeypatch.setattr(ds, "FEWEST_TEMPLATES", 2)
    assert made(kept_rows(600)).left_out["beyond what one template may teach"] > 100
