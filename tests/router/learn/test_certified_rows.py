"""Rows that prove something: each once, by its weight, and none that was trained on."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from answer_rows import answered_rows
from outcome_rows import write_jsonl

from classifiers.sufficiency import hash_texts
from router.decide import certificates as ct
from router.errors import BadInput
from router.learn import evaluation as ev
from router.learn.calibration import solve
from router.learn.certified_rows import by_weight, certifiable
from router.learn.evidence import read_seen
from router.learn.inputs import measured_rows, read_all
from router.learn.measures import measure
from router.learn.outcomes import join, read_outcomes

NAMES = {"small": "small", "medium": "medium", "large": "large"}
TIERS = list(NAMES)


def file(tmp_path, lines, name="rows.jsonl"):
    return write_jsonl(tmp_path / name, lines)


def table(tmp_path, lines):
    return measured_rows([file(tmp_path, lines)], None, TIERS, None, None)


def untrained(*texts):
    known = hash_texts(list(texts))
    return SimpleNamespace(trained_on=lambda prompts: np.isin(hash_texts(list(prompts)), known))


def renamed(lines, start):
    """The same prompts and replies under other ids, with other costs and times."""
    again = [{**line, "id": f"again{start + i}"} for i, line in enumerate(lines)]
    return [{**row, "outcomes": {n: {**o, "cost_usd": o["cost_usd"] * 2} for n, o in row["outcomes"].items()}} for row in again]


# -- duplicates ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [2, 8])
def test_rows_given_again_count_once_within_a_file_and_across_files(tmp_path, times):
    lines = answered_rows(30)
    many = [*lines, *(row for i in range(1, times) for row in renamed(lines, 1000 * i))]
    one_file = table(tmp_path, many)
    assert (len(one_file), one_file.repeated) == (30, 30 * (times - 1))
    paths = [file(tmp_path, many[30 * i : 30 * (i + 1)], f"{i}.jsonl") for i in range(times)]
    for found in (measured_rows(paths, None, TIERS, None, None), read_all(paths, "small,medium,large")):
        assert (len(found), found.repeated) == (30, 30 * (times - 1))
        assert found.ids.tolist() == [row["id"] for row in lines]


def test_the_same_file_named_twice_is_one_file(tmp_path):
    path = file(tmp_path, answered_rows(20))
    assert len(measured_rows([path, path], None, TIERS, None, None)) == 20


def test_another_reply_to_the_same_prompt_is_another_row(tmp_path):
    lines = answered_rows(10)
    other = {**lines[0], "id": "other", "outcomes": {**lines[0]["outcomes"]}}
    other["outcomes"]["small"] = {**other["outcomes"]["small"], "answer": "another answer"}
    found = table(tmp_path, [*lines, other])
    assert (len(found), found.repeated) == (11, 0)
    seen = read_seen([tmp_path / "rows.jsonl"], NAMES, found)
    assert len(seen.signals) == 11


def test_files_that_name_rows_alike_keep_their_own_answers(tmp_path):
    """Two labellings of the same prompts under the same ids, with other answers."""
    first, second = answered_rows(10, seed=1), answered_rows(10, seed=1)
    for row in second:
        row["outcomes"]["small"] = {**row["outcomes"]["small"], "answer": "wrong", "mean_logprob": -9.0}
    paths = [file(tmp_path, first, "a.jsonl"), file(tmp_path, second, "b.jsonl")]
    both = join([read_outcomes(path, NAMES) for path in paths])
    seen = read_seen(paths, NAMES, both)
    assert len(both) == 20
    assert (seen.signals[10:, 0, 0] == -9.0).all() and (seen.signals[:10, 0, 0] != -9.0).all()


def test_scores_alone_tell_rows_apart_where_there_are_no_replies(tmp_path):
    lines = [{"prompt": "p", "score|small": s, "score|large": 1.0, "cost|small": 1, "cost|large": 2} for s in (0.0, 1.0, 0.0)]
    found = read_all([file(tmp_path, lines)], "small,large")
    assert (len(found), found.repeated) == (2, 1)


# -- rows that were trained on -------------------------------------------------------------------------------------------------


def test_rows_that_were_trained_on_make_no_certificate(tmp_path):
    found = table(tmp_path, answered_rows(40))
    kept, left = certifiable(untrained(*found.texts[:15]), found)
    assert (len(kept), left.trained_on) == (25, 15) and not set(kept.texts) & set(found.texts[:15])
    assert "15 rows were trained on" in " ".join(left.lines())
    with pytest.raises(BadInput, match=r"all 40 complete rows were trained on.*label fresh prompts"):
        certifiable(untrained(*found.texts), found)


# -- weights -------------------------------------------------------------------------------------------------------------------


def weighted(lines, weights):
    return [{**line, "weight": float(w)} for line, w in zip(lines, weights, strict=True)]


@pytest.mark.parametrize("weight", [0.25, 1.0, 8.0])
def test_rows_of_one_weight_all_count_once_whatever_it_is(tmp_path, weight):
    kept, left = certifiable(untrained(), table(tmp_path, weighted(answered_rows(40), [weight] * 40)))
    assert len(kept) == 40 and left.by_weight == 0 and (kept.shares == 1).all()


@pytest.mark.slow
def test_rows_are_drawn_in_proportion_to_their_weights(tmp_path):
    lines = answered_rows(2000)
    found = table(tmp_path, weighted(lines, [1.0] * 1000 + [0.25] * 900 + [0.0] * 100))
    kept, left = certifiable(untrained(), found)
    heavy, light, none = ((kept.weights == w).sum() for w in (1.0, 0.25, 0.0))
    assert heavy == 1000 and none == 0 and 225 - 45 <= light <= 225 + 45
    assert left.by_weight == 2000 - len(kept) and "weight" in " ".join(left.lines())
    backwards = found.take(np.arange(1999, -1, -1))
    assert by_weight(backwards)[::-1].tolist() == by_weight(found).tolist()  # the row decides, not its place


@pytest.mark.slow
def test_the_bound_holds_for_the_traffic_that_weights_describe():
    """A tenth of the rows stand for half of the traffic, and there the small model is worse: certify must see that."""
    broken = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        rare = random.random(3000) < 0.1
        loss = (random.random(3000) < np.where(rare, 0.12, 0.0)).astype(float)
        weights, u = np.where(rare, 9.0, 1.0), random.random(3000)
        kept = u < weights / weights.max()
        found = ct.certify(np.full(int(kept.sum()), 0.9), loss[kept], 0.05, 0.1)
        broken += isinstance(found, ct.Certificate)
        assert isinstance(ct.certify(np.full(3000, 0.9), loss, 0.05, 0.1), ct.Certificate)  # without weights: 0.012
    assert broken / 60 <= 0.1 + 0.08  # the true risk is 0.06


def test_rows_of_weight_zero_stand_for_nothing(tmp_path):
    with pytest.raises(BadInput, match="weight 0"):
        certifiable(untrained(), table(tmp_path, weighted(answered_rows(20), [0.0] * 20)))


def test_a_weight_of_two_measures_like_the_row_given_twice(tmp_path):
    plain = table(tmp_path, answered_rows(60))
    p = np.random.default_rng(0).random((60, 3))
    double = np.where(np.arange(60) < 20, 2.0, 1.0)
    made = plain.take(np.repeat(np.arange(60), double.astype(int)))
    heavy = measure(p, plain.costs, replace(plain, weights=double), n_draws=2)
    twice = measure(p[np.repeat(np.arange(60), double.astype(int))], made.costs, made, n_draws=2)
    for name in ("apgr", "auc[small]", "brier[large]", "ece[medium]", "cpt80"):
        assert heavy[name][0] == pytest.approx(twice[name][0], rel=0.02, abs=0.01), name
    assert replace(plain, weights=double).relative_costs() == pytest.approx(made.relative_costs())
    assert ev.effective(double) == pytest.approx(80**2 / (20 * 4 + 40))


@pytest.mark.slow
def test_a_target_is_solved_for_the_traffic_that_weights_describe(tmp_path):
    found = table(tmp_path, answered_rows(300))
    p = np.clip(found.scores + np.random.default_rng(1).normal(0, 0.3, found.scores.shape), 0.01, 0.99)
    p[:, -1] = 0.99
    hard = np.where(found.scores[:, 0] < 1, 20.0, 1.0)
    given = {"quality": None, "cost": None, "large_share": 0.3}
    plain, heavy = (solve(p, found.costs, t, **given) for t in (found, replace(found, weights=hard)))
    assert heavy.expected_cost != plain.expected_cost
