"""Tiers that share replicas: one circuit, one queue, one state of sleep, one report of what they can do."""

import asyncio
import time

import pytest
from balancing import PRICE, Clock, decided, rule

from deployments.endpoint.accounts import without_books
from deployments.endpoint.answering import Answering
from deployments.learning.filling.idleness import Idleness, OwnCalls
from deployments.tiers.tier import Tier
from deployments.traffic.balance import Balancer
from deployments.traffic.queue_exchange import Counts
from deployments.traffic.watched_tier import Watched
from router.config import Config
from router.decide.abilities import Abilities
from router.engine import Router
from router.errors import NoReplica, TierBusy
from router.traffic.breaker import FAILURES, Breaker

SMALL = {"name": "small", "engine": "vllm", "source": "x", "context": 9, "price": PRICE, "max_ongoing": 4}
RUNGS = [{"name": name, "on": "small", "lora": "x"} for name in ("mail", "sql")]


def ladder(**host) -> Config:
    return Config.model_validate({"tiers": [{**SMALL, **host}, *RUNGS, {**SMALL, "name": "large"}]})


class Broken(Tier):
    """Raises `error`."""

    def __init__(self, name: str) -> None:
        self.name, self.error = name, None

    async def complete(self, path, body, reading=None, call_id=""):
        if self.error:
            raise self.error
        raise NoReplica(self.name, "told to")


def watched(config: Config, clock=time.monotonic) -> dict[str, Watched]:
    breaker = Breaker(clock, lambda: 0.0, hosts=config.hosts)
    return {tier.name: Watched(Broken(tier.name), breaker, replicas=tier.most_replicas) for tier in config.tiers}


async def fail(tier: Watched) -> None:
    with pytest.raises(NoReplica):
        await tier.complete("chat/completions", {"messages": []})


def test_they_fall_together_and_one_that_works_lifts_all():
    tiers = watched(ladder())

    async def go():
        for tier in (tiers["mail"], tiers["sql"], tiers["small"])[:FAILURES]:
            await fail(tier)

    asyncio.run(go())
    breaker = tiers["small"].breaker
    assert all(tiers[name].resting() for name in ("small", "mail", "sql")) and not tiers["large"].resting()
    assert set(breaker.down(["small", "mail", "sql", "large"])) == {"small", "mail", "sql"}
    assert "tier sql" in str(tiers["sql"].resting())
    breaker.worked("sql")
    assert not any(tier.resting() for tier in tiers.values())


def test_a_full_host_and_broken_streams_count_for_all():
    config, clock = ladder(), Clock()
    tiers = watched(config, clock)
    breaker = tiers["mail"].breaker
    breaker.back_off("mail", 5.0)
    assert isinstance(tiers["small"].resting(), TierBusy) and breaker.back_off_s("sql") == 5.0
    clock.now = 6.0
    for name in ("small", "mail", "sql"):
        breaker.broke(name)
    assert breaker.open_s("small") > 0 and breaker.open_s("large") == 0


def test_the_ingress_gives_the_breaker_its_ladders_hosts():
    config = ladder()
    tiers = {name: Broken(name) for name in config.names}
    answering = Answering(Router(config, None, dict.fromkeys(config.names, len)), tiers, without_books())
    for _ in range(FAILURES):
        answering.breaker.failed("mail")
    assert asyncio.run(answering.state("sql")) == "circuit open"


def test_each_is_seen_with_the_requests_of_all():
    config, clock = ladder(), Clock()
    tiers = watched(config)
    tiers["small"].running, tiers["mail"].running, tiers["sql"].waiting = 1, 2, 3
    balancer = Balancer(config.tiers, tiers, clock=clock)
    balancer.look(0.0)
    loads = {name: balancer.seen[name].load for name in config.names}
    assert {(loads[name].running, loads[name].waiting, loads[name].capacity) for name in ("small", "mail", "sql")} == {
        (3, 3, 4.0)
    }
    assert (loads["large"].running, loads["large"].waiting) == (0, 0)


def test_of_several_ingresses_too():
    config, clock = ladder(), Clock()
    balancer = Balancer(config.tiers, watched(config), ingresses=2, clock=clock)
    balancer.others.counts, balancer.others.at_s = {"mail": Counts(1, 2, 3), "sql": Counts(4, 5, 6)}, 0.0
    balancer.look(0.0)
    load = balancer.seen["small"].load
    assert (load.waiting, load.running, balancer.seen["small"].finished) == (5, 7, 9)


def test_nothing_moves_from_a_crowded_host_to_its_own_rung():
    config, clock = ladder(), Clock()
    tiers = watched(config)
    balancer = Balancer(config.tiers, tiers, clock=clock)
    tiers["small"].running, tiers["small"].waiting = 4, 12
    placed = []
    for _ in range(60):
        clock.now += 0.5
        tiers["small"].finished += 1
        placed.append(balancer.place(decided(small=0.95, mail=0.99, sql=0.99, large=0.99), rule()).tier)
    assert "large" in placed and not {"mail", "sql"} & set(placed)


def test_they_sleep_together():
    config = ladder(replicas=0, max_replicas=2)
    tiers = watched(config)
    tiers["small"].count, tiers["mail"].count = 0, 1
    assert set(Balancer(config.tiers, tiers, clock=Clock()).cold()) == {"small", "mail", "sql"} == set(config.sleepers)


def test_what_the_hosts_replicas_found_counts_for_its_rungs():
    known = Abilities(ladder().tiers)
    known.report("small", {"tools": "it has no tool parser", "chat": ""})
    assert known.lacking("tools") == ["small", "mail", "sql"] and "no tool parser" in known.lack("mail", "tools")
    assert known.shown("sql") == known.shown("small") and known.shown("large")["able"] == []


def test_a_host_is_idle_only_when_its_rungs_are():
    config = ladder(accelerator="H100")
    tiers = watched(config)
    idleness = Idleness(tiers, {tier.name: tier for tier in config.tiers}, OwnCalls(), lambda name: 0.0)
    assert idleness.calls("small") == 0
    tiers["sql"].running = 1
    assert idleness.waits("small") == "small is not idle" and idleness.waits("mail") == "mail is not idle"
