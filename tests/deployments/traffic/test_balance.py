"""Queues move work, within the promise: what one ingress sees of its tiers decides where the next request goes."""

import pytest
from balancing import PRICE, Clock, decided, rule

from deployments.traffic.balance import Balancer
from deployments.traffic.queue_exchange import Counts
from deployments.traffic.watched_tier import Watched
from router.config import VllmTier
from router.errors import Overloaded
from router.traffic.breaker import Breaker
from router.types import Decision


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def balancer(clock):
    tiers = [VllmTier(name=n, engine="vllm", source="x", context=9, price=PRICE, max_ongoing=4) for n in ("small", "large")]
    breaker = Breaker(clock, lambda: 0.0)
    return Balancer(tiers, {t.name: Watched(type("T", (), {"name": t.name})(), breaker) for t in tiers}, clock=clock)


def crowd(balancer, clock, tier, waiting, seconds=30, rate=1.0):
    """The tier has that many waiting for so long, and finishes `rate` requests a second."""
    watched = balancer.watched[tier]
    watched.running, watched.waiting = 4, waiting
    placed = []
    for _ in range(seconds * 2):
        clock.now += 0.5
        watched.finished += int(rate * clock.now) - int(rate * (clock.now - 0.5))
        placed.append(balancer.place(decided(), rule()).tier)
    return placed


def test_without_a_queue_nothing_moves(balancer):
    assert {balancer.place(decided(), rule()).tier for _ in range(100)} == {"small"}


def test_a_queue_moves_some_then_most_of_what_the_promise_lets_move(balancer, clock):
    placed = crowd(balancer, clock, "small", waiting=12)
    assert placed[0] == "small" and "large" in placed
    assert placed[-10:].count("large") > placed[:10].count("large")
    moved = next(d for _ in range(50) if (d := balancer.place(decided(), rule())).tier == "large")
    assert (moved.reason, moved.first) == ("moved off a queue", ("large",))


def test_what_was_asked_for_by_name_stays(balancer, clock):
    crowd(balancer, clock, "small", waiting=12)
    named = Decision("small", "asked for", "small")
    assert {balancer.place(named, None).tier for _ in range(50)} == {"small"}


def test_nothing_moves_below_what_the_target_promises(balancer, clock):
    watched = balancer.watched["large"]
    watched.running, watched.waiting = 4, 12
    poor = decided("large", small=0.3, large=0.99)
    for _ in range(40):
        clock.now += 0.5
        assert balancer.place(poor, rule()).tier == "large"


def test_when_every_tier_that_may_answer_is_full_it_is_said_at_once(balancer, clock):
    for watched in balancer.watched.values():
        watched.running, watched.waiting = 4, 100
    clock.now += 1
    with pytest.raises(Overloaded) as raised:
        balancer.place(decided(), rule())
    assert raised.value.retry_after_s >= 1


def test_a_tier_of_which_no_replica_was_seen_is_asked_all_the_same(balancer, clock):
    """The first look comes before the replicas do; one that stays away fails by itself, and its circuit opens."""
    balancer.watched["small"].count = 0
    clock.now += 1
    assert balancer.place(decided(), rule()).tier == "small"


def test_what_the_other_ingresses_have_is_known_while_they_are_heard(balancer, clock):
    balancer.others.counts, balancer.others.at_s = {"small": Counts(1, 2, 9)}, clock.now
    assert balancer.elsewhere("small") == 3 and balancer.elsewhere("large") == 0
    clock.now += 60
    assert balancer.elsewhere("small") == 0
