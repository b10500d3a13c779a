"""An idle engine dozes and the next call wakes it: never with a call under way, once however many come, one replica at a time."""

import asyncio
import os
from contextlib import suppress

import pytest
from sleepy_engine import SleepyEngine

from deployments.replicas.card import dozer as module
from deployments.replicas.card.dozer import Alone, Dozer, room
from deployments.replicas.card.node_lock import NodeLock
from router.errors import TierDozing


class Clock:
    """Goes only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class NotedLock(NodeLock):
    """Writes into `steps` when it is taken and freed."""

    def __init__(self, path, steps) -> None:
        super().__init__(path)
        self.steps = steps

    def held(self):
        noted = super().held()

        class Held:
            async def __aenter__(_):
                await noted.__aenter__()
                self.steps.append("lock")

            async def __aexit__(_, *error):
                self.steps.append("free")
                return await noted.__aexit__(*error)

        return Held()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def engine():
    return SleepyEngine()


@pytest.fixture
def made(tmp_path, engine, clock):
    """A dozer of this engine. after 300 s; calls wait 10 s by the clock, which stands still."""
    return lambda **changes: Dozer(
        **{
            "tier": "large",
            "engine": engine,
            "after_s": 300.0,
            "wait_s": 10.0,
            "lock": NotedLock(tmp_path / "lock", engine.steps),
            "try_token": engine.token,
            "clock": clock,
            **changes,
        }
    )


async def asleep(dozer, clock):
    clock.now += dozer.after_s
    await dozer.look()
    assert dozer.state == "dozing"
    dozer.engine.steps.clear()


async def ask(dozer, text="x"):
    async with dozer.call():
        return await dozer.engine.generate(text)


def test_it_dozes_when_nobody_asked_for_long_enough(made, engine, clock):
    async def run():
        dozer = made()
        await ask(dozer)
        engine.steps.clear()
        clock.now += 299.9
        await dozer.look()
        assert (dozer.state, engine.steps) == ("awake", [])
        clock.now += 0.1
        await dozer.look()
        assert (dozer.state, engine.steps) == ("dozing", ["lock", "sleep 1", "asleep", "free"])
        await dozer.look()
        assert engine.steps == ["lock", "sleep 1", "asleep", "free"]

    asyncio.run(run())


def test_no_call_is_ever_ended_by_it(made, engine, clock):
    async def run():
        dozer = made()
        engine.held.clear()
        asked = asyncio.create_task(ask(dozer))
        await asyncio.sleep(0)
        clock.now += 1_000
        await dozer.look()
        assert (dozer.state, engine.running) == ("awake", 1)
        engine.held.set()
        assert await asked == "x"
        await dozer.look()  # the time counts from its end
        assert dozer.state == "awake" and "sleep 1" not in engine.steps
        clock.now += 300
        await dozer.look()
        assert dozer.state == "dozing" and engine.aborted == 0

    asyncio.run(run())


def test_a_call_that_comes_while_the_lock_is_waited_for_is_answered_and_keeps_it_awake(made, engine, clock, tmp_path):
    async def run():
        dozer = made()
        clock.now += 300
        neighbour = NodeLock(tmp_path / "lock").take()
        looking = asyncio.create_task(dozer.look())
        await asyncio.sleep(0.01)
        assert await ask(dozer) == "x"
        os.close(neighbour)
        await asyncio.wait_for(looking, 60)
        assert dozer.state == "awake" and "sleep 1" not in engine.steps

    asyncio.run(run())


def test_a_call_while_it_falls_asleep_waits_and_wakes_it(made, engine, clock):
    async def run():
        engine.may_sleep.clear()
        dozer = made()
        clock.now += 300
        looking = asyncio.create_task(dozer.look())
        while "sleep 1" not in engine.steps:
            await asyncio.sleep(0)
        asked = asyncio.create_task(ask(dozer))
        await asyncio.sleep(0.01)
        assert not asked.done() and engine.running == 0
        engine.may_sleep.set()
        assert await asked == "x"
        await looking
        assert engine.steps == ["lock", "sleep 1", "asleep", "free", "lock", "wake", "token", "free", "x"]
        assert engine.aborted == 0

    asyncio.run(run())


def test_the_next_call_wakes_it_and_one_token_comes_before_its_answer(made, engine, clock):
    async def run():
        dozer = made()
        await asleep(dozer, clock)
        assert await ask(dozer) == "x"
        assert (dozer.state, engine.steps) == ("awake", ["lock", "wake", "token", "free", "x"])
        clock.now += 299
        await dozer.look()
        assert dozer.state == "awake"

    asyncio.run(run())


def test_many_calls_wake_it_once(made, engine, clock):
    async def run():
        engine.may_wake.clear()
        dozer = made()
        await asleep(dozer, clock)
        asked = [asyncio.create_task(ask(dozer, str(n))) for n in range(20)]
        while dozer.state != "waking":
            await asyncio.sleep(0)
        asked.append(asyncio.create_task(ask(dozer, "late")))
        await asyncio.sleep(0)
        engine.may_wake.set()
        assert await asyncio.gather(*asked) == [*map(str, range(20)), "late"]
        assert engine.steps.count("wake") == engine.steps.count("token") == 1

    asyncio.run(run())


def test_who_leaves_while_it_wakes_does_not_stop_the_waking(made, engine, clock):
    async def run():
        engine.may_wake.clear()
        dozer = made()
        await asleep(dozer, clock)
        first, second = asyncio.create_task(ask(dozer)), asyncio.create_task(ask(dozer))
        while dozer.state != "waking":
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait({first})
        engine.may_wake.set()
        assert await second == "x"
        assert engine.steps.count("wake") == 1 and dozer.calls == 0

    asyncio.run(run())


def test_who_cannot_wait_longer_is_told_that_it_dozes_and_it_wakes_all_the_same(made, engine, clock):
    async def run():
        engine.may_wake.clear()
        dozer = made(wait_s=0.01)
        await asleep(dozer, clock)
        with pytest.raises(TierDozing, match="tier large was dozing"):
            await ask(dozer)
        assert dozer.calls == 0
        engine.may_wake.set()
        await asyncio.wait({dozer.waking})
        assert dozer.state == "awake" and await ask(dozer) == "x"
        assert engine.steps.count("wake") == 1

    asyncio.run(run())


def test_one_that_cannot_be_woken_says_so_and_the_next_call_tries_again(made, engine, clock):
    async def run():
        dozer = made()
        await asleep(dozer, clock)
        engine.fault = RuntimeError("no memory is left")
        results = await asyncio.gather(ask(dozer), ask(dozer), return_exceptions=True)
        assert [str(result) for result in results] == ["no memory is left"] * 2 and dozer.state == "dozing"
        assert await ask(dozer) == "x"

    asyncio.run(run())


def test_one_that_wakes_but_does_not_answer_its_token_is_not_said_to_be_ready(made, engine, clock):
    async def run():
        tokens = iter([RuntimeError("no token"), None])

        async def token():
            if fault := next(tokens):
                raise fault

        dozer = made(try_token=token)
        await asleep(dozer, clock)
        with pytest.raises(RuntimeError, match="no token"):
            await ask(dozer)
        assert dozer.state == "dozing" and not engine.asleep
        assert await ask(dozer) == "x"
        assert engine.steps.count("wake") == 1  # it was awake already: only the token was missing

    asyncio.run(run())


def test_an_engine_that_fails_to_sleep_is_asked_for_a_token_before_the_next_call(made, engine, clock):
    async def run():
        dozer = made()
        engine.cannot_sleep = AssertionError("Memory usage increased after sleeping.")
        clock.now += 300
        await dozer.look()
        assert dozer.state == "dozing"
        assert await ask(dozer) == "x"
        assert engine.steps == ["lock", "sleep 1", "free", "lock", "token", "free", "x"]

    asyncio.run(run())


def test_two_replicas_of_a_machine_do_not_wake_at_the_same_moment(made, clock, tmp_path):
    async def run():
        steps, dozers = [], []
        for _ in range(2):
            engine = SleepyEngine(steps)
            dozers.append(made(engine=engine, try_token=engine.token, lock=NotedLock(tmp_path / "lock", steps)))
        for dozer in dozers:
            await asleep(dozer, clock)
        await asyncio.gather(*map(ask, dozers))
        order = [step for step in steps if step in ("lock", "wake", "token", "free")]
        assert order == ["lock", "wake", "token", "free"] * 2

    asyncio.run(run())


class OneAtATime(Alone):
    """Room on the card comes when the test says so."""

    def __init__(self) -> None:
        self.free, self.asked, self.told = False, 0, []

    def may_wake(self):
        self.asked += 1
        return self.free

    def tell(self, awake, calls, idle_s):
        self.told.append((awake, calls))


def test_it_waits_for_room_on_the_card_without_holding_the_lock(made, engine, clock, tmp_path):
    async def run():
        turns = OneAtATime()
        dozer = made(turns=turns)
        await asleep(dozer, clock)
        asked = asyncio.create_task(ask(dozer))
        await asyncio.sleep(0.02)
        neighbour = NodeLock(tmp_path / "lock").take()
        assert neighbour is not None  # the other tier can doze meanwhile
        os.close(neighbour)
        turns.free = True
        assert await asyncio.wait_for(asked, 60) == "x"
        assert turns.asked >= 2 and turns.told[-1] == (True, 1)

    asyncio.run(run())


@pytest.mark.slow
def test_it_does_not_take_the_card_when_nobody_waits_any_more(made, engine, clock):
    async def run():
        turns = OneAtATime()
        dozer = made(turns=turns, wait_s=0.05)
        await asleep(dozer, clock)
        with pytest.raises(TierDozing):
            await ask(dozer)
        turns.free = True
        await asyncio.wait({dozer.waking})
        assert dozer.state == "dozing" and engine.steps.count("wake") == 0

    asyncio.run(run())


def test_a_start_waits_for_room_too(tmp_path):
    async def run():
        turns, steps = OneAtATime(), []
        lock = NotedLock(tmp_path / "lock", steps)

        async def start():
            async with room(lock, turns):
                steps.append("start")

        starting = asyncio.create_task(start())
        await asyncio.sleep(0.02)
        turns.free = True
        await asyncio.wait_for(starting, 60)
        assert steps[-3:] == ["lock", "start", "free"] and steps.count("start") == 1 < steps.count("lock") == steps.count("free")

    asyncio.run(run())


def test_one_that_is_wanted_by_another_tier_goes_as_soon_as_it_is_idle(made, engine, clock):
    async def run():
        turns = OneAtATime()
        turns.wanted = lambda: True
        dozer = made(turns=turns)
        async with dozer.call():
            await dozer.look()
            assert dozer.state == "awake"
        await dozer.look()
        assert dozer.state == "dozing" and turns.told[-1] == (False, 0)

    asyncio.run(run())


def test_it_looks_by_itself_and_stops_with_its_replica(made, engine, monkeypatch):
    monkeypatch.setattr(module, "LOOK_S", 0.005)

    async def run():
        dozer = made(after_s=0.0)
        dozer.start()
        async with asyncio.timeout(60):
            while dozer.state != "dozing" or engine.steps[-1] != "free":
                await asyncio.sleep(0.005)
        engine.may_wake.clear()
        asked = asyncio.create_task(ask(dozer))
        while dozer.state != "waking":
            await asyncio.sleep(0)
        await dozer.close()
        with suppress(asyncio.CancelledError):
            await asked
        assert NodeLock(dozer.lock.path).take() is not None

    asyncio.run(run())


def test_a_lock_that_cannot_be_had_keeps_it_awake(made, engine, clock, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "LOOK_S", 0.005)

    async def run():
        dozer = made(after_s=0.0, lock=NodeLock(tmp_path / "no such folder" / "lock"))
        dozer.start()
        await asyncio.sleep(0.03)
        assert dozer.state == "awake" and dozer.looking.task and not dozer.looking.task.done()
        await dozer.close()

    asyncio.run(run())
    assert "tier large cannot doze" in caplog.text
