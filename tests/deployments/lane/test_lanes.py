"""Lanes to several replicas: which one gets a call, full ones, and replicas that come, drain and die."""

import asyncio
import json
import random
import time
from collections import Counter

import pytest
from laid_lanes import BODY, TOLD, all_of, cluster, found, go, killed, until

from deployments.lane import sockets
from deployments.lane.lanes import Lanes, Running
from deployments.replicas.replica_health import ReplicaHealth
from deployments.replicas.replica_rank import ReplicaRank
from deployments.traffic.watched_tier import Watched
from router.errors import NoReplica, TierFailed
from router.traffic.affinity import Affinity, hint_of
from router.traffic.breaker import FAILURES, Breaker


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sockets.tempfile, "gettempdir", lambda: "/tmp" if len(str(tmp_path)) > 60 else str(tmp_path))


def chat(text):
    return {"model": "it", "messages": [{"role": "user", "content": text}]}


async def ask(tier, text, call_id="", **more):
    return await tier.complete("chat/completions", chat(text) | more, None, call_id)


def shares(made):
    return [len(replica.asked) for replica in made.replicas]


def test_calls_spread_over_all_replicas_and_none_goes_by_the_handle():
    async def scenario():
        async with cluster(2) as (tier, made):
            for replica in made.replicas:
                replica.gate_after = 0
            asked = [asyncio.create_task(ask(tier, f"{n}", f"c{n}")) for n in range(40)]
            await until(lambda: sum(shares(made)) == 40)
            assert shares(made) == [20, 20]  # the shorter queue of the two
            assert sorted(made.counts.values()) == [20, 20]  # as Serve's scaling hears it
            for replica in made.replicas:
                replica.go.set()
            await asyncio.gather(*asked)
            assert tier.handle.calls == 0 and set(made.counts.values()) == {0}
            assert [lane.busy for lane in tier.lanes.lanes.values()] == [0, 0]

    go(scenario)


def test_a_conversation_stays_with_its_replica_until_the_queue_there_is_too_long():
    async def scenario():
        async with cluster(3, affinity="prefix", slack=4) as (tier, made):
            for _ in range(12):
                await ask(tier, "the same again")
            assert sorted(shares(made)) == [0, 0, 12]
            for n in range(60):
                await ask(tier, f"conversation {n}")
            assert min(shares(made)) > 5
            (home,) = [replica for replica in made.replicas if '"the same again"' in replica.asked[0][1]]
            home.gate_after, before = 0, shares(made)
            for replica in made.replicas:
                replica.gate_after = 0
            asked = [asyncio.create_task(ask(tier, "the same again")) for _ in range(12)]
            await until(lambda: sum(shares(made)) == sum(before) + 12)
            grown = [now - then for now, then in zip(shares(made), before, strict=True)]
            assert min(grown) >= 1 and max(grown) <= 8  # others take what is over the slack
            for replica in made.replicas:
                replica.go.set()
            await asyncio.gather(*asked)

    go(scenario)


def test_a_full_replica_refuses_and_the_next_answers_at_last_the_handle():
    """The replicas are full with the calls of another ingress, of which this one does not know."""

    async def scenario():
        async with cluster(2, most=1) as (tier, made):
            made.ends[0].places.count = 1
            for n in range(6):
                assert await ask(tier, f"{n}", f"c{n}")
                await asyncio.sleep(0)
            assert shares(made) == [0, 6] and tier.handle.calls == 0
            made.ends[1].places.count = 1
            assert await ask(tier, "last", "last")
            assert tier.handle.calls == 1 and "last" not in tier.health.sent
            made.ends[0].places.count = made.ends[1].places.count = 0
            await until(lambda: not any(lane.full for lane in tier.lanes.lanes.values()))
            assert await ask(tier, "free again", "again")
            assert tier.handle.calls == 1 and set(made.counts.values()) == {0}

    go(scenario)


def test_no_replica_gets_more_of_our_calls_than_it_takes():
    async def scenario():
        async with cluster(0 + 1) as (tier, made):
            made.running = tuple(one._replace(limit=2) for one in made.running)
            await made.start(limit=3)
            await found(tier)
            for replica in made.replicas:
                replica.gate_after = 0
            asked = [asyncio.create_task(ask(tier, f"{n}", f"c{n}")) for n in range(8)]
            await until(lambda: sum(shares(made)) == 8)
            assert tier.handle.calls == 3 and shares(made)[1] == 3
            for replica in made.replicas:
                replica.go.set()
            await asyncio.gather(*asked)

    go(scenario)


def test_what_other_ingresses_have_there_counts_as_the_replica_told_it():
    async def scenario():
        async with cluster(2, most=50) as (tier, made):
            made.ends[0].places.count = 30
            for n in range(12):
                await ask(tier, f"{n}")
                await asyncio.sleep(0)
            told = tier.lanes.queue(made.ends[0].name)
            assert (told == 30 and shares(made)[0] == 1) or (told == 0 and shares(made)[0] == 0)
            lane = tier.lanes.lanes[made.ends[0].name]
            lane.others_until_s = float("-inf")
            assert lane.queue == 0  # what was told long ago is not believed

    go(scenario)


def test_a_new_replica_gets_calls_without_a_restart_and_a_dropped_one_ends_what_it_has():
    async def scenario():
        async with cluster(1) as (tier, made):
            await ask(tier, "first")
            await made.start()
            await found(tier)
            made.replicas[0].gate_after = 0
            asked = asyncio.create_task(ask(tier, "long"))
            while len(made.replicas[0].asked) < 2:  # it went to the other one
                await asyncio.sleep(0.001)
                if asked.done():
                    asked = asyncio.create_task(ask(tier, "long"))
            made.drop(made.ends[0])
            for n in range(5):
                await ask(tier, f"{n}")
            assert len(made.replicas[1].asked) >= 5 and list(tier.lanes.lanes) == [made.ends[1].name]
            made.replicas[0].go.set()
            assert await asked
            assert set(made.counts.values()) == {0} and tier.handle.calls == 0
            await until(lambda: not made.ends[0].open)  # its connections are closed, the busy one after its call

    go(scenario)


def test_a_lost_replica_is_retried_at_a_sibling_and_left_out_while_it_is_gone():
    async def scenario():
        async with cluster(2) as (inner, made):
            tier = Watched(inner, Breaker(time.monotonic, random.random), replicas=2)
            said = {"index": 0, "message": {"role": "assistant", "content": "Zug"}, "finish_reason": "stop"}
            whole = {"id": "x", "object": "chat.completion", "created": 0, "model": "it", "choices": [said]}
            for replica in made.replicas:
                replica.items = [(200, json.dumps({**whole, "usage": {"prompt_tokens": 1, "completion_tokens": 1}}), TOLD)]
            dead = made.replicas[0]
            dead.gate_after = 0
            asked = [asyncio.create_task(tier.complete("chat/completions", chat(f"{n}"), None, f"c{n}")) for n in range(8)]
            await until(lambda: len(dead.asked) == 4)
            made.ends[0].listening[0].close()
            killed(made.ends[0])
            assert len(await asyncio.gather(*asked)) == 8  # none of the clients heard of it
            assert len(made.replicas[1].asked) == 8 and inner.handle.calls == 0
            for n in range(20):
                await inner.complete("chat/completions", chat(f"{n}"), None, f"d{n}")
            assert len(dead.asked) == 4 and inner.handle.calls == 0
            assert [status.state for status in inner.lanes.status()] == ["lost", "open"]

    go(scenario)


def test_an_ill_replica_is_left_out_as_it_is_with_handles():
    async def scenario():
        async with cluster(2) as (tier, made):
            made.replicas[0].items = [(500, '{"error": {"message": "ill"}}', "")]
            failures = 0
            for n in range(60):
                try:
                    await ask(tier, f"{n}", f"c{n}")
                except TierFailed:
                    failures += 1
            assert failures == FAILURES == len(made.replicas[0].asked)

    go(scenario)


def test_a_stream_of_a_replica_that_dies_breaks_and_counts_against_it():
    async def scenario():
        async with cluster(2) as (tier, made):
            for replica in made.replicas:
                replica.items, replica.gate_after = [*replica.items, *replica.items], 1
            asked = asyncio.create_task(all_of(tier))
            await until(lambda: sum(shares(made)))
            (n,) = [n for n in (0, 1) if made.replicas[n].asked]
            await asyncio.sleep(0.01)
            killed(made.ends[n])
            with pytest.raises(TierFailed, match="mid-answer"):
                await asked
            assert list(tier.health.breaker.circuits) == [made.ends[n].name]

    go(scenario)


def test_without_replicas_and_where_nothing_is_known_calls_go_by_the_handle():
    async def scenario():
        async with cluster(1) as (tier, made):
            running, made.running = made.running, ()
            await ask(tier, "asleep")
            made.running = None
            await ask(tier, "unknown")
            assert tier.handle.calls == 2 and not tier.lanes.lanes and tier.lanes.status() == []
            made.running = running
            await found(tier)
            await ask(tier, "awake")
            assert tier.handle.calls == 2

    go(scenario)


def test_a_replica_without_a_lane_gets_its_share_by_the_handle():
    async def scenario():
        async with cluster(1) as (tier, made):
            made.running = (*made.running, Running("far", None))
            for n in range(40):
                await ask(tier, f"{n}", f"c{n}")
            assert 5 < tier.handle.calls < 35
            assert [status.state for status in tier.lanes.status()] == ["open", "handle"]

    go(scenario)


def test_the_status_counts_calls():
    async def scenario():
        async with cluster(2) as (tier, made):
            for n in range(10):
                await ask(tier, f"{n}")
            assert sum(status.calls for status in tier.lanes.status()) == 10
            assert [status.busy for status in tier.lanes.status()] == [0, 0]

    go(scenario)


def test_the_first_call_after_all_lanes_were_closed_goes_by_the_handle():
    async def scenario():
        async with cluster(2) as (tier, made):
            await tier.close()
            assert await ask(tier, "late") and tier.handle.calls == 1

    go(scenario)


def test_no_first_token_and_leaving_free_the_lane():
    async def scenario():
        async with cluster(2, timeout_s=0.05) as (tier, made):
            for replica in made.replicas:
                replica.gate_after = 0
            with pytest.raises(NoReplica, match="no answer within"):
                await ask(tier, "slow", "slow", max_tokens=1)
            asked = asyncio.create_task(ask(tier, "left", "left"))
            await until(lambda: sum(shares(made)) == 2)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            await until(lambda: all(replica.ended == len(replica.asked) for replica in made.replicas))
            assert set(made.counts.values()) <= {0}

    go(scenario)


def order(rank, names, call_id="", hint="", queue=None):
    return list(rank.order(names, call_id, hint, (queue or {}).get if queue else lambda name: 0.0))


def test_the_order_names_every_replica_that_may_have_the_call_once():
    rank = ReplicaRank(ReplicaHealth(Breaker(time.monotonic, random.random)), Affinity(2.0))
    names = [f"r{n}" for n in range(5)]
    queue = {name: float(n) for n, name in enumerate(names)}
    for _ in range(50):
        found = order(rank, names, queue=queue)
        assert sorted(found) == names and queue[found[0]] < queue[found[1]] and found[2:] == sorted(found[2:])
    rank.routed("c", "", "r0")
    assert sorted(order(rank, names, "c")) == names[1:]  # a call is not sent twice to the same one
    hint = hint_of(BODY, "mine", "session")
    rank.routed("d", hint, "r3")
    assert order(rank, names, "e", hint)[0] == "r3"
    assert order(rank, names, "e", hint, {**queue, "r3": 30.0})[0] == "r0"
    assert order(rank, [], "f", hint) == [] and order(rank, ["r1"], "f", hint) == ["r1"]


def test_the_first_choice_falls_on_all_alike():
    rank = ReplicaRank(ReplicaHealth(Breaker(time.monotonic, random.random)))
    counts = Counter(order(rank, ["a", "b", "c"])[0] for _ in range(600))
    assert min(counts.values()) > 120


def test_lanes_hear_of_a_changed_limit():
    async def scenario():
        async with cluster(1) as (tier, made):
            made.running = tuple(one._replace(limit=7) for one in made.running)
            tier.lanes.look()
            (lane,) = tier.lanes.lanes.values()
            assert lane.limit == 7 and lane.way and isinstance(tier.lanes, Lanes)
            assert json.loads((await ask(tier, "x")).decode())

    go(scenario)
