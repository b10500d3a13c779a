"""Answers that a later request may continue, in memory and in the ledger's database."""

import asyncio

import pytest

from deployments.endpoint.spoken.kept_responses import InLedger
from deployments.endpoint.spoken.response_states import InMemory, Kept
from deployments.ledger.database import connect, migrate
from router.config import Ledger


class Clock:
    now = 1_000.0

    def __call__(self):
        return self.now


def kept(text="hello"):
    return Kept([{"role": "user", "content": text}], {"id": "resp_1", "output": []}, [{"type": "message"}])


@pytest.fixture(params=["memory", "ledger"])
def made(request, tmp_path):
    clock = Clock()
    if request.param == "memory":
        return InMemory(10_000, ttl_s=60, clock=clock), clock
    engine = connect(Ledger(url=f"sqlite:///{tmp_path / 'ledger.db'}"))
    migrate(engine)
    return InLedger(engine, 60 / 86_400, clock), clock


def test_an_answer_is_its_keys_own_until_it_expires_or_is_deleted(made):
    states, clock = made

    async def life():
        await states.put("resp_1", "a", kept())
        await states.put("resp_2", "a", kept("again"))
        assert await states.get("resp_1", "a") == kept()
        assert await states.get("resp_1", "b") is None
        assert await states.get("resp_3", "a") is None
        await states.delete("resp_1", "b")
        assert await states.get("resp_1", "a") == kept()
        await states.delete("resp_1", "a")
        assert await states.get("resp_1", "a") is None
        clock.now += 61
        assert await states.get("resp_2", "a") is None
        await states.put("resp_4", "a", kept())
        assert await states.get("resp_4", "a") == kept()

    asyncio.run(life())


def test_memory_is_bounded():
    states = InMemory(4_000)

    async def filled():
        for i in range(50):
            await states.put(f"resp_{i}", "a", kept("x" * 500))
        assert states.bytes <= 4_000
        assert await states.get("resp_49", "a") is not None and await states.get("resp_0", "a") is None
        await states.put("resp_large", "a", kept("x" * 5_000))
        assert states.bytes == 0

    asyncio.run(filled())
