"""Routing and cascading as one decision: what is asked, what is accepted, and that probing never costs more than it saves."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic import make_ladder

from classifiers import Rule
from classifiers.replies.heads import CostHead
from classifiers.replies.posterior import Known, Posterior, key
from classifiers.replies.signals import Evidence
from router.cascade.next_step import (
    RIDGE,
    AcceptTier,
    AskTiers,
    PlanScope,
    features,
    make_plan,
    outlook,
    step,
    values,
    values_of_one,
)

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
        while isinstance(s := step(*given, **options), AskTiers):
            assert not set(s.tiers) & set(answered) and set(s.tiers) <= set(allowed)
            answered.update({k: ladder.answers[i][k] for k in s.tiers})
        cost.append(sum(ladder.costs[i, k] for k in answered))
        score.append(ladder.y[i, s.tier])
        calls.append(tuple(sorted(answered)))
    return np.mean(cost), np.mean(score), calls


@pytest.mark.slow
@pytest.mark.parametrize(
    "scope", [PlanScope(ALL), PlanScope(ALL, best_of=False), PlanScope((0, 2)), PlanScope(ALL, comparable=False)]
)
def test_one_request_is_worth_what_it_is_among_many(ladder, posterior, scope):
    plan = make_plan(posterior, 0.3, scope)
    for tiers in plan.states:
        many = values(plan, tiers, ladder.prior[:40], ladder.guessed[:40])
        pairs = zip(ladder.prior[:40].tolist(), ladder.guessed[:40].tolist(), strict=True)
        assert np.allclose([values_of_one(plan, tiers, p, cost) for p, cost in pairs], many, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_nothing_answered_is_routing(posterior):
    cost = np.array([0.05, 0.07, 1.0])
    first = step(np.array([0.99, 0.99, 0.99]), cost, {}, rule(0.3), posterior, ALL)
    assert isinstance(first, AskTiers) and 2 not in first.tiers


@pytest.mark.slow
def test_where_small_tiers_are_hopeless_it_goes_straight_to_the_top():
    ladder = make_ladder(600, costs=(0.3, 0.4, 1.0), logprobs=False)
    posterior, cost = ladder.posterior(), np.array([0.3, 0.4, 1.0])
    straight = np.array([step(ladder.prior[i], cost, {}, rule(0.2), posterior, ALL).tiers == (2,) for i in range(300)])
    small = ladder.prior[:300, 0]
    assert straight.any() and not straight.all() and small[straight].mean() < small[~straight].mean() - 0.1


@pytest.mark.slow
def test_a_good_answer_is_accepted_and_a_bad_one_goes_up(posterior):
    prior, cost = np.array([0.5, 0.6, 0.9]), np.array([0.05, 0.07, 1.0])
    assert isinstance(step(prior, cost, {0: SURE}, rule(0.3), posterior, ALL), AcceptTier)
    up = step(prior, cost, {0: TORN}, rule(0.3), posterior, ALL)
    assert isinstance(up, AskTiers) and 0 not in up.tiers
    assert isinstance(step(prior, np.array([0.05, 0.07, 1.0]), {0: TORN}, rule(50.0), posterior, ALL), AcceptTier)


@pytest.mark.slow
def test_an_unusable_answer_is_never_accepted_while_another_can_be_had(posterior):
    prior, cost = np.array([0.9, 0.9, 0.9]), np.array([0.05, 0.07, 1.0])
    cut = Evidence(20, "length", has_answer=False, usable=False)
    assert isinstance(step(prior, cost, {0: cut}, rule(50.0), posterior, ALL), AskTiers)
    last = step(prior, cost, {0: cut, 1: cut, 2: cut}, rule(0.1), posterior, ALL)
    assert last == AcceptTier(2, last.chance, False)
    assert step(prior, cost, {0: SURE, 2: cut}, rule(0.1), posterior, (0, 2)).tier == 0


@pytest.mark.slow
def test_the_threshold_sends_to_the_top_and_none_certified_means_always(posterior):
    prior, cost = np.array([0.7, 0.7, 0.9]), np.array([0.05, 0.07, 1.0])
    accepted = step(prior, cost, {0: SURE}, rule(5.0), posterior, ALL)
    assert step(prior, cost, {0: SURE}, rule(5.0, accepted.chance - 1e-9), posterior, ALL) == accepted
    assert step(prior, cost, {0: SURE}, rule(5.0, accepted.chance + 1e-9), posterior, ALL) == AskTiers((2,), accepted.chance)
    assert step(prior, cost, {}, rule(5.0, float("inf")), posterior, ALL).tiers == (2,)
    assert step(prior, cost, {0: SURE}, rule(5.0, float("inf")), posterior, ALL).tiers == (2,)


@pytest.mark.slow
@pytest.mark.parametrize("allowed", [(0,), (2,), (0, 2), (1, 2)])
def test_only_what_is_allowed_is_asked(ladder, posterior, allowed):
    _, _, calls = play(ladder, posterior, 0.2, range(60), allowed)
    assert {k for tiers in calls for k in tiers} <= set(allowed)


@pytest.mark.slow
def test_a_steep_ladder_is_probed_and_gets_better_for_less(ladder, posterior):
    _, always_top, _ = 0, ladder.y[:, 2].mean(), 0
    cost, score, calls = play(ladder, posterior, 0.1, range(600))
    assert cost < 0.75 * ladder.costs[:, 2].mean() and score > always_top - 0.02
    assert any(len(tiers) > 1 for tiers in calls)


@pytest.mark.slow
def test_a_flat_ladder_is_probed_only_for_what_it_is_worth():
    flat = make_ladder(400, costs=(0.9, 0.95, 1.0), logprobs=False)
    posterior = flat.posterior()
    routed = (flat.prior - 0.5 * flat.guessed).argmax(axis=1)
    rows = np.arange(400)
    cost, score, calls = play(flat, posterior, 0.5, rows)
    assert score - 0.5 * cost >= (flat.y - 0.5 * flat.costs)[rows, routed].mean() - 0.02
    assert np.mean([len(tiers) for tiers in calls]) < 1.05


@pytest.mark.slow
def test_answers_that_cannot_be_compared_are_not_asked_side_by_side(ladder, posterior):
    _, _, calls = play(ladder, posterior, 0.05, range(100), comparable=False)
    cheap = [tiers for tiers in calls if len(tiers) > 1]
    assert cheap  # still a cascade
    first = [step(ladder.prior[i], ladder.guessed[i], {}, rule(0.05), posterior, ALL, comparable=False) for i in range(100)]
    assert all(len(s.tiers) == 1 for s in first)


@pytest.mark.slow
def test_when_the_top_streams_at_once_its_answer_is_final(ladder, posterior):
    for i in range(50):
        answered = {k: ladder.answers[i][k] for k in ALL}
        assert step(ladder.prior[i], ladder.guessed[i], answered, rule(0.1), posterior, ALL, best_of=False).tier == 2


@pytest.mark.slow
def test_a_prefix_commits_or_goes_up(posterior):
    prior, cost = np.array([0.6, 0.6, 0.9]), np.array([0.05, 0.07, 1.0])
    good, bad = (Evidence(16, logprobs=(v,) * 16, first_margin=1.0) for v in (-0.001, -3.0))
    assert isinstance(step(prior, cost, {0: good}, rule(0.3), posterior, ALL, prefix=16), AcceptTier)
    assert isinstance(step(prior, cost, {0: bad}, rule(0.3), posterior, ALL, prefix=16), AskTiers)


# -- what may be done -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scope, tiers, moves",
    [
        (PlanScope(ALL), (), [(0,), (1,), (2,), (0, 1)]),  # the top is never a probe
        (PlanScope(ALL), (0,), [(1,), (2,)]),
        (PlanScope(ALL), (1,), [(2,)]),
        (PlanScope(ALL), (2,), []),
        (PlanScope(ALL, comparable=False), (), [(0,), (1,), (2,)]),
        (PlanScope((0, 2)), (), [(0,), (2,)]),
        (PlanScope((0, 1, 2, 3)), (), [(0,), (1,), (2,), (3,), (0, 1), (0, 2), (1, 2)]),
    ],
)
def test_larger_tiers_and_at_first_pairs_of_smaller_ones_can_be_asked(scope, tiers, moves):
    assert list(scope.moves(tiers)) == moves


@pytest.mark.parametrize(
    "best_of, tiers, candidates",
    [(True, (0, 1, 2), (0, 1, 2)), (False, (0, 1, 2), (2,)), (False, (0, 1), (0, 1)), (False, (), ())],
)
def test_once_the_top_streams_its_answer_is_the_only_candidate(best_of, tiers, candidates):
    assert PlanScope(ALL, best_of=best_of).candidates(tiers) == candidates


@pytest.mark.slow
def test_an_answer_that_cannot_be_compared_leaves_only_the_largest(posterior):
    assert PlanScope(ALL, comparable=False).after((0,), (1,), posterior) == (1,)
    assert PlanScope(ALL).after((0,), (1,), posterior) == (0, 1)
    prior, cost = np.array([0.9, 0.2, 0.9]), np.array([0.05, 0.07, 1.0])
    made = step(prior, cost, {0: SURE, 1: SURE}, rule(50.0), posterior, ALL, comparable=False)
    assert isinstance(made, AcceptTier) and made.tier == 1


# -- what it is worth: by hand, on rows that look all alike, where the regression is a mean ---------------------------------


PRICE, MONEY = 0.2, (0.1, 0.3, 1.0)


def by_hand():
    """100 rows. Small is right in 70, which its answer tells (0.85, else 0.05); medium in 90 of 100, large always."""
    right = np.arange(100) < 70
    medium = np.concatenate([np.arange(70) < 63, np.arange(30) < 27]).astype(float)  # in 0.9 of either
    truth = np.stack([right.astype(float), medium, np.ones(100)], axis=1)
    cost = np.broadcast_to(MONEY, (100, 3)).copy()
    told = np.stack([np.where(right, 0.85, 0.05), np.full(100, 0.9), np.ones(100)], axis=1)
    known = {"": np.broadcast_to((0.5, 0.6, 0.8), (100, 3)).copy()}
    known |= {key(tiers): told for tiers in ((0,), (0, 1), (0, 2), (0, 1, 2))}
    known |= {key(tiers): np.broadcast_to((0.7, 0.9, 1.0), (100, 3)).copy() for tiers in ((1,), (2,), (1, 2))}
    return Posterior(3, {}, {}, {name: Known(p, cost) for name, p in known.items()}, Known(truth, cost))


def test_a_move_is_worth_what_came_of_it_less_all_that_it_cost():
    made = make_plan(by_hand(), PRICE, PlanScope(ALL, best_of=False))
    p, cost = np.array([[0.5, 0.6, 0.8]]), np.array([MONEY])
    # After small: 70 right ones stand; 30 go to medium, right in 0.9, for 0.06, not to large, always right, for 0.2.
    after_small = 0.7 + 0.3 * (0.9 - PRICE * 0.3)
    expected = [after_small - PRICE * 0.1, 0.9 - PRICE * 0.3, 1.0 - PRICE * 1.0, 0.9 - PRICE * 0.4]
    np.testing.assert_allclose(values(made, (), p, cost)[0], expected, atol=1e-6)
    told = np.array([[0.05, 0.9, 1.0]])
    np.testing.assert_allclose(values(made, (0,), told, cost)[0], [0.9 - PRICE * 0.3, 1.0 - PRICE], atol=1e-6)


@pytest.mark.parametrize(
    "best_of, tiers, expected",
    [(True, (0,), 0.8 - 0.2), (True, (0, 1), 0.6), (True, (0, 1, 2), 0.8), (False, (0, 2), 0.8), (True, (2,), 0.8)],
)
def test_the_outlook_is_to_accept_the_best_or_to_pay_for_one_more(best_of, tiers, expected):
    found = outlook(np.array([[0.5, 0.6, 0.8]]), np.array([MONEY]), tiers, PlanScope(ALL, best_of=best_of), PRICE)
    assert found == pytest.approx([expected])


def test_few_rows_say_little_of_single_requests():
    """Forty rows whose truth has nothing to do with what is known of them: a probe is worth its mean."""
    random, n = np.random.default_rng(4), 40
    p, cost = random.uniform(0.2, 0.8, (n, 2)), np.broadcast_to((0.1, 1.0), (n, 2)).copy()
    truth = Known((random.random((n, 2)) < 0.6).astype(float), cost)
    made = make_plan(
        Posterior(2, {}, {}, {name: Known(p, cost) for name in ("", "0", "1", "0,1")}, truth), 0.1, PlanScope((0, 1))
    )
    slopes = np.concatenate([move.weights[1:] for move in made.states[()].moves])
    assert n < RIDGE and np.abs(slopes).max() < 0.04


def test_the_state_of_a_request_is_its_chances_and_its_costs():
    p, cost = np.array([[0.5, 0.9]]), np.array([[0.1, 1.0]])
    np.testing.assert_allclose(features(p, 10 * cost) - features(p, cost), [[0, 0, 0.3 * np.log(10), 0.3 * np.log(10)]])
    np.testing.assert_allclose(features(p, cost)[0, :2], p[0])


# -- one request ----------------------------------------------------------------------------------------------------------


PRIOR, COST = np.array([0.6, 0.6, 0.9]), np.array([0.05, 0.07, 1.0])


@pytest.mark.slow
def test_a_threshold_of_one_may_still_be_reached(posterior):
    assert step(PRIOR, COST, {}, rule(0.3, 1.0), posterior, ALL).tiers != (2,)
    assert step(PRIOR, COST, {}, rule(0.3, 1.0001), posterior, ALL).tiers == (2,)


@pytest.mark.slow
def test_a_chance_that_just_reaches_the_threshold_is_accepted(posterior):
    accepted = step(PRIOR, COST, {0: SURE}, rule(5.0), posterior, ALL)
    assert step(PRIOR, COST, {0: SURE}, rule(5.0, accepted.chance), posterior, ALL) == accepted


@pytest.mark.slow
def test_the_threshold_asks_nobody_again(posterior):
    assert isinstance(step(PRIOR, COST, {0: TORN, 2: TORN}, rule(0.1, 0.9999), posterior, ALL), AcceptTier)


@pytest.mark.slow
def test_an_answer_of_a_tier_that_may_not_be_asked_any_more_still_counts(posterior):
    assert step(PRIOR, COST, {2: TORN}, rule(5.0, 0.9999), posterior, (0, 1)).tier == 2


@pytest.mark.slow
def test_long_answers_foretell_dear_ones(posterior):
    """The same doubt, the same guess before: where the small answer was long the others will be, and cost more."""
    asked = [
        sum(
            isinstance(step(PRIOR, COST, {0: Evidence(tokens, answer="9")}, rule(price), posterior, ALL), AskTiers)
            for price in np.geomspace(0.05, 20, 60)
        )
        for tokens in (4, 400)
    ]
    assert asked[0] > asked[1] > 0


def test_what_is_still_to_be_paid_is_guessed_again_from_the_answers():
    """Before, medium was the way to go on; now it is known to write nine times as much as large usually costs."""
    dear = CostHead(np.zeros((4, 3)), np.log([0.1, 9.0, 1.0]), np.full(3, -9.0), np.full(3, 9.0))
    given = (np.array([0.05, 0.9, 1.0]), np.array(MONEY), {0: TORN}, rule(PRICE))
    made = by_hand()
    assert step(*given, made, ALL, best_of=False).tiers == (1,)
    assert step(*given, replace(made, cost_heads={"0": dear}), ALL, best_of=False).tiers == (2,)
    assert step(*given, replace(made, cost_heads={"0": dear}), ALL, best_of=False, prefix=16).tiers == (1,)  # not from a prefix


@pytest.mark.slow
def test_only_the_first_tokens_of_a_stream_are_looked_at(posterior):
    late = Evidence(40, logprobs=(-0.001,) * 16 + (-6.0,) * 24, first_margin=3.0)
    first = step(PRIOR, COST, {0: late}, rule(50.0), posterior, ALL, prefix=16)
    assert first.chance > step(PRIOR, COST, {0: late}, rule(50.0), posterior, ALL).chance + 0.1


@pytest.mark.slow
def test_two_answers_that_agree_are_better_than_two_that_differ(posterior):
    plain, other = Evidence(20, answer="42"), Evidence(20, answer="9")
    agreed, differing = (step(PRIOR, COST, {0: plain, 1: e}, rule(50.0), posterior, ALL) for e in (plain, other))
    assert agreed.chance > differing.chance + 0.2


@pytest.mark.slow
def test_two_asked_at_once_have_the_chance_of_the_better(ladder, posterior):
    first = [(i, step(ladder.prior[i], ladder.guessed[i], {}, rule(0.02), posterior, ALL)) for i in range(200)]
    pairs = [(i, made) for i, made in first if len(made.tiers) == 2]
    assert pairs and all(made.chance == ladder.prior[i, list(made.tiers)].max() for i, made in pairs)


def test_what_an_unusable_answer_would_have_been_worth_is_nothing():
    cut, prior = Evidence(20, "length", usable=False), np.array([0.9, 0.05, 0.95])
    given = (rule(PRICE), by_hand(), ALL)
    assert step(prior, np.array(MONEY), {0: cut}, *given, best_of=False).tiers == (2,)
    assert step(prior, np.array(MONEY), {0: replace(cut, usable=True)}, *given, best_of=False).tier == 0


@pytest.mark.slow
def test_steps_are_the_same_each_time(ladder, posterior):
    again = ladder.posterior()
    for i in range(30):
        answered = {0: ladder.answers[i][0]}
        assert step(ladder.prior[i], ladder.guessed[i], answered, rule(0.2), posterior, ALL) == step(
            ladder.prior[i], ladder.guessed[i], answered, rule(0.2), again, ALL
        )
