"""The status of learning as pages show it: read seldom, beside the event loop, and said to be unknown where it is."""

import asyncio
import threading

import pytest
from sqlalchemy.exc import OperationalError

from deployments.learning import shown_status
from deployments.learning.shown_status import KEPT_S, ShownStatus
from router.config import Config

TIERS = [{"name": "small", "engine": "echo", "context": 100, "price": {"usd_per_1m_input": 1, "usd_per_1m_output": 1}}]
CONFIG = Config.model_validate({"tiers": TIERS, "learning": {"collect": "consented"}})


class Reader:
    def __init__(self) -> None:
        self.times, self.error, self.threads = 0, None, set()

    def __call__(self, engine, config, now_s):
        self.times += 1
        self.threads.add(threading.current_thread())
        if self.error:
            raise self.error
        return {"kept": self.times}


def test_many_that_ask_at_the_same_time_are_one_read_in_a_thread():
    async def scenario():
        read, now = Reader(), [0.0]
        shown = ShownStatus(None, CONFIG, read, lambda: now[0])
        told = await asyncio.gather(*(shown.now() for _ in range(50)))
        assert all(one == {"collect": "consented", "start": "asked", "kept": 1} for one in told) and read.times == 1
        assert threading.current_thread() not in read.threads
        now[0] = KEPT_S
        assert (await shown.now())["kept"] == 2

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "error, told", [(OperationalError("select", {}, Exception("away")), "does not answer: away"), (KeyError("x"), "KeyError")]
)
def test_what_was_read_last_stays_while_it_cannot_be_read(error, told):
    async def scenario():
        read, now = Reader(), [0.0]
        shown = ShownStatus(None, CONFIG, read, lambda: now[0])
        await shown.now()
        read.error, now[0] = error, 10.0
        found = await shown.now()
        assert found["kept"] == 1 and told in found["unknown"]
        read.error, now[0] = None, 20.0
        assert await shown.now() == {"collect": "consented", "start": "asked", "kept": 3}

    asyncio.run(scenario())


def test_a_slow_database_keeps_nobody_waiting(monkeypatch):
    monkeypatch.setattr(shown_status, "WAIT_S", 0.01)

    async def scenario():
        go = threading.Event()
        shown = ShownStatus(None, CONFIG, lambda *_: {"kept": 1} if go.wait(30) else {})
        assert "kept" not in await shown.now()
        go.set()
        assert shown.reading
        await shown.reading
        assert (await shown.now())["kept"] == 1

    asyncio.run(scenario())
