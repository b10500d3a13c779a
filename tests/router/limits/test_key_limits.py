"""What a key may, at times that the test gives."""

import random
from collections import deque
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import NotAllowed, RateLimited
from router.limits.key_limits import USUAL_ANSWER, Key, Minute, RateLimits, day_of, month_of, period_named
from router.limits.reservation import Size

SMALL = Size(10, 10)


def key(**more) -> Key:
    return Key("key-1", "bob", **more)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


# -- tiers, targets, rights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tiers, targets, tier, target, allowed",
    [
        (None, None, "large", None, True),
        (None, None, None, "quality", True),
        ({"small"}, None, "small", None, True),
        ({"small"}, None, "large", None, False),
        ({"small"}, None, None, "quality", True),  # auto may be asked for; it picks among the key's tiers
        (None, {"cheap"}, None, "cheap", True),
        (None, {"cheap"}, None, "quality", False),
        (None, {"cheap"}, None, "0.9", False),
        (None, {"0.9"}, None, "0.90", True),
        (None, {"cheap"}, "large", None, False),  # given targets alone, a key must not go around them
        ({"large"}, {"cheap"}, "large", None, True),
    ],
)
def test_a_key_may_ask_for_what_it_was_given(tiers, targets, tier, target, allowed):
    made = key(tiers=tiers and frozenset(tiers), targets=targets and frozenset(targets))
    if allowed:
        return made.check_model(tier, target)
    with pytest.raises(NotAllowed, match="key bob may not .*its `model` may be"):
        made.check_model(tier, target)


def test_a_key_excludes_the_tiers_it_may_not_use_with_a_reason():
    assert key().excluded(["small", "large"]) == {}
    assert key(tiers=frozenset({"small"})).excluded(["small", "large"]) == {"large": "not allowed for this key"}


def test_a_right_is_had_or_missing():
    key(rights=frozenset({"costs"})).require("costs")
    with pytest.raises(NotAllowed, match="--rights costs"):
        key().require("costs")


@pytest.mark.parametrize(
    "more, limited, budgeted",
    [
        ({}, False, False),
        ({"tiers": frozenset({"small"})}, False, False),
        ({"requests_per_minute": 1}, True, False),
        ({"tokens_per_minute": 1}, True, False),
        ({"usd_per_day": 0.0}, True, True),
        ({"usd_per_month": 1.0}, True, True),
    ],
)
def test_only_keys_with_limits_must_be_admitted(more, limited, budgeted):
    assert (key(**more).limited, key(**more).budgeted) == (limited, budgeted)


# -- days and months -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "now, day, month, until_day, until_month",
    [
        ("2026-11-24T12:00:00", "2026-11-24", "2026-11", "2026-11-25", "2026-12-01"),
        ("2026-11-30T23:59:59", "2026-11-30", "2026-11", "2026-12-01", "2026-12-01"),
        ("2026-12-31T23:59:59", "2026-12-31", "2026-12", "2027-01-01", "2027-01-01"),
        ("2028-02-29T00:00:00", "2028-02-29", "2028-02", "2028-03-01", "2028-03-01"),
    ],
)
def test_a_day_and_a_month_begin_and_end_in_utc(now, day, month, until_day, until_month):
    today, this_month = day_of(at(now)), month_of(at(now))
    assert (today.name, this_month.name) == (day, month)
    assert (today.ends_s, this_month.ends_s) == (at(until_day), at(until_month))
    assert today.began_s <= at(now) < today.ends_s and this_month.began_s <= at(now) < this_month.ends_s
    assert period_named(day) == today and period_named(month) == this_month


def test_budgets_are_in_the_order_of_the_locks():
    both = key(usd_per_day=1.0, usd_per_month=9.0).budgets(at("2026-11-24"))
    assert [(period.kind, usd) for period, usd in both] == [("month", 9.0), ("day", 1.0)]


# -- a minute --------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 5)), max_size=60), st.integers(5, 12))
def test_no_sixty_seconds_hold_more_than_the_limit(steps, limit):
    minute, now, passed = Minute(), 1000.0, deque()
    for wait, amount in steps:
        now += wait
        if minute.wait_s(amount, limit, now) == 0:
            minute.add(amount, now)
            passed.append((now, amount))
        assert sum(n for t, n in passed if t > now - 60) <= limit


def test_after_the_time_it_was_told_a_request_fits():
    rates, now = RateLimits(), 5.7
    made = key(requests_per_minute=3)
    for _ in range(3):
        rates.take(made, SMALL, now)
        now += 4.0
    for _ in range(5):
        with pytest.raises(RateLimited) as refused:
            rates.take(made, SMALL, now)
        with pytest.raises(RateLimited):
            rates.take(made, SMALL, now + refused.value.retry_after_s - 2.01)
        now += refused.value.retry_after_s
        rates.take(made, SMALL, now)


def test_requests_refused_count_nothing():
    rates = RateLimits()
    made = key(requests_per_minute=10, tokens_per_minute=50)
    rates.take(made, Size(30, 10), 0.0)
    for _ in range(20):
        with pytest.raises(RateLimited, match="50 tokens"):
            rates.take(made, Size(10, 10), 1.0)
    for _ in range(9):
        rates.take(made, Size(0, 1), 1.0)
    with pytest.raises(RateLimited, match="10 requests"):
        rates.take(made, Size(0, 1), 1.0)


def test_tokens_are_corrected_when_they_are_known():
    rates = RateLimits()
    made = key(tokens_per_minute=100)
    taken = rates.take(made, Size(10, 80), 0.0)
    with pytest.raises(RateLimited):
        rates.take(made, Size(20, 20), 1.0)
    rates.settle(taken, 30)
    rates.take(made, Size(30, 40), 1.0)
    with pytest.raises(RateLimited):
        rates.take(made, Size(0, 1), 1.0)


def test_an_answer_without_a_limit_counts_as_a_usual_one_and_then_as_what_it_was():
    rates = RateLimits()
    made = key(tokens_per_minute=1000)
    taken = rates.take(made, Size(100, None), 0.0)
    assert taken.tokens == 100 + USUAL_ANSWER
    rates.settle(taken, 990)
    with pytest.raises(RateLimited):
        rates.take(made, Size(5, 6), 1.0)
    rates.take(made, Size(5, 5), 1.0)


def test_a_guess_keeps_no_request_out_for_ever():
    assert RateLimits().take(key(tokens_per_minute=100), Size(50, None), 0.0).tokens == 100


def test_what_no_minute_holds_is_refused_with_the_reason():
    with pytest.raises(RateLimited, match="may need 101: shorten it"):
        RateLimits().take(key(tokens_per_minute=100), Size(100, 1), 0.0)


def test_a_limit_beyond_a_minute_is_a_ceiling_and_no_need():
    """Agents ask for 128,000 tokens and use a few hundred."""
    rates, made = RateLimits(), key(tokens_per_minute=100)
    taken = rates.take(made, Size(50, 128_000), 0.0)
    assert taken.tokens == 100
    with pytest.raises(RateLimited):
        rates.take(made, Size(1, 1), 1.0)
    rates.settle(taken, 60)
    assert rates.take(made, Size(30, 10), 1.0).tokens == 40


def test_undone_is_as_if_it_had_not_been():
    rates = RateLimits()
    made = key(requests_per_minute=1, tokens_per_minute=20)
    for _ in range(5):
        rates.undo(rates.take(made, SMALL, 3.0))
    rates.take(made, SMALL, 3.0)


def test_a_settlement_that_comes_after_the_minute_changes_nothing():
    rates = RateLimits()
    made = key(tokens_per_minute=100)
    old = rates.take(made, Size(0, 100), 0.0)
    rates.take(made, Size(0, 100), 62.0)
    rates.settle(old, 0)
    with pytest.raises(RateLimited):
        rates.take(made, Size(0, 1), 62.0)


def test_keys_do_not_share_a_minute():
    rates = RateLimits()
    for name in "abc":
        rates.take(Key(name, name, requests_per_minute=1), SMALL, 0.0)


@pytest.mark.parametrize("replicas, limit, share", [(1, 10, 10), (3, 10, 3), (4, 3, 1)])
def test_replicas_share_a_limit(replicas, limit, share):
    rates = RateLimits(replicas)
    for _ in range(share):
        rates.take(key(requests_per_minute=limit), SMALL, 0.0)
    with pytest.raises(RateLimited, match=f"{limit} requests"):
        rates.take(key(requests_per_minute=limit), SMALL, 0.0)


def test_a_changed_limit_holds_at_once():
    rates = RateLimits()
    for _ in range(5):
        rates.take(key(requests_per_minute=10), SMALL, 0.0)
    with pytest.raises(RateLimited):
        rates.take(key(requests_per_minute=5), SMALL, 1.0)
    rates.take(key(requests_per_minute=6), SMALL, 1.0)


def test_a_minute_forgets_what_is_old():
    minute, source = Minute(), random.Random(1)
    for now in range(1000):
        minute.add(source.randint(1, 9), float(now))
        minute.used(float(now))
    assert len(minute.slots) <= 62
