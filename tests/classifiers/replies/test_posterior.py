"""Chances after answers: heads by set of answered tiers, missing evidence, agreement, and saving and loading."""

import hashlib
import json

import numpy as np
import pytest
import skops.io
from sklearn.metrics import roc_auc_score
from synthetic import make_ladder

from classifiers import BadArtifact, Rule, Sufficiency, load, save
from classifiers.errors import BadTraining
from classifiers.replies.answers import final_answer, normal, same
from classifiers.replies.posterior import Posterior, restore
from classifiers.replies.signals import AGREEMENT, LOGPROB_SIGNALS, SIGNALS, Evidence, signals, statistics


@pytest.fixture(scope="module")
def ladder():
    return make_ladder(900)


@pytest.fixture(scope="module")
def posterior(ladder) -> Posterior:
    return ladder.posterior(slice(600))


@pytest.mark.parametrize(
    "a, b, agree",
    [
        ("42", "42.0", True),
        ("1,234", "1234", True),
        ("$5", "5", True),
        ("50%", "50", True),
        ("0.5", ".5", True),
        ("1,2", "12", False),
        ("(b)", "B", True),
        ("B)", "B", True),
        ("A", "B", False),
        ("Yes.", "yes", True),
        ("{'a': 1}", '{"a":1}', True),
        ('{"a": 1, "b": 2}', '{"b":2,"a":1}', True),
        ("[1, 2]", "[1,2]", True),
        ("cat", "dog", False),
        ("1e400", "5", False),
        ("None", "5", None),
        ("", "5", None),
        (None, None, None),
    ],
)
def test_answers_agree_by_value(a, b, agree):
    assert same(normal(a), normal(b)) is agree


@pytest.mark.parametrize(
    "reply, answer",
    [
        ("42", "42"),
        ("So 3 + 4 is 7.\n#### 7", "7"),
        (r"Thus \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("We see that\nthe answer is: B) because ...", "B"),
        ('```json\n{"b": 1}\n```', '{"b":1}'),
        ("  Paris ", "paris"),
        ("Once upon a time\nthere was a king.", None),
        ("x" * 300, None),
        ("", None),
        ("Answer:", None),
    ],
)
def test_final_answer(reply, answer):
    assert final_answer(reply) == answer


def test_statistics_are_lower_quantiles():
    assert statistics([-1.0]) == (-1.0,) * 5
    assert statistics([-4.0, -1.0, -2.0, -3.0]) == (-2.5, -4.0, -4.0, -3.0, -2.0)


def test_an_answer_sharpens_the_chance_of_its_own_tier_and_of_larger_ones(ladder, posterior):
    test = slice(600, None)
    for tiers in ((0,), (0, 1)):
        p = posterior.chances_of(ladder.prior[test], ladder.seen.take(np.arange(600, 900)), tiers)
        for k in range(3):
            before = roc_auc_score(ladder.y[test, k], ladder.prior[test, k])
            assert roc_auc_score(ladder.y[test, k], p[:, k]) > before + (0.05 if k in tiers else 0.0)
        assert abs(p.mean(0) - ladder.y[test].mean(0)).max() < 0.08


@pytest.mark.parametrize("tiers", [(0,), (1,), (0, 1), (0, 1, 2)])
def test_one_request_is_judged_as_the_rows_are(ladder, posterior, tiers):
    rows = np.arange(600, 640)
    p = posterior.chances_of(ladder.prior[rows], ladder.seen.take(rows), tiers)
    cost = posterior.costs_of(ladder.guessed[rows], ladder.seen.take(rows), tiers)
    for i, row in enumerate(rows):
        answered = {k: ladder.answers[row][k] for k in tiers}
        np.testing.assert_allclose(posterior.chances(ladder.prior[row], answered), p[i], atol=1e-9)
        np.testing.assert_allclose(posterior.costs(ladder.guessed[row], answered), cost[i], rtol=1e-9)
        if len(tiers) == 1:
            assert posterior.chance(tiers[0], ladder.prior[row], answered[tiers[0]]) == pytest.approx(p[i, tiers[0]])


@pytest.mark.slow
def test_no_log_probabilities_are_a_state_of_their_own(ladder, posterior):
    prior = np.array([0.5, 0.6, 0.8])
    sure = Evidence(8, answer="42", logprobs=(-0.001,) * 8, first_margin=9.0)
    torn = Evidence(8, answer="42", logprobs=(-3.0,) * 8, first_margin=0.1)
    none = Evidence(8, answer="42")
    low, middle, high = (posterior.chance(0, prior, e) for e in (torn, none, sure))
    assert low < middle < high and 0.25 < middle < 0.75
    without = make_ladder(200, logprobs=False).posterior()
    assert without.chance(0, prior, sure) == without.chance(0, prior, none)


def test_prefixes_have_heads_of_their_own(ladder, posterior):
    prior = np.array([0.5, 0.6, 0.8])
    sure, torn = (Evidence(40, logprobs=(v,) * 40, first_margin=1.0) for v in (-0.001, -2.0))
    assert posterior.chance(0, prior, torn, prefix=16) < posterior.chance(0, prior, sure, prefix=16)
    assert posterior.chance(0, prior, sure, prefix=8) == prior[0]  # trained on 16: another prefix proves nothing
    assert posterior.chance(0, prior, Evidence(40), prefix=16) == prior[0]
    late = Evidence(40, logprobs=(-0.001,) * 16 + (-5.0,) * 24, first_margin=1.0)
    assert posterior.chance(0, prior, late, prefix=16) == pytest.approx(posterior.chance(0, prior, sure, prefix=16))
    assert np.isnan(signals(sure, 16)[len(LOGPROB_SIGNALS) :]).all()


def test_agreement_counts_and_free_text_has_none(ladder, posterior):
    prior = np.array([0.5, 0.6, 0.8])
    one, same_one, other = Evidence(9, answer="7"), Evidence(9, answer="7"), Evidence(9, answer="8")
    agreed, differing = (posterior.chances(prior, {0: one, 1: e}) for e in (same_one, other))
    assert agreed[0] > 0.8 > 0.4 > differing[0] and agreed[2] > differing[2]
    told = posterior.chances(prior, {0: Evidence(9, agrees=True), 1: Evidence(9)})
    assert told[1] > 0.6
    prose = {0: Evidence(300), 1: Evidence(300)}
    np.testing.assert_array_equal(posterior.chances(prior, prose), posterior.chances(prior, {1: prose[1]}))


def test_state_is_plain_and_comes_back_the_same(ladder, posterior):
    again = restore(skops.io.loads(skops.io.dumps(posterior.state()), trusted=[]))
    answered = {0: ladder.answers[0][0], 1: ladder.answers[0][1]}
    np.testing.assert_array_equal(again.chances(ladder.prior[0], answered), posterior.chances(ladder.prior[0], answered))
    assert again.prefix == 16 and set(again.known) == set(posterior.known)


@pytest.mark.slow
def test_long_ladders_know_pairs():
    ladder = make_ladder(200, costs=(0.02, 0.05, 0.1, 0.4, 1.0))
    posterior = ladder.posterior()
    assert (0, 1, 2) not in posterior.sets and posterior.reduce((0, 1, 2)) == (1, 2)
    three, two = ({k: ladder.answers[0][k] for k in tiers} for tiers in ((0, 1, 2), (1, 2)))
    np.testing.assert_array_equal(posterior.chances(ladder.prior[0], three), posterior.chances(ladder.prior[0], two))


def test_too_few_rows_are_refused():
    with pytest.raises(BadTraining, match="at least 20"):
        make_ladder(10).posterior()


@pytest.fixture
def folder(ladder, posterior, tmp_path):
    texts = [f"prompt number {i} of many" for i in range(40)]
    model = Sufficiency("length").fit(texts, ladder.y[:40])
    cascades = {"cheap": {"kind": "cascade", "value": 0.2}}
    manifest = {"tiers": ["a", "b", "c"], "costs": [0.1, 0.2, 1.0], "rules": {}, "cascades": cascades}
    save(tmp_path / "artefact", model, manifest, posterior)
    return tmp_path / "artefact"


def change(folder, **values):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **values}))


def test_an_artefact_holds_it_and_its_hash_is_checked(folder):
    found = load(folder)
    assert found.posterior is not None and found.cascades["cheap"] == Rule("cascade", 0.2)
    save(folder.with_name("plain"), found.model, found.manifest)
    assert load(folder.with_name("plain")).posterior is None
    with (folder / "answers.skops").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BadArtifact, match=r"answers\.skops: sha256"):
        load(folder)


@pytest.mark.parametrize(
    "kind, names, said",
    [
        (
            "signals",
            [*SIGNALS[:-1], "entropy"],
            "other signals than this version's: found entropy, expected truncated; train again",
        ),
        ("signals", [*SIGNALS, "entropy"], "found entropy, expected none; train again"),
        ("agreement", [*AGREEMENT[:2]], r"found none, expected agree_odds_a, agree_odds_b, agree_length_a \.\.\.; train again"),
    ],
)
def test_heads_for_other_signals_are_refused_by_name(folder, kind, names, said):
    inputs = json.loads((folder / "manifest.json").read_text())["inputs"]
    change(folder, inputs={**inputs, kind: names})
    with pytest.raises(BadArtifact, match=said):
        load(folder)


def test_heads_without_names_are_refused_by_their_size(folder):
    change(folder, format=4, inputs=None)
    assert load(folder).posterior is not None
    state = skops.io.load(folder / "answers.skops", trusted=[])
    head = state["heads"]["full:0,1"]
    state["heads"]["full:0,1"] = {**head, **{part: head[part][:-4] for part in ("coef", "mean", "scale")}}
    skops.io.dump(state, folder / "answers.skops")
    change(folder, answers_sha256=hashlib.sha256((folder / "answers.skops").read_bytes()).hexdigest())
    with pytest.raises(BadArtifact, match="head full:0,1 takes 35 numbers, this version gives it 39; train again"):
        load(folder)
