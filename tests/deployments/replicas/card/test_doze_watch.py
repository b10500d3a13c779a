"""What an ingress knows of tiers that doze: asked seldom, never so that a replica starts, and shown."""

import asyncio

import pytest

from deployments.replicas.card import doze_watch
from deployments.replicas.card.doze_watch import FORGET_S, LOOK_EVERY_S, DozeWatch


class Replicas:
    """Say what the test sets, one after the other."""

    def __init__(self, *said) -> None:
        self.said, self.asked, self.count = list(said), 0, 1

    async def ask(self):
        self.asked += 1
        return self.said.pop(0)

    async def running(self):
        return self.count


@pytest.fixture
def clock():
    class Clock:
        now = 100.0

        def __call__(self):
            return self.now

    return Clock()


def looked(watch):
    asyncio.run(watch.look())
    return watch.state


def test_a_replica_is_asked_once_in_a_while(clock):
    replicas = Replicas(("r", "awake"), ("r", "dozing"))
    watch = DozeWatch(replicas.ask, replicas.running, clock)
    assert watch.state == ""
    assert [looked(watch), looked(watch)] == ["awake", "awake"] and replicas.asked == 1
    clock.now += LOOK_EVERY_S
    assert looked(watch) == "dozing"


def test_a_tier_without_replicas_is_not_asked_for_that_would_start_one(clock):
    replicas = Replicas(("r", "dozing"))
    watch = DozeWatch(replicas.ask, replicas.running, clock)
    assert looked(watch) == "dozing"
    clock.now += LOOK_EVERY_S
    replicas.count = 0
    assert looked(watch) == "" and replicas.asked == 1


def test_of_several_replicas_one_that_is_awake_decides_until_it_is_no_longer_heard_of(clock):
    replicas = Replicas(("a", "dozing"), ("b", "awake"), *[("a", "dozing")] * 6, ("a", "waking"))
    watch = DozeWatch(replicas.ask, replicas.running, clock)
    found = []
    for _ in range(9):
        found.append(looked(watch))
        clock.now += LOOK_EVERY_S
    assert found == ["dozing", *["awake"] * 6, "dozing", "waking"] and FORGET_S == 60.0


def test_a_replica_that_does_not_answer_changes_nothing(clock, monkeypatch):
    monkeypatch.setattr(doze_watch, "PATIENCE_S", 0.01)
    replicas = Replicas(("r", "dozing"))
    watch = DozeWatch(replicas.ask, replicas.running, clock)
    assert looked(watch) == "dozing"
    watch.ask = lambda: asyncio.sleep(60)
    clock.now += LOOK_EVERY_S
    with pytest.raises(TimeoutError):
        asyncio.run(watch.look())
    assert watch.state == "dozing"
