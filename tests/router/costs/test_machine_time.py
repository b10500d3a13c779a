"""The books close: whatever ran and whatever was held, busy and idle add up to what was held, in seconds and in USD."""

from math import fsum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.costs.machine_time import NOBODY, OVER, Held, Line, Used, added, of_calls, split
from router.trace import CallRow, Window

TIERS, KEYS = ["small", "large"], ["a", "b", "c"]
amount = st.just(0.0) | st.floats(1e-3, 1e4)
used = st.builds(Used, st.sampled_from([0, 3600]), st.sampled_from(TIERS), st.sampled_from(KEYS), amount, amount)
held = st.builds(Held, st.sampled_from([0, 3600]), st.sampled_from(TIERS), amount, amount)


def call(tier="small", key="a", began=0.0, took=10.0, busy=5.0, n=0) -> CallRow:
    return CallRow(f"{key}{n}/final", f"{key}{n}", key, "final", tier, "answered", began, took, busy_s=busy)


def hour(tier="small", began=0.0, seconds=3600.0, replicas=1.0, accelerators=1, price=3.6) -> Window:
    return Window(tier, began, seconds, replicas, accelerators, price)


calls = st.builds(
    call, st.sampled_from(TIERS), st.sampled_from(KEYS), st.floats(0, 9000), st.floats(0, 4000), st.none() | st.floats(0, 4000)
)
windows = st.lists(
    st.builds(
        hour,
        st.sampled_from(TIERS),
        st.integers(0, 800).map(lambda n: 10.0 * n),
        st.just(10.0),
        st.floats(0, 9),
        st.integers(1, 4),
        st.none() | st.floats(0, 10),
    ),
    max_size=40,
)


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
@given(st.lists(calls, max_size=20), windows, st.floats(0, 5000), st.floats(1, 5000), st.sampled_from([10, 600, 3600]))
def test_any_closed_interval_adds_up_whatever_crosses_its_edges(rows, wins, since, length, span):
    until = since + length
    books = of_calls(rows, wins, since, until, {"large": 4}, span_s=span)
    inside = [(w, max(0.0, min(w.began_s + 10, until) - max(w.began_s, since)) / 10) for w in wins]
    assert books.held_s == pytest.approx(fsum(w.accelerator_s * part for w, part in inside), rel=1e-6, abs=1e-6)


@pytest.mark.slow
@given(st.lists(calls, max_size=20), windows)
def test_two_intervals_side_by_side_add_up_to_the_whole(rows, wins):
    def sums(since, until):
        return added(of_calls(rows, wins, since, until, {}).lines, lambda line: line.group)

    first, second, whole = sums(0, 3600), sums(3600, 7200), sums(0, 7200)
    for group in whole:
        parts = [found[group].seconds for found in (first, second) if group in found]
        assert fsum(parts) == pytest.approx(whole[group].seconds, rel=1e-6, abs=1e-6)


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


def test_of_a_call_that_crosses_the_edge_only_its_part_inside_counts():
    books = of_calls([call(began=90, took=20, busy=20)], [hour(seconds=100)], 0, 100, {})
    assert books.lines[0].busy_s == pytest.approx(10) and books.outside_s == pytest.approx(10)
    assert books.held_s == pytest.approx(100)


def test_a_call_across_the_hour_is_split_between_both():
    books = of_calls([call(began=3590, took=20, busy=20)], [hour(), hour(began=3600)], 0, 7200, {})
    assert [(line.at, round(line.busy_s, 6)) for line in books.lines] == [(0, 10), (3600, 10)]


def test_calls_that_nobody_measured_are_told_and_their_time_is_idle_of_the_others():
    rows = [call(busy=5), call(key="b", busy=None)]
    books = of_calls(rows, [hour(seconds=100)], 0, 100, {})
    assert books.unmeasured == 1 and [(line.group, line.seconds) for line in books.lines] == [("a", pytest.approx(100))]


def test_busy_seconds_of_a_replica_count_once_for_each_of_its_accelerators():
    books = of_calls([call("large", busy=10)], [hour("large", seconds=100, accelerators=4)], 0, 100, {"large": 4})
    (line,) = books.lines
    assert (line.busy_s, line.idle_s, line.busy_usd) == (pytest.approx(40), pytest.approx(360), pytest.approx(0.04))


def test_how_far_calls_exceed_what_was_held_is_a_figure():
    rows = [call(busy=102, took=100)]
    assert of_calls(rows, [hour(seconds=100)], 0, 100, {}).off() == pytest.approx(0.02)
