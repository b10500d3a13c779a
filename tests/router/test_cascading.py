"""Routing and cascading as one decision: what is asked, what is accepted, and that probing never costs more than it saves."""

import numpy as np
import pytest
from synthetic import make_ladder

from classifiers import Rule
from classifiers.signals import Evidence
from router.cascading import Accept, Ask, step

ALL = (0, 1, 2)
SURE, TORN = Evidence(20, answer="42", logprobs=(-0.001,) * 8), Evidence(20, answer="9", logprobs=(-3.0, -2.0) * 4)


def rule(price, threshold=float("nan")):
    return Rule("cascade", price, threshold=threshold)


@pytest.fixture(scope="module")
def ladder():
    return make_ladder(600)


@pytest.fixture(scope="module")
def posterior(ladder):
    return ladder.posterior()


def play(ladder, posterior, price, rows, allowed=ALL, **options):
    """(mean cost, mean score, calls) of deciding every row, each answer as the ladder has it."""
    cost, score, calls = [], [], []
    for i in rows:
        answered = {}
        given = (ladder.prior[i], ladder.guessed[i], answered, rule(price), posterior, allowed)
        while isinstance(s := step(*given, **options), Ask):
            assert not set(s.tiers) & set(answered) and set(s.tiers) <= set(allowed)
            answered.update({k: ladder.answers[i][k] for k in s.tiers})
        cost.append(sum(ladder.costs[i, k] for k in answered))
        score.append(ladder.y[i, s.tier])
        calls.append(tuple(sorted(answered)))
    return np.mean(cost), np.mean(score), calls


def test_nothing_answered_is_routing(posterior):
    cost = np.array([0.05, 0.07, 1.0])
    first = step(np.array([0.99, 0.99, 0.99]), cost, {}, rule(0.3), posterior, ALL)
    assert isinstance(first, Ask) and 2 not in first.tiers


def test_where_small_tiers_are_hopeless_it_goes_straight_to_the_top():
    ladder = make_ladder(600, costs=(0.3, 0.4, 1.0), logprobs=False)
    posterior, cost = ladder.posterior(), np.array([0.3, 0.4, 1.0])
    straight = np.array([step(ladder.prior[i], cost, {}, rule(0.2), posterior, ALL).tiers == (2,) for i in range(300)])
    small = ladder.prior[:300, 0]
    assert straight.any() and not straight.all() and small[straight].mean() < small[~straight].mean() - 0.1


def test_a_good_answer_is_accepted_and_a_bad_one_goes_up(posterior):
    prior, cost = np.array([0.5, 0.6, 0.9]), np.array([0.05, 0.07, 1.0])
    assert isinstance(step(prior, cost, {0: SURE}, rule(0.3), posterior, ALL), Accept)
    up = step(prior, cost, {0: TORN}, rule(0.3), posterior, ALL)
    assert isinstance(up, Ask) and 0 not in up.tiers
    assert isinstance(step(prior, np.array([0.05, 0.07, 1.0]), {0: TORN}, rule(50.0), posterior, ALL), Accept)


def test_an_unusable_answer_is_never_accepted_while_another_can_be_had(posterior):
    prior, cost = np.array([0.9, 0.9, 0.9]), np.array([0.05, 0.07, 1.0])
    cut = Evidence(20, "length", has_answer=False, usable=False)
    assert isinstance(step(prior, cost, {0: cut}, rule(50.0), posterior, ALL), Ask)
    last = step(prior, cost, {0: cut, 1: cut, 2: cut}, rule(0.1), posterior, ALL)
    assert last == Accept(2, last.chance, False)
    assert step(prior, cost, {0: SURE, 2: cut}, rule(0.1), posterior, (0, 2)).tier == 0


def test_the_threshold_sends_to_the_top_and_none_certified_means_always(posterior):
    prior, cost = np.array([0.7, 0.7, 0.9]), np.array([0.05, 0.07, 1.0])
    accepted = step(prior, cost, {0: SURE}, rule(5.0), posterior, ALL)
    assert step(prior, cost, {0: SURE}, rule(5.0, accepted.chance - 1e-9), posterior, ALL) == accepted
    assert step(prior, cost, {0: SURE}, rule(5.0, accepted.chance + 1e-9), posterior, ALL) == Ask((2,), accepted.chance)
    assert step(prior, cost, {}, rule(5.0, float("inf")), posterior, ALL).tiers == (2,)
    assert step(prior, cost, {0: SURE}, rule(5.0, float("inf")), posterior, ALL).tiers == (2,)


@pytest.mark.parametrize("allowed", [(0,), (2,), (0, 2), (1, 2)])
def test_only_what_is_allowed_is_asked(ladder, posterior, allowed):
    _, _, calls = play(ladder, posterior, 0.2, range(60), allowed)
    assert {k for tiers in calls for k in tiers} <= set(allowed)


def test_a_steep_ladder_is_probed_and_gets_better_for_less(ladder, posterior):
    _, always_top, _ = 0, ladder.y[:, 2].mean(), 0
    cost, score, calls = play(ladder, posterior, 0.1, range(600))
    assert cost < 0.75 * ladder.costs[:, 2].mean() and score > always_top - 0.02
    assert any(len(tiers) > 1 for tiers in calls)


def test_a_flat_ladder_is_probed_only_for_what_it_is_worth():
    flat = make_ladder(400, costs=(0.9, 0.95, 1.0), logprobs=False)
    posterior = flat.posterior()
    routed = (flat.prior - 0.5 * flat.guessed).argmax(axis=1)
    rows = np.arange(400)
    cost, score, calls = play(flat, posterior, 0.5, rows)
    assert score - 0.5 * cost >= (flat.y - 0.5 * flat.costs)[rows, routed].mean() - 0.02
    assert np.mean([len(tiers) for tiers in calls]) < 1.05


def test_answers_that_cannot_be_compared_are_not_asked_side_by_side(ladder, posterior):
    _, _, calls = play(ladder, posterior, 0.05, range(100), comparable=False)
    cheap = [tiers for tiers in calls if len(tiers) > 1]
    assert cheap  # still a cascade
    first = [step(ladder.prior[i], ladder.guessed[i], {}, rule(0.05), posterior, ALL, comparable=False) for i in range(100)]
    assert all(len(s.tiers) == 1 for s in first)


def test_when_the_top_streams_at_once_its_answer_is_final(ladder, posterior):
    for i in range(50):
        answered = {k: ladder.answers[i][k] for k in ALL}
        assert step(ladder.prior[i], ladder.guessed[i], answered, rule(0.1), posterior, ALL, best_of=False).tier == 2


def test_a_prefix_commits_or_goes_up(posterior):
    prior, cost = np.array([0.6, 0.6, 0.9]), np.array([0.05, 0.07, 1.0])
    good, bad = (Evidence(16, logprobs=(v,) * 16, first_margin=1.0) for v in (-0.001, -3.0))
    assert isinstance(step(prior, cost, {0: good}, rule(0.3), posterior, ALL, prefix=16), Accept)
    assert isinstance(step(prior, cost, {0: bad}, rule(0.3), posterior, ALL, prefix=16), Ask)


def test_steps_are_the_same_each_time(ladder, posterior):
    again = ladder.posterior()
    for i in range(30):
        answered = {0: ladder.answers[i][0]}
        assert step(ladder.prior[i], ladder.guessed[i], answered, rule(0.2), posterior, ALL) == step(
            ladder.prior[i], ladder.guessed[i], answered, rule(0.2), again, ALL
        )
