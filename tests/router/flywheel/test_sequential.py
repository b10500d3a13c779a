"""Bets on pairs: they may be looked at after every pair, and are wrong no more often than they promise."""

import json
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.sequential import Truth, rollback, shadow, stopped
from router.flywheel.sequential import BETS, Wealth, expected_pairs, log_gains

CLAIMS = ("not worse", "worse")
PAIRS = [-1.0, 0.0, 0.0, 0.5, 1.0, -0.25, None, 0.0]


def after(pairs, margin=0.01, claim="not worse"):
    made = Wealth(margin, claim)
    for d in pairs:
        made = made.update(d)
    return made


chances = st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda weights: sum(weights) > 0.01)


@pytest.mark.slow
@given(chances, st.data(), st.floats(0, 0.3), st.sampled_from(CLAIMS))
def test_no_bet_wins_in_the_mean_where_its_claim_is_false(weights, data, margin, claim):
    """So its wealth is a supermartingale from 1, which Ville's inequality is about."""
    p = np.array(weights) / sum(weights)
    d = np.array(data.draw(st.lists(st.floats(-1, 1), min_size=len(p), max_size=len(p))))
    drawn_with = np.array(data.draw(st.lists(st.floats(0.05, 1), min_size=len(p), max_size=len(p))))
    mean = float(p @ d)
    false = mean <= -margin if claim == "not worse" else mean >= -margin
    seen = p * drawn_with / (p @ drawn_with)  # among the requests that were drawn
    factors = [np.exp(log_gains(v, margin, claim, w)) for v, w in zip(d, drawn_with.min() / drawn_with, strict=True)]
    assert np.isfinite(np.log(factors)).all()
    if false:
        assert (seen @ np.array(factors) <= 1 + 1e-9).all()


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_order_of_the_pairs_does_not_matter(claim):
    pairs = PAIRS * 20
    shuffled = random.Random(1).sample(pairs, len(pairs))
    one, other = after(pairs, claim=claim), after(shuffled, claim=claim)
    assert one.wealth == pytest.approx(other.wealth) and (one.pairs, one.sum_d) == (other.pairs, pytest.approx(other.sum_d))


def test_what_cannot_be_graded_counts_and_bets_nothing():
    made = after([None, math.nan, None])
    assert (made.pairs, made.undecided, made.decided, made.wealth, made.mean_d) == (3, 3, 0, 1.0, None)


def test_no_pair_takes_everything_and_no_streak_overflows():
    assert after([-1.0] * 500).wealth > 0
    assert math.isfinite(after([1.0] * 1_500).wealth)
    assert after([-9.0]).wealth == after([-1.0]).wealth


def test_losses_speak_against_and_equal_pairs_speak_for_it():
    assert after([0.0] * 500).wealth > 20 > after([0.0] * 500 + [-1.0] * 12).wealth
    assert after([-1.0] * 20, claim="worse").wealth > 100
    assert after([0.0] * 500, claim="worse").wealth < 1


def test_a_pair_of_little_weight_moves_little():
    whole, part = (Wealth(0.01).update(-1.0, weight) for weight in (1.0, 0.1))
    assert whole.wealth < part.wealth < 1 and part.sum_d == whole.sum_d


def test_the_peak_stays_when_the_wealth_falls():
    made = after([0.0] * 500 + [-1.0] * 30)
    assert made.peak > 20 > 1 > made.wealth


def test_it_is_kept_as_json():
    made = after(PAIRS * 9)
    assert Wealth.from_json(json.loads(json.dumps(made.as_json()))).wealth == pytest.approx(made.wealth)
    old = Wealth.from_json({**made.as_json(), "logs": [3.0]})  # of another version's bets
    assert (old.pairs, old.wealth, old.peak) == (made.pairs, 1.0, 1.0)


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_simulation_bets_as_the_product_does(claim):
    truth = Truth("", claim, 0.02, 0.15 if claim == "worse" else 0.004, 0.01)
    found, drawn = stopped(truth, 1, 2_000, seed=3)[0], np.random.default_rng(3).random((1, 2_000))[0]
    made = Wealth(truth.margin, claim)
    for u in drawn:
        made = made.update(-1.0 if u < truth.lost else (0.0 if u < 1 - truth.won else 1.0))
        if made.wealth >= truth.goal:
            break
    assert made.pairs == found < 2_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "truth, most",
    [
        (shadow("nothing won", 0.01, 0.01), 0.05),
        (shadow("nothing won", 0.02, 0.02), 0.05),
        (shadow("5 % differ", 0.01, 0.03, 0.02), 0.05),
        (rollback("nothing won", 0.01, 0.01), 0.01),
        (rollback("5 % differ", 0.01, 0.03, 0.02), 0.01),
    ],
)
def test_at_the_margin_it_is_seldom_wrong(truth, most):
    runs = 300
    wrong = np.isfinite(stopped(truth, runs, 5_000)).sum()
    assert wrong <= runs * most + 3 * math.sqrt(runs * most)  # the bound is about the chance, these are draws


@pytest.mark.slow
@pytest.mark.parametrize("won", [0.0, 0.01])
def test_a_router_five_points_worse_is_found_out_within_725_pairs(won):
    assert np.quantile(stopped(rollback("", 0.01, 0.05 + won, won), 1_000, 5_000), 0.9) <= 725


@pytest.mark.parametrize("lost, won", [(0.0, 0.0), (0.0025, 0.0), (0.005, 0.001)])
def test_the_expected_number_of_pairs_is_rather_too_large_than_too_small(lost, won):
    median, late = np.quantile(stopped(shadow("", 0.02, lost, won), 100, 2_000), [0.5, 0.9])
    assert 0.95 * median <= expected_pairs(lost, won, 0.02, 20.0) <= late


def test_what_never_passes_has_no_expected_number():
    assert expected_pairs(0.05, 0.0, 0.02, 20.0) is None
    assert expected_pairs(0.0, 0.0, 0.02, 20.0, logs=(9.0,) * len(BETS)) == 0
