"""A tier that sleeps while nobody asks: it is woken, waited for up to a limit, and then another answers and says so."""

import asyncio
import json

import pytest
from endpoint import endpoint, ladder, words
from ray.serve._private.common import ReplicaState
from scripted_tier import Said

from deployments.keys.access import Access
from deployments.ledger.ledger import Ledger
from deployments.serve.command import doing, welcome
from deployments.tiers.serve_tier import CallPolicy, ServeTier, call_policy
from router.config import Config, VllmTier
from router.config import Ledger as Settings
from router.errors import NoReplica, TierCold

BODY = {"model": "large", "messages": [{"role": "user", "content": "hello"}]}
LARGE = {"name": "large", "engine": "vllm", "source": "x", "context": 9, "price": {"usd_per_accelerator_hour": 1}}
SAID = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}}]})


class Items:
    def __init__(self, handle) -> None:
        self.handle = handle

    async def __anext__(self):
        await self.handle.up.wait()
        return 200, SAID, ""

    def cancel(self) -> None:
        pass


class Handle:
    """Of a tier whose first replica comes when the test says so. woken: calls that wait for nothing else."""

    def __init__(self) -> None:
        self.up, self.woken, self.method = asyncio.Event(), 0, ""

    def options(self, method_name, **_):
        made = Handle()
        made.up, made.method, made.woken = self.up, method_name, 0
        return made

    def remote(self, *_):
        if self.method == "awake":
            self.woken += 1
            return self.up.wait()
        return Items(self)

    async def running(self) -> int:
        return int(self.up.is_set())


def tier(cold_s: float, sleeps: bool = True) -> ServeTier:
    handle = Handle()
    return ServeTier("large", handle, handle.running, CallPolicy(30.0, sleeps=sleeps, cold_s=cold_s))


def ask(it):
    return it.complete("chat/completions", BODY)


@pytest.mark.slow
def test_who_cannot_wait_is_told_soon_and_one_call_keeps_asking_for_the_replica():
    async def run():
        it = tier(cold_s=0.0)
        for _ in range(3):
            with pytest.raises(TierCold):
                await asyncio.wait_for(ask(it), 1.5)
        await asyncio.sleep(0)
        assert it.awake.woken == 1 and not it.waking.done()
        it.handle.up.set()
        await asyncio.wait_for(it.waking, 1)
        return await ask(it)

    assert asyncio.run(run()) == SAID.encode()


def test_who_waits_is_answered_when_the_replica_is_there():
    async def run():
        it = tier(cold_s=10.0)
        asked = asyncio.create_task(ask(it))
        await asyncio.sleep(0.05)
        it.handle.up.set()
        assert it.waking is None
        return await asyncio.wait_for(asked, 1)

    assert asyncio.run(run()) == SAID.encode()


@pytest.mark.slow
def test_a_tier_that_never_sleeps_and_has_none_is_out_of_order():
    with pytest.raises(NoReplica):
        asyncio.run(ask(tier(cold_s=0.0, sleeps=False)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, CallPolicy(5.0)),
        ({"replicas": 2}, CallPolicy(5.0, "prefix")),
        ({"max_replicas": 3, "affinity": "session"}, CallPolicy(5.0, "session")),
        ({"replicas": 2, "affinity": "none"}, CallPolicy(5.0)),
        ({"replicas": 0, "max_replicas": 1}, CallPolicy(5.0, sleeps=True, cold_s=10.0)),
        ({"replicas": 0, "max_replicas": 1, "scaling": {"when_cold": "wait"}}, CallPolicy(5.0, sleeps=True, cold_s=float("inf"))),
    ],
)
def test_what_the_settings_mean(changes, expected):
    assert call_policy(VllmTier.model_validate({**LARGE, **changes}), 5.0) == expected


# -- seen by who starts it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replicas", "sleeps", "expected"),
    [
        ({}, True, "asleep"),
        ({}, False, "loading"),
        ({ReplicaState.STARTING: 1}, True, "loading"),
        ({ReplicaState.STOPPING: 1, ReplicaState.RUNNING: 0}, True, "loading"),
        ({ReplicaState.STARTING: 1, ReplicaState.RUNNING: 1}, True, "ready"),
        ({ReplicaState.RUNNING: 2}, False, "ready"),
    ],
)
def test_a_tier_that_sleeps_is_not_said_to_load(replicas, sleeps, expected):
    assert doing(replicas, sleeps) == expected


@pytest.mark.parametrize("replicas", [0, 1])
def test_the_welcome_says_which_tiers_sleep(replicas):
    config = Config.model_validate({"tiers": [{**LARGE, "replicas": replicas, "max_replicas": 1}]})
    assert ("asleep" in welcome(config, Access(), "nowhere")) == (config.sleepers == ["large"]) == (replicas == 0)


# -- seen by a client -------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path):
    return Ledger(Settings(journal_s=0, url=f"sqlite:///{tmp_path / 'ledger.db'}"))


def cold(body):
    return Said(error=TierCold("large"))


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_the_best_warm_tier_answers_and_says_so_every_time(ledger, stream):
    with endpoint(ladder(), ledger, large=cold) as it:
        for _ in range(5):  # being cold is no fault: no circuit opens and hides it
            answer = it.ask(stream=stream)
            assert (answer.headers["x-stepdown-tier"], answer.headers["x-stepdown-degraded"]) == ("small", "large cold")
            assert "seven" in answer.text
        assert {(call["tier"], call["outcome"]) for call in it.calls()} == {("large", "cold"), ("small", "answered")}


@pytest.mark.slow
def test_who_named_the_tier_gets_503_and_when_to_come_back(ledger):
    with endpoint(ladder(), ledger, large=cold) as it:
        answer = it.ask(model="large")
        assert (answer.status_code, answer.json()["error"]["code"], answer.headers["retry-after"]) == (503, "cold", "30")


@pytest.mark.slow
def test_nobody_answers_for_it_where_the_configuration_says_so(ledger):
    with endpoint(ladder(routing={"when_down": "none"}), ledger, large=cold) as it:
        assert it.ask().status_code == 503


@pytest.mark.slow
def test_a_cascade_that_could_not_go_up_says_so(ledger):
    unsure = Said("four five six seven", logprob=-3.0)
    config = ladder(escalation={"mode": "buffer"}, routing={"target": 0.99})
    with endpoint(config, ledger, small=lambda body: unsure, large=cold) as it:
        answer = it.ask()
        assert answer.status_code == 200 and answer.headers["x-stepdown-degraded"] == "large cold"


@pytest.mark.slow
def test_a_tier_that_is_warm_is_asked_as_ever(ledger):
    with endpoint(ladder(), ledger, large=words) as it:
        assert "x-stepdown-degraded" not in it.ask().headers
