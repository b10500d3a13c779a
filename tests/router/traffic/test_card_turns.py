"""Whose turn it is on a card: as few as it takes go, idle longest first, and nobody with calls."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.traffic.card_turns import Holder, who_dozes

BIG = Holder("big", 40.0, 1.5, awake=True, calls=0, last_s=100.0)
OLD = Holder("old", 20.0, 1.5, awake=True, calls=0, last_s=50.0)


def test_with_room_nobody_goes():
    assert who_dozes(20.0, 80.0, [BIG, OLD]) == []
    assert who_dozes(80.0, 80.0, []) == []


def test_idle_longest_goes_first_and_no_more_than_needed():
    assert who_dozes(25.0, 80.0, [BIG, OLD]) == ["old"]
    assert who_dozes(50.0, 80.0, [BIG, OLD]) == ["old", "big"]


def test_nobody_with_calls_goes():
    busy = replace(OLD, calls=1)
    assert who_dozes(25.0, 80.0, [BIG, busy]) == ["big"]
    assert who_dozes(75.0, 80.0, [BIG, busy]) is None


def test_dozing_ones_hold_what_they_keep_and_cannot_give_more():
    assert who_dozes(78.5, 80.0, [replace(BIG, awake=False)]) == []
    assert who_dozes(79.0, 80.0, [replace(BIG, awake=False)]) is None


HOLDERS = st.lists(
    st.builds(
        Holder,
        st.uuids().map(str),
        st.floats(2.0, 80.0),
        st.floats(0.0, 1.9),
        st.booleans(),
        st.integers(0, 2),
        st.floats(0, 1e9),
    ),
    max_size=6,
)


@pytest.mark.slow
@given(wanted=st.floats(1.0, 80.0), others=HOLDERS)
def test_whoever_goes_is_idle_and_awake_makes_room_and_each_is_needed(wanted, others):
    found = who_dozes(wanted, 80.0, others)
    idle = {other.name: other for other in others if other.awake and not other.calls}
    held = sum(other.held_gib for other in others)
    if found is None:
        assert wanted + held - sum(o.gib - o.kept_gib for o in idle.values()) > 80.0 - 1e-6
        return
    assert set(found) <= set(idle)
    left = wanted + held - sum(idle[name].gib - idle[name].kept_gib for name in found)
    assert left <= 80.0 + 1e-6
    if found:
        last = idle[found[-1]]
        assert left + last.gib - last.kept_gib > 80.0 - 1e-6
        assert [idle[name].last_s for name in found] == sorted(other.last_s for other in idle.values())[: len(found)]
