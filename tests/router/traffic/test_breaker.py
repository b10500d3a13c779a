"""When a tier is left alone, when it is tried again, and who answers instead."""

import pytest

from router.traffic.breaker import FAILURES, MOST_REST_S, REST_S, TRIAL_S, Breaker, instead


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker(clock, chance=lambda: 0.0)


def fail(breaker, times=FAILURES):
    for _ in range(times):
        breaker.failed("large")


def test_single_failures_do_not_open_it(breaker):
    fail(breaker, FAILURES - 1)
    assert breaker.left_s("large") == 0
    breaker.worked("large")
    fail(breaker, FAILURES - 1)
    assert breaker.left_s("large") == 0


def test_failures_in_a_row_open_it_for_a_while(breaker, clock):
    fail(breaker)
    assert breaker.left_s("large") == REST_S
    assert "large" in breaker.down(["small", "large"])
    clock.now += REST_S
    assert breaker.down(["small", "large"]) == {}


def test_one_tries_and_the_others_wait_for_what_comes_of_it(breaker, clock):
    fail(breaker)
    clock.now += REST_S
    breaker.sent("large")
    assert breaker.left_s("large") == TRIAL_S
    breaker.worked("large")
    assert breaker.left_s("large") == 0


def test_a_trial_that_fails_doubles_the_rest_up_to_a_limit(breaker, clock):
    fail(breaker)
    rests = []
    for _ in range(8):
        rests.append(breaker.left_s("large"))
        clock.now += rests[-1]
        breaker.sent("large")
        breaker.failed("large")
    assert rests == [min(MOST_REST_S, REST_S * 2**n) for n in range(8)]


def test_a_trial_that_nobody_heard_of_again_blocks_nothing_for_ever(breaker, clock):
    fail(breaker)
    clock.now += REST_S
    breaker.sent("large")
    clock.now += TRIAL_S
    assert breaker.left_s("large") == 0


def test_late_failures_of_requests_that_were_on_their_way_do_not_lengthen_the_rest(breaker):
    fail(breaker, FAILURES + 20)
    assert breaker.left_s("large") == REST_S


def test_jitter_only_lengthens(clock):
    breaker = Breaker(clock, chance=lambda: 0.999)
    fail(breaker)
    assert REST_S < breaker.left_s("large") <= 1.2 * REST_S


def test_with_everything_down_everything_is_tried(breaker):
    fail(breaker)
    assert breaker.down(["large"]) == {}


@pytest.mark.parametrize(
    "tier, closed, how, takes",
    [
        ("small", {}, "any", ["medium", "large"]),
        ("medium", {}, "any", ["large", "small"]),
        ("large", {}, "any", ["medium", "small"]),
        ("large", {}, "larger", []),
        ("medium", {"large": "too short"}, "any", ["small"]),
        ("medium", {}, "larger", ["large"]),
        ("medium", {}, "none", []),
    ],
)
def test_who_answers_instead(tier, closed, how, takes):
    assert instead(["small", "medium", "large"], tier, closed, how) == takes


def test_streams_that_break_again_and_again_open_it_though_each_began_well(breaker, clock):
    for _ in range(FAILURES):
        assert breaker.left_s("large") == 0
        breaker.worked("large")
        breaker.broke("large")
    assert breaker.left_s("large") == REST_S
    clock.now += REST_S
    breaker.sent("large")
    breaker.worked("large")  # the trial begins to answer, and breaks too
    assert breaker.left_s("large") == 0
    breaker.broke("large")
    assert breaker.left_s("large") == 2 * REST_S


def test_a_stream_that_ends_well_makes_up_for_those_that_broke(breaker):
    for _ in range(3 * FAILURES):
        breaker.broke("large")
        breaker.broke("large")
        breaker.ended("large")
    assert breaker.left_s("large") == 0


def test_streams_that_break_together_count_as_often_as_it_takes_to_open_it(breaker):
    for _ in range(64):
        breaker.broke("large")
    assert breaker.left_s("large") == REST_S


def test_a_tier_is_left_alone_as_long_as_it_asks_whatever_it_answers_meanwhile(breaker, clock):
    breaker.back_off("large", 7.0)
    breaker.back_off("large", 2.0)
    breaker.worked("large")
    assert (breaker.left_s("large"), breaker.open_s("large")) == (7.0, 0.0)
    assert "full" in breaker.down(["small", "large"])["large"]
    clock.now += 7.0
    assert breaker.down(["small", "large"]) == {}


def test_where_all_have_asked_for_it_none_is_passed_over(breaker):
    breaker.back_off("large", 7.0)
    breaker.back_off("small", 7.0)
    assert breaker.down(["small", "large"]) == {}
