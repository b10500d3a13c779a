"""Replicas and handles of the tests of lanes, both ends of a lane on one event loop."""

import asyncio
import itertools
import os
import random
import time
from contextlib import asynccontextmanager

from deployments.lane.lanes import Lanes, Running
from deployments.lane.places import CountedPlaces
from deployments.lane.server import LaneServer
from deployments.replicas.replica_health import ReplicaHealth
from deployments.replicas.replica_rank import ReplicaRank
from deployments.tiers.serve_tier import CallPolicy, ServeTier
from router.traffic.affinity import Affinity
from router.traffic.breaker import Breaker

BODY = {"model": "it", "messages": [{"role": "user", "content": "Zürich\n\u2028 \U0001f600"}]}
TOLD = '{"replica": "r", "busy_s": 0.5, "cached_tokens": 3, "late": {}, "replica_busy_s": 1, "replica_began_s": 2, "ratio": 1}'
NUMBERS = itertools.count()


class Replica:
    """What a replica answers to each call, and what it was asked."""

    def __init__(self) -> None:
        self.asked, self.ended, self.items, self.fault = [], 0, [(200, '{"text": "gr\u00fc\u00df"}', TOLD)], None
        self.go, self.gate_after = asyncio.Event(), 10**9

    async def openai(self, path, raw, call_id="", missed=(), hint=""):
        self.asked.append((path, raw, call_id, list(missed), hint))
        try:
            for n, item in enumerate(self.items):
                if n == self.gate_after:
                    await self.go.wait()
                yield item
            if self.fault:
                raise self.fault
        finally:
            self.ended += 1


class Handle:
    """Serve's: it is asked while there is no lane."""

    deployment_name = "tier-it"

    def __init__(self, replica):
        self.replica, self.calls = replica, 0

    def options(self, **_):
        return self

    def remote(self, *arguments):
        self.calls += 1
        return Items(self.replica.openai(*arguments))


class Items:
    def __init__(self, items):
        self.items = items

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await anext(self.items)

    def cancel(self):
        pass


async def one():
    return 1


class Cluster:
    """Replicas as Serve would tell of them, and the tier that calls them."""

    def __init__(self, network=None, most=float("inf")) -> None:
        self.network, self.most = network, most
        self.replicas: list[Replica] = []
        self.ends: list[LaneServer] = []
        self.running: tuple[Running, ...] = ()
        self.counts: dict[str, int] = {}

    def count(self, name):
        def change(by):
            self.counts[name] = self.counts.get(name, 0) + by

        return change

    async def start(self, limit=float("inf"), machine="here") -> LaneServer:
        """One more replica, which Serve tells of at once."""
        replica = Replica()
        name = f"test-{os.getpid()}-{next(NUMBERS)}"
        end = LaneServer(replica.openai, name, machine, CountedPlaces(self.most), self.network)
        await end.start()
        self.replicas.append(replica)
        self.ends.append(end)
        self.running = (*self.running, Running(name, end.address, limit, self.count(name)))
        return end

    def drop(self, end) -> None:
        """Serve takes the replica from its list."""
        self.running = tuple(one for one in self.running if one.name != end.name)


@asynccontextmanager
async def cluster(many=1, timeout_s=30.0, here="here", affinity="none", slack=8.0, context=None, **options):
    """(tier, cluster), with the lanes found."""
    made = Cluster(**options)
    for _ in range(many):
        await made.start()
    rank = ReplicaRank(ReplicaHealth(Breaker(time.monotonic, random.random)), Affinity(slack))
    lanes = Lanes(here, lambda: made.running, rank, context)
    tier = ServeTier("it", Handle(made.replicas[0]), one, CallPolicy(timeout_s, affinity), lanes=lanes)
    tier.health = rank.health
    await found(tier)
    try:
        yield tier, made
    finally:
        await tier.close()
        for end in made.ends:
            await end.close(1.0)


async def found(tier) -> None:
    """The lanes to the replicas that run now are looked for."""
    tier.lanes.look()
    for lane in list(tier.lanes.lanes.values()):
        if lane.looking:
            await lane.looking


@asynccontextmanager
async def laid(timeout_s=30.0, here="here"):
    """(tier, replica, its end of the lane), with the lane found."""
    async with cluster(1, timeout_s, here) as (tier, made):
        if lane_of(tier).way:
            await until(lambda: made.ends[0].open)
        yield tier, made.replicas[0], made.ends[0]


def lane_of(tier):
    """The only one."""
    (lane,) = tier.lanes.lanes.values()
    return lane


def go(scenario):
    async def limited():
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(limited())


async def all_of(tier):
    return [item async for item in tier.stream("chat/completions", BODY, None, "c")]


def killed(end):
    """As the system does with a killed process: its connections go, its calls get no word."""
    for connection in list(end.open):
        connection.transport.abort()


async def until(true):
    while not true():
        await asyncio.sleep(0.005)
