"""Measures on cases that can be done by hand."""

import numpy as np
import pytest

from router.learn import evaluation as ev
from router.learn.calibration import for_cost, for_large_share, for_quality, menu, named_rules
from router.learn.outcomes import Outcomes

COST = np.array([0.1, 1.0])
ONE = np.ones((1, 4))
SMALL, LARGE = np.array([1.0, 0.0, 1.0, 0.0]), np.array([1.0, 1.0, 1.0, 0.0])


def outcomes(small, large, costs=(0.1, 1.0)):
    n = len(small)
    return Outcomes(
        tiers=["small", "large"],
        ids=np.arange(n).astype(str),
        texts=np.array(["x"] * n, dtype=object),
        scores=np.stack([small, large], axis=1).astype(float),
        costs=np.tile(costs, (n, 1)),
        weights=np.ones(n),
        tasks=np.array(["t"] * n),
        splits=np.array([""] * n),
        groups=np.arange(n).astype(str),
        helpers={},
    )


@pytest.mark.parametrize(
    "gain, area",
    [
        ([0, 1, 0, 0], 0.875),  # the one prompt that gains goes up first: half of the first quarter, then all
        ([0, 0, 0, 0], 0.5),  # no knowledge
        ([1, 0, 1, 1], 0.125),  # the one that gains goes last
    ],
)
def test_apgr_is_the_area_under_the_share_of_calls(gain, area):
    assert ev.apgr(np.array(gain, dtype=float), SMALL, LARGE, ONE)[0] == pytest.approx(area)


def test_cpt_is_the_first_share_that_recovers_enough():
    assert ev.cpt(np.array([0.0, 1, 0, 0]), SMALL, LARGE, ONE, 0.95)[0] == pytest.approx(0.25)


def test_auc_counts_ties_and_graded_scores_by_parts():
    assert ev.auc(np.array([0.1, 0.9, 0.9, 0.5]), np.array([0.0, 1, 0, 1]), ONE)[0] == pytest.approx(0.625)
    assert ev.auc(np.array([0.2, 0.8, 0.2, 0.8]), np.array([0.5, 0.5, 0.5, 0.5]), ONE)[0] == pytest.approx(0.5)


def test_ece_is_the_mean_gap_by_bin():
    assert ev.ece(np.array([0.05, 0.05, 0.95, 0.95]), np.array([0.0, 0, 1, 0]), ONE)[0] == pytest.approx(0.25)
    assert ev.brier(np.array([0.0, 1.0, 1.0, 0.5]), np.array([0.0, 1, 0, 1]), ONE)[0] == pytest.approx(0.3125)


def test_hull_rises_and_bends_down():
    x, y = ev.hull(np.array([0.1, 0.5, 0.4, 1.0, 0.6]), np.array([0.5, 0.6, 0.8, 0.9, 0.7]))
    assert (x.tolist(), y.tolist()) == ([0.1, 0.4, 1.0], [0.5, 0.8, 0.9])


def test_aiq_of_mixing_two_tiers_is_their_mean():
    assert ev.aiq(np.array([0.0, 1.0]), np.array([0.4, 0.8]), 0.0, 1.0) == pytest.approx(0.6)


def test_cost_at_a_quality_never_reached_is_not_a_number():
    assert ev.cost_at(np.array([0.0, 1.0]), np.array([0.4, 0.8]), 0.6) == pytest.approx(0.5)
    assert np.isnan(ev.cost_at(np.array([0.0, 1.0]), np.array([0.4, 0.8]), 0.9))


def test_arena_rewards_accuracy_and_cheapness():
    usd = np.array([0.0000044, 0.0000044, 0.2])
    score = ev.arena(np.array([1.0, 0.5, 1.0]), usd)
    assert score[0] == pytest.approx(1.0) and score[0] > score[1] > score[2] == pytest.approx(0.0)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    random, held = np.random.default_rng(0), 0
    for _ in range(60):
        y = (random.random(200) < 0.3).astype(float)
        weights = ev.draws(200, 200, seed=int(random.integers(1 << 30)))
        e = ev.estimate(weights @ y / weights.sum(axis=1))
        held += e.low <= 0.3 <= e.high
    assert held >= 50


def known(n=600, seed=0):
    """Prompts whose chances are known exactly, and outcomes drawn from them."""
    random = np.random.default_rng(seed)
    p = np.stack([random.random(n), np.full(n, 0.9)], axis=1)
    y = random.random((n, 2)) < p
    return p, outcomes(y[:, 0], y[:, 1])


def test_a_quality_is_promised_on_the_bound_and_costs_less_than_the_top():
    p, table = known()
    rule = for_quality(menu(p, COST, table), 0.95)
    assert rule.kind == "utility" and rule.quality_bound >= 0.95 and rule.expected_cost < 1


@pytest.mark.slow
def test_a_promise_is_mostly_kept_on_other_rows():
    kept = 0
    for seed in range(20):
        p, table = known(400, seed)
        rule = for_quality(menu(p, COST, table), 0.95)
        q, fresh = known(4000, seed + 1000)
        chosen = (q - rule.value * np.array([0.1, 1.0])).argmax(1)
        kept += fresh.scores[np.arange(4000), chosen].mean() >= 0.95 * fresh.scores[:, 1].mean()
    assert kept >= 18


def test_what_cannot_be_promised_is_the_top_tier():
    p, table = known(100)
    assert for_quality(menu(p, COST, table), 1.5).kind == "tier"


def test_cost_and_share_are_kept():
    p, table = known()
    found = menu(p, COST, table)
    assert for_cost(found, 0.4).expected_cost <= 0.4
    assert for_cost(found, 0.01).kind == "tier"
    i = int(np.flatnonzero(found.prices == for_large_share(found, 0.3).value)[0])
    assert found.large[i] <= 0.3


@pytest.mark.slow
def test_a_router_no_better_than_a_mix_is_switched_off():
    random = np.random.default_rng(0)
    y = random.random((300, 2)) < [0.6, 0.9]
    rules, gain = named_rules(random.random((300, 2)), COST, outcomes(y[:, 0], y[:, 1]))
    assert {rule.kind for rule in rules.values()} == {"tier"} or gain.low > 0
    rules, gain = named_rules(known(1500)[0], COST, known(1500)[1])
    assert gain.low > 0 and rules["cheap"].kind == "utility"


def test_a_few_lucky_rows_prove_nothing():
    """Thirty rows where the small tier was always right: a bootstrap of them has no spread."""
    p = np.tile([0.97, 0.97], (30, 1))
    assert for_quality(menu(p, COST, outcomes(np.ones(30), np.ones(30))), 0.98).kind == "tier"
    many = np.tile([0.97, 0.97], (600, 1))
    assert for_quality(menu(many, COST, outcomes(np.ones(600), np.ones(600))), 0.98).kind == "utility"


def test_luck_on_the_rows_does_not_outweigh_the_chances():
    """The small tier happened to win everywhere, but its chances, learned from more rows, say that it loses."""
    random = np.random.default_rng(0)
    p = np.stack([0.4 + 0.2 * random.random(200), np.full(200, 0.9)], axis=1)
    assert for_quality(menu(p, COST, outcomes(np.ones(200), np.ones(200))), 0.95).expected_cost > 0.8
