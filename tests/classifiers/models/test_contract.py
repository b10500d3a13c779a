"""Every classifier of CLASSIFIERS keeps the same contract."""

import numpy as np
import pytest

from classifiers import CLASSIFIERS, BadTraining, NotTrained, Sufficiency
from classifiers.artifact import rebuild
from classifiers.models.embedded import Embedded, Read
from classifiers.models.linear import pooled
from classifiers.models.platt import platt
from classifiers.pretrained import language, minilm
from classifiers.sufficiency import STEEPER, calibrate
from classifiers.text.familiar import fit_familiar, novelty, unfamiliar
from classifiers.text.view import View

pytestmark = pytest.mark.slow

# Both that may be behind `embed`, each where its extra is installed; reading takes seconds.
SLOW = {"embed: MiniLM": (Embedded, minilm), "embed: SmolLM2": (Read, language)}
MAKE = {**CLASSIFIERS, **{name: make for name, (make, _) in SLOW.items()}}
NAMES = [name for name in CLASSIFIERS if name != "embed"] + [
    pytest.param(name, marks=pytest.mark.slow) for name, (_, extra) in SLOW.items() if extra.available()
]
EASY, HARD = "what is {} plus {}", "prove that the integral of x^{} over the group of order {} is a real number"


def table(n: int = 120, seed: int = 0):
    """Half easy sums that both tiers answer, half proofs that the small tier mostly fails."""
    random = np.random.default_rng(seed)
    hard = random.random(n) < 0.5
    texts = [(HARD if h else EASY).format(*random.integers(1, 99, 2)) for h in hard]
    y = np.stack([np.where(hard, random.random(n) < 0.1, random.random(n) < 0.9), random.random(n) < 0.9], axis=1)
    return texts, y.astype(float), hard


@pytest.fixture(scope="module")
def rows():
    return table()


@pytest.fixture(scope="module", params=NAMES)
def fitted(request, rows):
    texts, y, _ = rows
    return MAKE[request.param]().fit(texts, y)


def test_chances_have_one_column_a_tier_and_lie_in_0_1(fitted):
    p = fitted.predict_proba(["what is 1 plus 2", "", "x" * 20_000, "\ud800", "été 数学 🎉\x00"])
    assert p.shape == (5, 2)
    assert ((p >= 0) & (p <= 1)).all()


def test_no_texts_give_no_rows(fitted):
    assert fitted.predict_proba([]).shape == (0, 2)


def test_one_text_and_many_give_the_same(fitted, rows):
    texts = rows[0][:70]
    single = np.concatenate([fitted.predict_proba([text]) for text in texts])
    assert np.allclose(single, fitted.predict_proba(texts), atol=1e-6)


def test_learns_what_is_hard_for_the_small_tier(fitted, rows):
    texts, _, hard = rows
    p = fitted.predict_proba(texts)[:, 0]
    assert p[~hard].mean() > p[hard].mean() + 0.2


@pytest.mark.slow
def test_fitting_twice_gives_the_same(fitted, rows):
    texts, y, _ = rows
    again = type(fitted)(**fitted.get_params()).fit(texts, y)
    assert np.array_equal(again.predict_proba(texts[:20]), fitted.predict_proba(texts[:20]))


def test_state_is_plain_and_comes_back(fitted, rows):
    back = rebuild(fitted.state())
    assert np.array_equal(back.predict_proba(rows[0][:20]), fitted.predict_proba(rows[0][:20]))


def test_explains_in_log_odds_by_tier(fitted):
    for name, moved in fitted.explain("prove that 3 is prime").items():
        assert name and np.shape(moved) == (2,)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_missing_and_graded_scores_and_weights_are_taken(name, rows):
    texts, y, hard = rows
    graded = np.where(y > 0, 0.8, 0.3)
    graded[::3, 1] = np.nan
    model = MAKE[name]().fit(texts, graded, np.linspace(0.5, 2, len(texts)))
    p = model.predict_proba(texts)
    assert 0.25 < p.mean() < 0.85


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_tier_that_always_wins_is_near_one(name, rows):
    texts, y, _ = rows
    y = y.copy()
    y[:, 1] = 1
    assert (MAKE[name]().fit(texts, y).predict_proba(texts[:10])[:, 1] > 0.85).all()


@pytest.mark.parametrize("name", NAMES)
def test_asked_before_fit_it_says_so(name):
    with pytest.raises(NotTrained, match="fit"):
        MAKE[name]().predict_proba(["x"])


@pytest.mark.parametrize(
    "y, said", [(np.zeros((2, 2)), "3 texts"), (np.full((3, 2), np.nan), "no score"), (np.full((3, 2), 1.5), "expected")]
)
def test_refuses_rows_that_teach_nothing(y, said):
    with pytest.raises(BadTraining, match=said):
        CLASSIFIERS["length"]().fit(["a", "b", "c"], y)


def test_a_view_computes_the_same_for_rows_picked_later(rows):
    view = View(rows[0])
    picked = view.take(np.array([5, 2, 100]))
    fresh = View([rows[0][i] for i in (5, 2, 100)])
    assert np.array_equal(picked.hand, fresh.hand)
    assert all(np.array_equal(getattr(picked.words, f), getattr(fresh.words, f)) for f in ("starts", "bucket", "count"))


def test_an_unfamiliar_text_gets_the_tiers_means(rows):
    texts, y, _ = rows
    model = Sufficiency("linear", n_folds=3).fit(texts, y)
    strange = "Αλφα βήτα γάμμα; def f(x): return {x: [1,2,3]} % $$$ \\frac{}{} |||| " * 40
    logits, _, unfamiliar = model.assess(View([texts[0], strange]))
    assert unfamiliar[0] < 0.5 and unfamiliar[1] == 1
    assert np.allclose(1 / (1 + np.exp(-logits[1])), np.clip(model.prior_, 0.01, 0.99))


def test_costs_are_guessed_from_the_text_and_add_up(rows):
    texts, y, hard = rows
    costs = np.stack([np.where(hard, 0.02, 0.01), np.where(hard, 0.9, 0.1)], axis=1)
    costs[::7, 0] = np.nan
    _, guessed, _ = Sufficiency("length", n_folds=2).fit(texts, y, costs=costs).assess(View(texts))
    assert guessed[:, 1].mean() == pytest.approx(1.0, abs=0.02)
    assert guessed[hard, 1].mean() > 5 * guessed[~hard, 1].mean()


def test_a_free_tier_costs_nothing(rows):
    texts, y, _ = rows
    costs = np.tile([0.0, 0.5], (len(texts), 1))
    _, guessed, _ = Sufficiency("length", n_folds=2).fit(texts, y, costs=costs).assess(View(texts))
    assert np.allclose(guessed, [0, 1], atol=1e-6)


def test_tiers_share_one_slope_of_calibration_and_keep_their_own_means():
    random = np.random.default_rng(0)
    z = random.normal(0, 2, (4000, 3))
    y = (random.random(z.shape) < 1 / (1 + np.exp(-(0.5 * z + [1.0, 0.0, -1.0])))).astype(float)
    y[::5, 1] = np.nan
    slope, offset = platt(z, y, np.ones(len(z)))
    assert slope == pytest.approx(0.5, abs=0.05) and offset == pytest.approx([1.0, 0.0, -1.0], abs=0.15)


def test_the_top_tier_spreads_a_little_more_and_every_mean_is_kept():
    random = np.random.default_rng(0)
    z = random.normal(1, 1, (4000, 3))
    y = (random.random(z.shape) < 1 / (1 + np.exp(-z))).astype(float)
    slope, offset = calibrate(z, y, np.ones(len(z)))
    assert slope / slope[0] == pytest.approx([1, 1 + STEEPER / 2, 1 + STEEPER])
    assert (1 / (1 + np.exp(-z * slope - offset))).mean(axis=0) == pytest.approx(y.mean(axis=0), abs=0.005)


def test_one_wild_feature_makes_no_stranger_of_a_prompt(rows):
    view = View(rows[0])
    fitted = fit_familiar(view, np.arange(len(view)) % 3)
    wild, usual = View(["?" * 3000 + rows[0][0]]), novelty(fitted, view)[:, 1]
    unbound = {key: value for key, value in fitted.items() if key != "reach"}  # as artefacts before had it
    assert usual.max() < novelty(fitted, wild)[0, 1] < novelty(unbound, wild)[0, 1] / 2
    assert 0 <= unfamiliar(fitted, wild)[0] <= 1


def test_pooled_coefficients_score_the_mean_text_as_before():
    coef, bias, centre = np.array([[1.0, 3.0], [0.0, -2.0]]), np.array([0.1, 0.2]), np.array([0.5, 2.0])
    pulled, moved = pooled(coef, bias, centre, own=0.5)
    assert np.allclose(pulled, [[1.5, 2.5], [-0.5, -1.5]])
    assert np.allclose(centre @ pulled + moved, centre @ coef + bias)
