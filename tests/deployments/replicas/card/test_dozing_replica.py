"""A replica as Ray would run it, over a made-up engine that can sleep: its calls wake it, its start waits for its neighbours, and
the ingress sees whether it dozes. Nothing here was tried on a GPU.
"""

import asyncio
import json
import time

import pytest
from sleepy_engine import SleepyEngine

from deployments.replicas.meter import ReplicaMeter
from deployments.tiers.serve_tier import CallPolicy, ServeTier, call_policy
from deployments.traffic.watched_tier import Watched
from router.config import VllmTier
from router.errors import TierDozing
from router.traffic.breaker import Breaker

pytestmark = pytest.mark.slow  # importing Ray's replica and vLLM's types takes ten seconds
GPU = {
    "name": "it",
    "engine": "vllm",
    "source": "x",
    "context": 9,
    "price": {"usd_per_accelerator_hour": 1},
    "accelerator": "H100",
}
CHAT = {"model": "it", "messages": [{"role": "user", "content": "hi"}]}


class Engine(SleepyEngine):
    """Answers chats as Ray's engine does."""

    async def chat(self, request, _):
        from ray.serve.llm.openai_api_models import ChatCompletionResponse

        await self.generate("answer" if request.max_tokens is None else "token")
        message = {"role": "assistant", "content": "good"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        yield ChatCompletionResponse(model="it", choices=[choice], usage=usage)


class Handle:
    """Serve's, to one replica."""

    deployment_name = "tier-dozing"

    def __init__(self, replica, method="openai") -> None:
        self.replica, self.method = replica, method

    def options(self, method_name="", **_):
        return Handle(self.replica, method_name)

    def remote(self, *arguments):
        answer = getattr(self.replica, self.method)(*arguments)
        return Items(answer) if self.method == "openai" else answer


class Items:
    """What a handle gives back: the replica answers to the end, whether or not anybody reads it."""

    def __init__(self, items) -> None:
        self.items, self.read = items, None

    def __aiter__(self):
        return self

    async def __anext__(self):
        from ray.exceptions import RayTaskError

        try:
            if self.read is None:
                self.read = [item async for item in self.items]
        except RuntimeError as error:
            raise RayTaskError("openai", "", error) from None
        if not self.read:
            raise StopAsyncIteration
        return self.read.pop(0)

    def cancel(self):
        pass


@pytest.fixture
def replica(tmp_path, monkeypatch):
    """Made without Ray; its start is ours, but for the engine's. monkeypatch: the machine's lock lies in the test's folder."""
    from deployments.replicas.vllm_tier import PlainServer

    monkeypatch.setenv("STEPDOWN_NODE_LOCK", str(tmp_path / "lock"))

    class Replica(PlainServer):
        def __del__(self):
            pass

        async def start_engine(self):
            self.engine.steps.append("start")
            await asyncio.sleep(0.02)
            self.found = {"chat": "", "completions": "no completions"}
            self.engine.steps.append("started")

    def made(engine=None, **settings):
        one = object.__new__(Replica)
        one.engine, one.tier = engine or Engine(), VllmTier(**GPU, **settings)
        one._llm_config = type("LLMConfig", (), {"model_id": "it"})
        one.__dict__["meter"] = ReplicaMeter("r")
        one.__dict__["lane_server"] = type("Nothing", (), {"start": staticmethod(asyncio.sleep), "path": ""})
        one.lane_server.start = lambda: asyncio.sleep(0)
        return one

    return made


async def nap(one):
    """Let it doze now."""
    one.dozer.last_s -= one.dozer.after_s
    await one.dozer.look()
    assert one.dozer.state == "dozing"
    one.engine.steps.clear()


async def answers(one):
    return [item async for item in one.openai("chat/completions", json.dumps(CHAT))]


def test_a_call_wakes_the_replica_which_tries_a_token_first(replica):
    async def run():
        one = replica(doze={"after_s": 60})
        await one.start()
        assert await one.dozing() == ("r", "awake")
        await nap(one)
        assert await one.dozing() == ("r", "dozing")
        [(status, text, measured)] = await answers(one)
        assert status == 200 and json.loads(text)["choices"][0]["message"]["content"] == "good"
        assert one.engine.steps == ["wake", "token", "answer"] and one.engine.aborted == 0
        assert json.loads(measured)["replica"] == "r" and one.dozer.calls == 0
        await one.dozer.close()

    asyncio.run(run())


def test_the_time_that_it_takes_to_wake_is_not_the_calls_busy_time(replica):
    async def run():
        one = replica(doze={"after_s": 60})
        ticks = iter([0.0, 0.5, 0.5, 0.5])
        await one.start()
        await nap(one)
        asked = asyncio.create_task(answers(one))
        one.engine.may_wake.clear()
        while one.dozer.state != "waking":
            await asyncio.sleep(0)
        one.meter.clock = lambda: next(ticks)  # nobody has looked at it yet
        one.engine.may_wake.set()
        [(_, _, measured)] = await asked
        assert json.loads(measured)["busy_s"] == 0.5
        await one.dozer.close()

    asyncio.run(run())


def test_who_cannot_wait_hears_dozing_which_is_nobodys_failure(replica):
    async def run():
        one = replica(doze={"after_s": 60}, scaling={"cold_start_wait_s": 0.01})
        await one.start()
        handle = Handle(one)
        tier = ServeTier("it", handle, lambda: asyncio.sleep(0, 1), CallPolicy(10.0, dozes=True))
        watched = Watched(tier, Breaker(time.monotonic, lambda: 0.5))
        for _ in range(6):  # more than an ill replica or a circuit would stand
            await nap(one)
            one.engine.may_wake.clear()
            with pytest.raises(TierDozing):
                await watched.complete("chat/completions", CHAT)
            one.engine.may_wake.set()
            await asyncio.wait({one.dozer.waking})
        assert one.streak.failed == 0 and not watched.breaker.circuits and not tier.health.breaker.circuits
        one.streak.check()
        assert json.loads(await watched.complete("chat/completions", CHAT))["choices"][0]["message"]["content"] == "good"
        await nap(one)
        assert await watched.dozing() == watched.rests == "dozing"
        await one.dozer.close()

    asyncio.run(run())


def test_one_that_cannot_be_woken_is_ill_after_some_calls(replica):
    async def run():
        one = replica(doze={"after_s": 60})
        await one.start()
        await nap(one)
        for _ in range(5):
            one.engine.fault = RuntimeError("no memory is left")
            with pytest.raises(RuntimeError, match="no memory"):
                await answers(one)
        with pytest.raises(RuntimeError, match="failed 5 times in a row"):
            one.streak.check()
        await one.dozer.close()

    asyncio.run(run())


@pytest.mark.parametrize("settings", [{"doze": {}}, {"gpu": 0.4}])
def test_replicas_that_share_a_card_start_one_after_the_other(replica, settings):
    async def run():
        steps = []
        both = [replica(Engine(steps), **settings) for _ in range(2)]
        await asyncio.gather(*(one.start() for one in both))
        assert steps == ["start", "started"] * 2
        assert [one.dozer is not None for one in both] == ["doze" in settings] * 2
        for one in both:
            if one.dozer:
                await one.dozer.close()

    asyncio.run(run())


def test_replicas_with_a_card_of_their_own_start_side_by_side(replica):
    async def run():
        steps = []
        await asyncio.gather(*(replica(Engine(steps)).start() for _ in range(2)))
        assert steps == ["start", "start", "started", "started"]

    asyncio.run(run())


def test_a_tier_that_takes_turns_starts_when_the_one_before_it_has_gone_to_sleep(replica, monkeypatch):
    from deployments.replicas.card import dozer

    monkeypatch.setattr(dozer, "LOOK_S", 0.01)
    card = {"group": "a", "gib": 50, "of_gib": 80}

    async def run():
        first, second = (replica(doze={}, card=card) for _ in range(2))
        second.__dict__["meter"] = ReplicaMeter("s")
        await first.start()
        await second.start()
        assert first.engine.asleep and not second.engine.asleep
        assert (await answers(first))[0][0] == 200  # and back
        assert second.engine.asleep and not first.engine.asleep
        await first.dozer.close()
        await second.dozer.close()

    asyncio.run(run())


def test_vllm_is_told_that_it_may_sleep_only_where_it_does(replica):
    from deployments.replicas.vllm_tier import settings_of

    assert settings_of(VllmTier(**GPU, doze={}))["engine_kwargs"]["enable_sleep_mode"] is True
    assert "enable_sleep_mode" not in settings_of(VllmTier(**GPU))["engine_kwargs"]


def test_a_tier_is_called_as_one_that_dozes_where_its_settings_say_so():
    assert call_policy(VllmTier(**GPU, doze={}), 5.0).dozes and not call_policy(VllmTier(**GPU), 5.0).dozes
