"""Ingresses hear of each other's load: two balancers over one cluster agree; one whose exchange is silent goes on."""

import asyncio

import pytest
from balancing import PRICE, Clock, decided, rule

from deployments.traffic.balance import Balancer
from deployments.traffic.queue_exchange import STALE_S, Counts, OtherIngresses, QueueExchange, QueueReporter
from deployments.traffic.watched_tier import Watched
from router.config import VllmTier
from router.errors import Overloaded
from router.traffic.breaker import Breaker

NAMES = ("small", "large")


@pytest.fixture
def clock():
    return Clock()


def balancer(clock, ingresses=2, **changes):
    given = {"engine": "vllm", "source": "x", "context": 9, "price": PRICE, "max_ongoing": 8, **changes}
    tiers = [VllmTier(name=n, **given) for n in NAMES]
    watched = {t.name: Watched(type("T", (), {"name": t.name})(), Breaker(clock, lambda: 0.0)) for t in tiers}
    return Balancer(tiers, watched, ingresses, clock)


def exchanged(clock, exchange, *balancers):
    """What a second's exchange does."""
    for n, one in enumerate(balancers):
        one.others.counts, one.others.at_s = asyncio.run(exchange.report(f"i{n}", one.counts())), clock.now


def crowd(clock, exchange, mine, others, seconds=30, rate=2):
    """All work at `small` came through the other ingress: 8 run there and 24 wait. Where ours are sent."""
    others.watched["small"].running, others.watched["small"].waiting = 8, 24
    placed = []
    for n in range(seconds * 2):
        clock.now += 0.5
        if n % 2:
            others.watched["small"].finished += rate
            exchanged(clock, exchange, mine, others)
        placed.append(mine.place(decided(), rule()).tier)
    return placed


def test_a_queue_that_came_through_another_ingress_is_seen(clock):
    mine, others = balancer(clock), balancer(clock)
    placed = crowd(clock, QueueExchange(clock), mine, others)
    assert placed[0] == "small" and placed[-10:].count("large") >= 5


def test_without_news_an_ingress_knows_nothing_of_it(clock):
    mine, others = balancer(clock), balancer(clock)
    others.watched["small"].waiting = 24
    for _ in range(60):
        clock.now += 0.5
        assert mine.place(decided(), rule()).tier == "small"


def test_both_see_the_same_places_and_the_same_requests(clock):
    one, two, exchange = balancer(clock), balancer(clock), QueueExchange(clock)
    one.watched["small"].running, two.watched["small"].running, two.watched["large"].waiting = 3, 5, 2
    for _ in range(2):
        exchanged(clock, exchange, one, two)
    for which in (one, two):
        which.look(clock.now)
        small, large = (which.seen[name].load for name in NAMES)
        assert (small.running, small.capacity, large.waiting) == (8, 8, 2)


def test_alone_an_ingress_has_all_places_and_in_silence_its_part(clock):
    alone, silent = balancer(clock, ingresses=1), balancer(clock, ingresses=2)
    for which in (alone, silent):
        which.look(clock.now)
    assert (alone.seen["small"].load.capacity, silent.seen["small"].load.capacity) == (8, 4)


def test_when_the_exchange_falls_silent_old_news_are_dropped(clock):
    mine, others, exchange = balancer(clock), balancer(clock), QueueExchange(clock)
    others.watched["small"].running = 8
    for _ in range(2):
        exchanged(clock, exchange, mine, others)
    mine.look(clock.now)
    assert mine.seen["small"].load.running == 8
    clock.now += STALE_S + 1
    mine.look(clock.now)
    load = mine.seen["small"].load
    assert (load.running, load.capacity) == (0, 4)


def test_a_cluster_that_is_full_through_others_is_full(clock):
    mine, others, exchange = balancer(clock), balancer(clock), QueueExchange(clock)
    for watched in others.watched.values():
        watched.running, watched.waiting = 8, 100
    for _ in range(2):
        exchanged(clock, exchange, mine, others)
    clock.now += 0.5
    with pytest.raises(Overloaded):
        mine.place(decided(), rule())


def test_an_ingress_that_is_gone_has_nothing_under_way_but_what_it_finished_stays(clock):
    exchange = QueueExchange(clock)

    async def told():
        await exchange.report("gone", {"small": Counts(3, 4, 100)})
        clock.now += STALE_S + 1
        return await exchange.report("here", {"small": Counts(1, 1, 1)})

    assert asyncio.run(told()) == {"small": Counts(0, 0, 100)}


@pytest.mark.slow
def test_an_exchange_that_fails_or_hangs_is_tried_again_and_nobody_waits():
    others, asked = OtherIngresses(), []

    async def tell(who, counts):
        asked.append(counts)
        if len(asked) == 1:
            raise RuntimeError("the actor died")
        return {"small": Counts(1, 2, 3)}

    async def run():
        reporter = QueueReporter(tell, lambda: {"small": Counts()}, others)
        reporter.start()
        while not others.counts:
            await asyncio.sleep(0.01)
        await reporter.stop()

    asyncio.run(asyncio.wait_for(run(), 10))
    assert others.counts == {"small": Counts(1, 2, 3)} and len(asked) == 2


# -- a tier that sleeps -----------------------------------------------------------------------------------------------


def sleeping(clock, count):
    made = balancer(clock, ingresses=1, replicas=0, max_replicas=2)
    made.watched["small"].count, made.watched["large"].count = 1, count
    return made


def test_a_tier_without_a_replica_while_nobody_asks_is_not_full_and_takes_no_others_work(clock):
    made = sleeping(clock, count=0)
    assert made.cold() == {"large": "no replica is warm"}
    assert made.place(decided("large"), rule()).tier == "large"
    small = made.watched["small"]
    small.running, small.waiting = 8, 24
    for n in range(60):
        clock.now += 0.5
        small.finished += n % 2
        assert made.place(decided(), rule()).tier == "small"


def test_when_all_that_is_warm_is_full_a_sleeping_tier_is_better_than_a_refusal(clock):
    made = sleeping(clock, count=0)
    made.watched["small"].running, made.watched["small"].waiting = 8, 100
    clock.now += 1
    assert made.place(decided(), rule()).tier == "large"
