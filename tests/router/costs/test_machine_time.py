"""The books close: whatever ran and whatever was held, busy and idle add up to what was held, in seconds and in USD."""

from math import fsum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.costs.machine_time import NOBODY, OVER, Held, Line, Used, split

TIERS, KEYS = ["small", "large"], ["a", "b", "c"]
amount = st.just(0.0) | st.floats(1e-3, 1e4)
used = st.builds(Used, st.sampled_from([0, 3600]), st.sampled_from(TIERS), st.sampled_from(KEYS), amount, amount)
held = st.builds(Held, st.sampled_from([0, 3600]), st.sampled_from(TIERS), amount, amount)


@pytest.mark.slow
@given(st.lists(used, max_size=30), st.lists(held, max_size=10))
def test_busy_and_idle_add_up_to_what_was_held(uses, holds):
    lines = split(uses, holds)
    for tier in TIERS:
        mine = [line for line in lines if line.tier == tier]
        assert fsum(line.seconds for line in mine) == pytest.approx(fsum(h.seconds for h in holds if h.tier == tier), abs=1e-6)
        for at in (0, 3600):
            spans = [h for h in holds if (h.tier, h.at) == (tier, at) and h.seconds > 0]
            if spans:
                paid = fsum(h.usd for h in holds if (h.tier, h.at) == (tier, at))
                assert fsum(line.usd for line in mine if line.at == at) == pytest.approx(paid, rel=1e-6, abs=1e-6)


@pytest.mark.slow
@given(st.lists(used, max_size=30), st.lists(held, max_size=10))
def test_nothing_is_negative_but_what_is_taken_back(uses, holds):
    for line in split(uses, holds):
        assert (line.seconds <= 0) if line.group == OVER else (line.busy_s >= 0 and line.idle_s >= 0)


@pytest.mark.slow
@given(st.lists(used, max_size=30), st.lists(held, max_size=10))
def test_two_intervals_side_by_side_add_up_to_the_whole(uses, holds):
    def of(at):
        return split([u for u in uses if u.at == at], [h for h in holds if h.at == at])

    assert [*of(0), *of(3600)] == split(uses, holds)


def test_idle_goes_to_those_who_used_the_tier_in_proportion():
    a, b = split([Used(0, "small", "a", 30), Used(0, "small", "b", 10)], [Held(0, "small", 100, 10)])
    assert a == Line(0, "small", "a", 30, 45, pytest.approx(3), pytest.approx(4.5))
    assert b == Line(0, "small", "b", 10, 15, pytest.approx(1), pytest.approx(1.5))


def test_an_hour_that_nobody_used_is_nobodys():
    lines = split([Used(0, "small", "a", 30)], [Held(0, "small", 100, 1), Held(3600, "small", 100, 1), Held(0, "large", 50, 9)])
    assert [(line.at, line.tier, line.group, line.idle_s) for line in lines] == [
        (0, "large", NOBODY, 50),
        (0, "small", "a", 70),
        (3600, "small", NOBODY, 100),
    ]


def test_more_busy_than_held_is_taken_back_on_its_own_line():
    a, over = split([Used(0, "small", "a", 110)], [Held(0, "small", 100, 1)])
    assert (a.busy_s, a.idle_s, over.group) == (110, 0, OVER)
    assert (over.busy_s, a.usd + over.usd) == (-10, pytest.approx(1))


def test_busy_without_a_window_costs_what_the_calls_were_priced_and_is_taken_back():
    a, over = split([Used(0, "small", "a", 10, 2.0)], [])
    assert (a.busy_usd, over.busy_usd, over.busy_s) == (2.0, -2.0, -10)
