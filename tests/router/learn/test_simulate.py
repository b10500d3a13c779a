"""Answers in outcome tables, what is learned of them, simulate, and calibrate --alpha."""

import json

import numpy as np
import pyarrow as pa
import pytest
from answer_rows import answered_rows
from click.testing import CliRunner
from outcome_rows import rows, write_jsonl
from pyarrow import parquet
from synthetic import make_ladder

from classifiers import Rule, load
from classifiers.replies.posterior import fit_posterior
from classifiers.replies.signals import SIGNALS
from deployments.cli.main import main
from router.cascade.next_step import AskTiers, plan, step
from router.decide import certificates as ct
from router.learn.evidence import read_seen
from router.learn.outcomes import join, read_outcomes
from router.learn.simulate import Rows, States, all_tiers, cascade, cross_play, frontier_of, play, play_all

pytestmark = pytest.mark.slow  # trains again and again: with each other two fifths of what the quick tests took

NAMES = {"small": "small", "medium": "medium", "large": "large"}


def stepdown(*words, code=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_jsonl(tmp_path_factory.mktemp("data") / "outcomes.jsonl", answered_rows(300))


@pytest.fixture(scope="module")
def artefact(tmp_path_factory, table):
    folder = tmp_path_factory.mktemp("trained") / "artefact"
    said = stepdown("train", table, "--tiers", "small,medium,large", "-o", folder, "--classifier", "linear", "--no-report")
    assert "auto:cheap, looking at answers" in said
    return folder


# -- reading ---------------------------------------------------------------------------------------------------------------


def test_jsonl_answers_are_read_row_for_row(table):
    outcomes = read_outcomes(table, NAMES).take(np.arange(299, -1, -1))
    seen = read_seen([table], NAMES, outcomes)
    made = answered_rows(300)[::-1]
    np.testing.assert_allclose(seen.signals[:, 0, SIGNALS.index("mean")], [r["outcomes"]["small"]["mean_logprob"] for r in made])
    told = [r["outcomes"]["small"]["answer"] == r["outcomes"]["large"]["answer"] for r in made]
    assert seen.agree[:, 0, 2].tolist() == told and np.isnan(seen.agree[:, 2, 0]).all()
    assert seen.prefix is not None and np.isnan(seen.prefix[..., SIGNALS.index("length")]).all()


def test_parquet_predictions_are_read_and_missing_ones_are_no_answer(tmp_path):
    columns = {
        "id": ["a", "b", "c"],
        "prompt": ["x", "y", "z"],
        "score|s": [1.0, 0.0, None],
        "score|l": [1.0, 1.0, 1.0],
        "cost|s": [0.1] * 3,
        "cost|l": [1.0] * 3,
        "pred|s": ["1,000", None, "5"],
        "pred|l": ["1000", "7", "5.0"],
        "out_tok|s": [10, 20, 30],
        "out_tok|l": [10, 20, 30],
    }
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    names = {"small": "s", "large": "l"}
    seen = read_seen([tmp_path / "t.parquet"], names, read_outcomes(tmp_path / "t.parquet", names))
    assert seen.agree[:, 0, 1].tolist()[::2] == [1.0, 1.0] and np.isnan(seen.agree[1, 0, 1])
    assert seen.signals[:2, 0, SIGNALS.index("has_answer")].tolist() == [1.0, 0.0]
    assert np.isnan(seen.signals[2, 0]).all()  # was not run
    assert np.isnan(seen.signals[0, 0, 0]) and seen.prefix is None  # gave no log-probabilities


def test_rows_of_several_files_find_their_own_answers(tmp_path):
    one = write_jsonl(tmp_path / "a.jsonl", answered_rows(30, seed=1))
    two = write_jsonl(tmp_path / "b.jsonl", answered_rows(30, seed=2))  # the same ids again, other prompts
    outcomes = join([read_outcomes(path, NAMES) for path in (one, two)])
    whole = read_seen([one, two], NAMES, outcomes)
    parts = [read_seen([path], NAMES, read_outcomes(path, NAMES)) for path in (one, two)]
    np.testing.assert_array_equal(whole.signals, np.concatenate([part.signals for part in parts]))


def test_older_tables_without_the_newer_statistics_are_read(tmp_path):
    lines = answered_rows(40)
    for line in lines:
        for outcome in line["outcomes"].values():
            for key in ("p25_logprob", "p50_logprob", "first_margin", "first_logprobs"):
                del outcome[key]
    path = write_jsonl(tmp_path / "old.jsonl", lines)
    seen = read_seen([path], NAMES, read_outcomes(path, NAMES))
    assert np.isfinite(seen.signals[..., 0]).all() and np.isnan(seen.signals[..., SIGNALS.index("q25")]).all()
    assert seen.prefix is None


def test_scores_alone_are_no_answers(tmp_path):
    path = write_jsonl(tmp_path / "plain.jsonl", rows(40))
    names = {"small": "s", "large": "l"}
    assert read_seen([path], names, read_outcomes(path, names)) is None


# -- playing ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ladder():
    return make_ladder(500)


@pytest.fixture(scope="module")
def posterior(ladder):
    return ladder.posterior(slice(350))


def rows_of(ladder, part=slice(None)):
    at = np.arange(len(ladder.y))[part]
    return Rows(ladder.prior[at], ladder.guessed[at], ladder.seen.take(at), ladder.y[at], ladder.costs[at])


@pytest.mark.parametrize("price", [0.0, 0.02, 0.1, 0.5])
@pytest.mark.parametrize("best_of", [True, False])
def test_what_is_played_is_what_is_served(ladder, posterior, price, best_of):
    ground, part = all_tiers(3, best_of), slice(350, None)
    played = play(States(posterior, rows_of(ladder, part)), plan(posterior, price, ground))
    for i in range(150):
        answered, row = {}, 350 + i
        given = (ladder.prior[row], ladder.guessed[row], answered, Rule("cascade", price), posterior, (0, 1, 2))
        while isinstance(taken := step(*given, best_of=best_of), AskTiers):
            answered.update({k: ladder.answers[row][k] for k in taken.tiers})
        assert taken.tier == played.tier[i] and taken.chance == pytest.approx(played.chance[i])
        assert len(answered) == played.calls[i]
        assert sum(ladder.costs[row, k] for k in answered) == pytest.approx(played.cost[i])


def test_a_cascade_pays_for_every_tier_on_the_way(ladder, posterior):
    given = rows_of(ladder)
    never, always = (cascade(States(posterior, given), bar) for bar in (0.0, 1.01))
    assert (never.tier == 0).all() and (always.tier == 2).all()
    np.testing.assert_allclose(never.cost, given.costs[:, 0])
    np.testing.assert_allclose(always.cost, given.costs.sum(axis=1))


def test_both_reach_the_quality_for_less(ladder, posterior):
    given = rows_of(ladder, slice(350, None))
    weights = np.ones((1, len(given)))
    cost = {name: frontier_of(p, given, weights).cost_at(0.97)[0] for name, p in play_all(posterior, given).items()}
    assert cost["both"] < cost["routing"] and cost["both"] < cost["cascading"]


def test_cross_play_judges_each_row_by_what_did_not_see_it(ladder):
    given = rows_of(ladder, slice(200))
    fold = np.arange(200) % 5
    (found,) = cross_play(given, fold, [0.1])
    part = given.take(fold != 0)
    other = rows_of(ladder, slice(200)).take(fold == 0)
    learned = fit_posterior(part.prior, part.guessed, part.seen, part.scores, part.costs, fold[fold != 0])
    alone = play(States(learned, other), plan(learned, 0.1, all_tiers(3)))
    np.testing.assert_array_equal(found.tier[fold == 0], alone.tier)


# -- commands --------------------------------------------------------------------------------------------------------------


def test_train_learns_what_answers_tell(artefact, table):
    loaded = load(artefact)
    assert loaded.posterior is not None and "full:0" in loaded.posterior.heads and "prefix:1" in loaded.posterior.heads
    assert loaded.cascades and all(rule.kind == "cascade" for rule in loaded.cascades.values())
    for name, rule in loaded.cascades.items():
        assert rule.expected_cost < loaded.rules[name].expected_cost


@pytest.mark.slow
def test_training_again_gives_the_same_bytes(artefact, table, tmp_path):
    words = ("--tiers", "small,medium,large", "-o", tmp_path / "again", "--classifier", "linear", "--no-report")
    stepdown("train", table, *words)
    assert (tmp_path / "again" / "answers.skops").read_bytes() == (artefact / "answers.skops").read_bytes()


def test_simulate_prints_figures_and_draws(artefact, tmp_path):
    fresh = write_jsonl(tmp_path / "fresh.jsonl", answered_rows(200, seed=7))
    found = json.loads(stepdown("simulate", artefact, fresh, "--json", "-o", tmp_path / "picture.png"))
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"
    cost = {name: by["95"][0] for name, by in found["cost_at"].items()}
    assert cost["both"] < cost["cascading"] and cost["both"] < cost["routing"] + 0.02
    assert "as served" in stepdown("simulate", artefact, fresh)


def test_simulate_says_that_rows_were_trained_on(artefact, table):
    assert "300 of these rows were trained on" in stepdown("simulate", artefact, table)


def test_simulate_wants_answers(artefact, tmp_path):
    lines = answered_rows(40)
    for line in lines:
        line["outcomes"] = {k: {"score": o["score"], "cost_usd": o["cost_usd"]} for k, o in line["outcomes"].items()}
    bare = write_jsonl(tmp_path / "bare.jsonl", lines)
    assert "hold no answers" in stepdown("simulate", artefact, bare, code=2)
    stepdown("train", bare, "--tiers", "small,large", "-o", tmp_path / "plain", "--classifier", "length", "--no-report")
    assert "knows no answers" in stepdown("simulate", tmp_path / "plain", bare, "--tiers", "small,large", code=2)


def test_calibrate_writes_a_certificate(artefact, tmp_path):
    fresh = write_jsonl(tmp_path / "fresh.jsonl", answered_rows(300, seed=8))
    name = "cheap"
    said = stepdown("calibrate", artefact, fresh, "--alpha", "0.1", "--name", name)
    assert "certified" in said and "threshold" in said and "must be sent up" in said
    loaded = load(artefact)
    found = ct.find_certificate(loaded.manifest, name)
    assert isinstance(found, ct.Certificate) and found.bound <= 0.1 and found.n == 300
    assert loaded.cascades[name].threshold == found.threshold
    assert "auto:cheap, certified  worse than the top tier in at most 10.0%" in stepdown("show", artefact)
    here = {"sampling": {"temperature": 0.0}, "score": ct.score_fingerprint(loaded.manifest, name)}
    assert ct.state_of(found, here) == "valid"
    assert ct.state_of(found, {**here, "score": "another"}) == "stale"


def test_calibrate_measures_harmless_differences_and_names_what_the_certificate_cannot_know(artefact, tmp_path):
    fresh = write_jsonl(tmp_path / "fresh.jsonl", answered_rows(300, seed=8))
    said = stepdown("calibrate", artefact, fresh, "--alpha", "0.1", "--name", "cheap")
    assert "made without --config" in said and "stale on every served ladder" in said
    found = ct.find_certificate(load(artefact).manifest, "cheap")
    assert 0 < found.harmless < 1 and 0 < found.comparable <= found.coverage
    served = {"models": {"small": "a"}, "score": found.fingerprints["score"]}
    assert ct.state_of(found, served) == "stale"


def test_calibrate_counts_each_row_once_and_none_that_was_trained_on(artefact, table, tmp_path):
    lines = answered_rows(200, seed=8)
    again = [{**line, "id": f"again{i}"} for i, line in enumerate(lines)]
    fresh, twice = write_jsonl(tmp_path / "fresh.jsonl", lines), write_jsonl(tmp_path / "twice.jsonl", [*lines, *again])
    once = json.loads(stepdown("calibrate", artefact, fresh, "--alpha", "0.1", "--name", "cheap", "--json"))
    for files in ((twice,), (fresh, twice), (fresh, table)):
        more = json.loads(stepdown("calibrate", artefact, *files, "--alpha", "0.1", "--name", "cheap", "--json"))
        assert [more[k] for k in ("n", "k", "bound")] == [once[k] for k in ("n", "k", "bound")]
    assert more["left_out"]["trained_on"] == 300
    said = stepdown("calibrate", artefact, fresh, twice, "--alpha", "0.1", "--name", "cheap")
    assert "left out: 400 rows were given before (same prompt and replies)" in said
    assert "all 300 complete rows were trained on" in stepdown(
        "calibrate", artefact, table, "--alpha", "0.1", "--name", "cheap", code=2
    )
    assert "count once" in stepdown("evaluate", artefact, twice)


def test_calibrate_makes_a_certificate_of_streams_beside_that_of_whole_answers(artefact, tmp_path):
    fresh = write_jsonl(tmp_path / "fresh.jsonl", answered_rows(300, seed=8))
    before = load(artefact)
    said = stepdown("calibrate", artefact, fresh, "--alpha", "0.2", "--name", "cheap", "--holdback")
    assert "auto:cheap, streamed under holdback" in said and "certified" in said
    loaded = load(artefact)
    found = ct.find_certificate(loaded.manifest, "cheap:holdback")
    assert isinstance(found, ct.Certificate) and found.fingerprints["prefix"] == loaded.posterior.prefix == 16
    assert found.fingerprints["score"] == ct.score_fingerprint(loaded.manifest, "cheap", 16)
    assert found.fingerprints["score"] != ct.score_fingerprint(loaded.manifest, "cheap")
    assert loaded.cascades == before.cascades  # its threshold is for streams alone
    assert ct.find_certificate(loaded.manifest, "cheap") == ct.find_certificate(before.manifest, "cheap")
    assert "give --alpha too" in stepdown("calibrate", artefact, fresh, "--quality", "0.9", "--holdback", code=2)


def test_streams_cannot_be_certified_without_the_first_tokens(artefact, tmp_path):
    lines = answered_rows(60, seed=8)
    for line in lines:
        for outcome in line["outcomes"].values():
            del outcome["first_logprobs"]
    bare = write_jsonl(tmp_path / "bare.jsonl", lines)
    said = stepdown("calibrate", artefact, bare, "--alpha", "0.2", "--name", "cheap", "--holdback", code=2)
    assert "do not hold the log-probabilities of the first 16 tokens" in said
    stepdown("train", bare, "--tiers", "small,medium,large", "-o", tmp_path / "a", "--classifier", "linear", "--no-report")
    said = stepdown("calibrate", tmp_path / "a", bare, "--alpha", "0.2", "--name", "cheap", "--holdback", code=2)
    assert "no heads on first tokens for 2 of the 2 tiers" in said


def test_calibrate_says_what_it_cannot_promise(artefact, tmp_path):
    few = write_jsonl(tmp_path / "few.jsonl", answered_rows(30, seed=9))
    name = "cheap"
    said = stepdown("calibrate", artefact, few, "--alpha", "0.01", "--name", name, code=3)
    assert "infeasible" in said and "every request now goes to the top tier" in said
    loaded = load(artefact)
    assert ct.state_of(ct.find_certificate(loaded.manifest, name), {}) == "infeasible" and loaded.cascades[name].threshold > 1
    assert "is not one of" in stepdown("calibrate", artefact, few, "--alpha", "0.1", "--name", "x", code=2)
    assert "give one of" in stepdown("calibrate", artefact, few, "--alpha", "0.1", "--quality", "0.9", code=2)
