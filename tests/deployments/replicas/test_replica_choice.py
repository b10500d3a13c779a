"""Serve's own routing loop over our choice: full and dead replicas are passed over, and nobody is left waiting."""

import asyncio
from collections import Counter

import httpx
import pytest
from live import ladder, serving
from ray.exceptions import ActorDiedError
from ray.serve._private.common import DeploymentHandleSource, DeploymentID, ReplicaID, RequestMetadata
from ray.serve.config import RequestRouterConfig
from ray.serve.request_router import PendingRequest
from scripted_tier import Said, ScriptedTier

from deployments.tiers.tier import SESSION
from router.engine import Router
from router.traffic.affinity import hint_of

D = DeploymentID("tier-small", "stepdown")
PLACES = 4


class Replica:
    """What Serve knows of one: how many requests it has, or that its process is gone."""

    max_ongoing_requests = PLACES
    is_cross_language = False
    multiplexed_model_ids = ()
    node_id, availability_zone = "n", None

    def __init__(self, name: str) -> None:
        self.replica_id = ReplicaID(name, D)
        self.ongoing, self.dead = 0, False

    async def get_queue_len(self, deadline_s: float) -> int:
        if self.dead:
            raise ActorDiedError
        return self.ongoing


class Tier:
    """Replicas behind the router that Serve would make of the settings."""

    def __init__(self, many: int = 3, slack: float = 2) -> None:
        settings = RequestRouterConfig(request_router_class="deployments.replicas.replica_choice.AffineRouter")
        kind = settings.get_request_router_class()
        self.replicas = [Replica(f"r{n}") for n in range(many)]
        self.router = kind(D, DeploymentHandleSource.REPLICA, use_replica_queue_len_cache=True)
        self.router.initialize_state(slack=slack)
        self.router.update_replicas(self.replicas)
        self.sent = 0

    async def send(self, content: str, hinted: bool = True) -> Replica:
        body = {"messages": [{"role": "user", "content": content}]}
        args = ["chat/completions", "{}", "", [], *([hint_of(body, "", "prefix")] if hinted else [])]
        self.sent += 1
        request = PendingRequest(args, {}, RequestMetadata(f"{self.sent}", f"{self.sent}"))
        replica = await asyncio.wait_for(self.router._choose_replica_for_request(request), 5)
        self.router.on_send_request(replica.replica_id)
        self.router.on_request_routed(request, replica.replica_id, None)
        replica.ongoing += 1
        return replica

    def done(self, replica: Replica) -> None:
        replica.ongoing -= 1
        self.router.decrement_queue_len_cache(replica.replica_id)

    async def ask(self, content: str, hinted: bool = True) -> str:
        replica = await self.send(content, hinted)
        self.done(replica)
        return replica.replica_id.unique_id


def test_the_same_conversation_the_same_replica_and_others_spread():
    async def run():
        tier = Tier()
        assert len({await tier.ask("again") for _ in range(20)}) == 1
        counts = Counter([await tier.ask(f"{n}") for n in range(60)])
        assert len(counts) == 3 and min(counts.values()) > 5

    asyncio.run(run())


def test_what_has_no_hint_is_spread_by_load():
    async def run():
        tier = Tier(2)
        sent = [await tier.send("again", hinted=False) for _ in range(6)]
        assert Counter(r.replica_id.unique_id for r in sent) == {"r0": 3, "r1": 3}

    asyncio.run(run())


@pytest.mark.slow
def test_a_full_replica_is_passed_over_and_one_place_serves_a_burst_of_one_conversation():
    async def run():
        tier = Tier(2, slack=100)
        sent = [await tier.send("again") for _ in range(2 * PLACES)]
        assert Counter(r.ongoing for r in tier.replicas) == {PLACES: 2}
        burst = [asyncio.create_task(tier.send(text)) for text in ("again", "again", "again", "another")]
        await asyncio.sleep(0.2)
        assert not any(task.done() for task in burst)
        for replica in sent[:4]:
            tier.done(replica)
        assert len(await asyncio.wait_for(asyncio.gather(*burst), 10)) == 4

    asyncio.run(run())


@pytest.mark.parametrize("known", [True, False])
def test_a_dead_replica_is_passed_over_and_forgotten(known):
    async def run():
        tier = Tier()
        home = await tier.ask("again")
        dead = next(r for r in tier.replicas if r.replica_id.unique_id == home)
        dead.dead = True
        if known:  # a call to it failed
            tier.router.on_replica_actor_died(dead.replica_id)
        else:  # nothing was heard of it lately
            tier.router.on_replica_actor_unavailable(dead.replica_id)
        after = {await tier.ask("again") for _ in range(10)}
        assert home not in after and len(after) == 1

    asyncio.run(run())


def test_requests_that_came_before_the_first_replica_are_sent_when_it_is_there():
    async def run():
        tier = Tier(0)
        asked = [asyncio.create_task(tier.ask(f"{n}")) for n in range(5)]
        await asyncio.sleep(0.1)
        tier.router.update_replicas([Replica("late")])
        assert set(await asyncio.gather(*asked)) == {"late"}

    asyncio.run(run())


def test_a_client_that_leaves_while_it_waits_leaves_nothing_behind():
    async def run():
        tier = Tier(1, slack=100)
        sent = [await tier.send("again") for _ in range(PLACES)]
        leaves = asyncio.create_task(tier.send("again"))
        await asyncio.sleep(0.1)
        leaves.cancel()
        await asyncio.gather(leaves, return_exceptions=True)
        tier.done(sent[0])
        assert await tier.ask("another") == "r0"

    asyncio.run(run())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("flow", [None, "cascade"])
def test_the_name_that_a_client_gives_its_conversation_reaches_every_call(stream, flow):
    seen: list[str] = []

    def script(body):
        seen.append(SESSION.get())
        return Said("four five six seven")

    config = ladder(("small", "large"), **({"escalation": {"mode": "buffer"}, "routing": {"target": 0.99}} if flow else {}))
    tiers = {name: ScriptedTier(name, script) for name in config.names}
    router = Router(config, None, dict.fromkeys(config.names, lambda text: len(text.split())))
    with serving(router, tiers) as url, httpx.Client(base_url=url, timeout=30) as client:
        for name in ("mine", "mine", "other", None):
            body = {"model": "auto", "stream": stream, "messages": [{"role": "user", "content": "one two three"}]}
            client.post("/chat/completions", json=body, headers={"x-session-id": name} if name else {})
    assert len(seen) % 4 == 0
    first, again, other, none = seen[:: len(seen) // 4]
    assert first == again != other and first and other and not none
