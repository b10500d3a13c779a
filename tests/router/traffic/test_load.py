"""Crowded tiers give work away within the promise and the price, refuse when all are full, and do not swing."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers import Rule
from router.traffic.load import Asked, BalanceSettings, BalanceState, Full, Load, Placed, adjust

COST = np.array([0.1, 0.3, 1.0])
EASY = np.array([0.92, 0.95, 0.98])
CHANCE, WORTH = Rule("chance", 0.9), Rule("utility", 0.5)


def load(wait_s=0.0, busy=0.0, at_s=0.0, capacity=10.0, rate=10.0):
    """A tier whose next request waits that long, or with so many places taken."""
    waiting = wait_s * rate - 1 if wait_s else 0.0
    return Load(waiting, capacity if wait_s else busy * capacity, capacity, rate, at_s)


IDLE, LONG, TOO_LONG = load(), load(5.0), load(40.0)


def asked(p=EASY, rule=CHANCE, allowed=(0, 1, 2), chosen=0):
    return Asked(np.array(p), COST, rule, allowed, chosen)


def steered(*loads, request=None, n=400, settings=None, every_s=0.1, state=None):
    """Where n requests go, one each tenth of a second, with news that stays as it is and is always fresh."""
    state, request = state or BalanceState(), request or asked()
    news = lambda now: [Load(x.waiting, x.running, x.capacity, x.rate, now) for x in loads]  # noqa: E731
    return [adjust(request, news(i * every_s), state, i * every_s, settings) for i in range(n)]


def share(placed, tier):
    late = placed[len(placed) // 2 :]
    return sum(isinstance(x, Placed) and x.tier == tier for x in late) / len(late)


FREE = BalanceSettings(most_extra=100.0)


@pytest.mark.parametrize(
    "loads, request_, to",
    [
        ((IDLE, IDLE, IDLE), asked(), 0),
        ((load(0.5), IDLE, IDLE), asked(), 0),
        ((load(8.0), IDLE, IDLE), asked(), 1),
        ((load(8.0), load(3.0), IDLE), asked(), 2),
        ((load(8.0), load(busy=1.0), IDLE), asked(), 2),
        ((load(8.0), IDLE, IDLE), asked(rule=None), 0),
        ((load(8.0), IDLE, IDLE), asked(rule=Rule("tier", 0)), 0),
        ((load(8.0), IDLE, IDLE), asked(allowed=(0, 2)), 2),
        ((IDLE, IDLE, load(8.0)), asked([0.5, 0.8, 0.95], chosen=2), 2),
        ((IDLE, IDLE, load(8.0)), asked([0.5, 0.6, 0.7], chosen=2), 2),
        ((IDLE, load(8.0), IDLE), asked([0.5, 0.9, 0.8], Rule("relative", 0.9), chosen=1), 1),
        ((IDLE, load(8.0), IDLE), asked([0.5, 0.9, 0.82], Rule("relative", 0.9), chosen=1), 2),
        ((IDLE, load(8.0), IDLE), asked([0.5, 0.9, 0.89], WORTH, chosen=1), 1),
        ((load(capacity=0.0), IDLE, IDLE), asked(), 1),
    ],
)
def test_where_most_requests_end_up(loads, request_, to):
    assert share(steered(*loads, request=request_, settings=FREE), to) > 0.7


def test_only_a_share_moves_and_it_grows_slowly():
    placed = steered(load(3.0), IDLE, IDLE, settings=FREE)
    assert {x.tier for x in placed[:20]} == {0}
    assert share(placed, 1) == pytest.approx((3.0 - 0.3) / 7.7, abs=0.03)


def test_a_tier_that_fills_closes_before_it_is_full():
    placed = steered(load(8.0), load(busy=0.8), load(busy=1.0), settings=FREE)
    assert 0.2 < share(placed, 1) < 0.6 and share(placed, 2) == 0


def test_old_news_moves_nothing():
    stale = [Load(90.0, 10.0, 10.0, 10.0, -6.0)] * 3
    assert adjust(asked(), stale, BalanceState(), 0.0) == Placed(0)


def test_what_moves_cost_more_stays_under_the_bound():
    state = BalanceState()
    placed = steered(load(8.0), load(3.0), IDLE, state=state, n=2_000, settings=BalanceSettings(most_extra=0.5))
    assert state.extra <= 0.5 * state.base + 1e-9
    assert share(placed, 2) == pytest.approx(0.5 * 0.1 / 0.9, abs=0.02)


def test_worth_is_a_mean_that_moves_up_pay_for_and_moves_down_spend():
    state = BalanceState()
    down = asked([0.8, 0.85, 0.9], WORTH, chosen=2)
    assert share(steered(IDLE, IDLE, load(8.0), request=down, state=state, settings=FREE), 2) == 1.0
    state = BalanceState(gained=1.0)
    placed = steered(IDLE, IDLE, load(8.0), request=down, state=state, settings=FREE)
    spent = sum(0.9 - down.p[x.tier] for x in placed)
    assert 0.3 < spent <= 1.0 and state.gained >= 0


@pytest.mark.parametrize(
    "loads, request_, expected",
    [
        ((TOO_LONG, TOO_LONG, TOO_LONG), asked(), 10.0),
        ((TOO_LONG, load(33.0), load(35.0)), asked(), 3.0),
        ((TOO_LONG, IDLE, IDLE), asked(rule=None), 10.0),
        ((TOO_LONG, IDLE, IDLE), asked([0.95, 0.5, 0.5]), 10.0),
        ((TOO_LONG, load(200.0), load(200.0)), asked(allowed=(1,), chosen=1), 60.0),
        ((load(capacity=0.0),) * 3, asked(), 10.0),
        ((Load(41, 10, 10, None, 0.0),) * 3, asked(), 10.0),
    ],
)
def test_all_full_is_refused_with_a_time_to_come_back(loads, request_, expected):
    (refused,) = steered(*loads, request=request_, n=1)
    assert isinstance(refused, Full) and refused.retry_after_s == pytest.approx(expected)


def test_a_full_tier_overflows_at_once_whatever_it_costs():
    (placed,) = steered(TOO_LONG, TOO_LONG, IDLE, n=1, settings=BalanceSettings(most_extra=0.0))
    assert (placed.tier, placed.why) == (2, "overflow")


def test_a_rate_that_is_not_known_yet_is_no_wait():
    assert Load(50, 10, 10, None, 0.0).wait_s == 0
    assert isinstance(adjust(asked(), [Load(39, 10, 10, None, 0.0)] * 3, BalanceState(), 0.0), Placed)


CHANCES = st.lists(st.floats(0, 1), min_size=3, max_size=3)
LOADS = st.builds(load, st.sampled_from([0.0, 0.5, 2.0, 8.0, 31.0]), st.floats(0, 1), capacity=st.sampled_from([0.0, 10.0]))


@pytest.mark.slow
@given(
    CHANCES,
    st.sampled_from(["chance", "relative", "utility"]),
    st.floats(0, 1),
    st.lists(LOADS, min_size=3, max_size=3),
    st.sets(st.integers(0, 2), min_size=1),
)
def test_no_move_breaks_a_promise(p, kind, value, loads, allowed):
    from classifiers import choose

    rule, allowed, p = Rule(kind, value), sorted(allowed), np.array(p)
    chosen = allowed[choose(p[allowed], COST[allowed], rule)[0]]
    state, total = BalanceState(), 0.0
    for placed in steered(*loads, request=Asked(p, COST, rule, allowed, chosen), n=60, every_s=0.9, state=state):
        if isinstance(placed, Full):
            continue
        assert placed.tier in allowed
        total += p[placed.tier] - p[chosen]
        bar = value * (p[allowed].max() if kind == "relative" else 1.0)
        assert total >= -1e-9 if kind == "utility" else p[placed.tier] >= min(bar, p[chosen])


# -- does it swing? -------------------------------------------------------------------------------------------------------


def cluster(settings, per_s, seed=0, seconds=200, delay_s=2.0, peers=2):
    """Requests sent to each tier, by second: (seconds, 3). Two ingresses that know of each other by late news only.

    20, 20 and 40 places, two seconds a request. News is made each second and is `delay_s` old when it comes.
    """
    random, places, took_s, dt = np.random.default_rng(seed), np.array([20.0, 20.0, 40.0]), 2.0, 0.05
    here, news, sent = np.zeros(3), [(-delay_s, np.zeros(3))], np.zeros((seconds, 3))
    states, request = [BalanceState() for _ in range(peers)], asked(p=[0.9, 0.95, 0.97])
    for step in range(int(seconds / dt)):
        now = step * dt
        here -= np.minimum(here, np.minimum(here, places) / took_s * dt)
        if step % round(1 / dt) == 0:
            news.append((now, here.copy()))
        at_s, seen = next((n for n in reversed(news) if n[0] <= now - delay_s), news[0])
        loads = [Load(max(0, q - c), min(q, c), c, c / took_s, at_s) for q, c in zip(seen, places, strict=True)]
        for who in random.integers(peers, size=random.poisson(per_s * dt)):
            placed = adjust(request, loads, states[who], now, settings)
            if isinstance(placed, Placed):
                here[placed.tier] += 1
                sent[int(now), placed.tier] += 1
    return sent


EAGER = BalanceSettings(start_s=0.01, stop_s=0.0, all_s=0.02, slew_per_s=1e9, idle=0.99, most_extra=100.0, most_wait_s=1e9)


def swing(sent, per_s):
    """Spread of the first tier's requests by the second, over what chance alone (Poisson) gives."""
    late = sent[len(sent) // 2 :, 0]
    return late.std() / np.sqrt(late.mean())


@pytest.mark.slow
@pytest.mark.parametrize("per_s", [15, 30])
@pytest.mark.parametrize("delay_s", [1.0, 2.0])
def test_two_ingresses_with_late_news_do_not_swing(per_s, delay_s):
    ours, eager = (cluster(s, per_s, delay_s=delay_s) for s in (FREE, EAGER))
    assert swing(ours, per_s) < 1.3  # what is left is the arrivals' own
    assert swing(eager, per_s) > 2.0  # the same news, answered at once
    late = ours[100:].mean(axis=0)
    assert late[0] == pytest.approx(10, abs=1.0) and late.sum() > 0.97 * per_s  # the first tier is used to its capacity


def test_when_the_crowd_goes_the_work_comes_back():
    state, now = BalanceState(), itertools.count()
    for wait_s, last in ((8.0, 1), (0.0, 0)):
        for _ in range(60):
            at = float(next(now))
            loads = [load(wait_s, at_s=at), load(at_s=at), load(at_s=at)]
            placed = adjust(asked(), loads, state, at, FREE)
        assert placed.tier == last
    assert state.moving[0].value == 0.0
