"""Engines that share a card start one after the other, and the lock of one that dies is free."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.replicas import card_lock
from deployments.replicas.card_lock import held
from router.errors import BadConfig

HOLDS = """
import asyncio, sys
from pathlib import Path
from deployments.replicas.card_lock import held
async def go():
    async with held("other", Path(sys.argv[1])):
        print("has it", flush=True)
        await asyncio.sleep(600)
asyncio.run(go())
"""


def test_one_after_the_other_in_one_process(tmp_path):
    now, most, order = 0, 0, []

    async def start(name):
        nonlocal now, most
        async with held(name, tmp_path):
            now += 1
            most = max(most, now)
            order.append(name)
            await asyncio.sleep(0.01)
            now -= 1

    async def go():
        await asyncio.gather(*map(start, ("a", "b", "c")))

    asyncio.run(go())
    assert most == 1 and sorted(order) == ["a", "b", "c"]


def test_who_waits_says_for_whom_and_one_that_gives_up_holds_nothing(tmp_path, caplog):
    async def go():
        async with held("first", tmp_path):
            waiting = asyncio.create_task(enter("second"))
            await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.wait({waiting})
        await asyncio.wait_for(enter("third"), 5)

    async def enter(name):
        async with held(name, tmp_path):
            pass

    asyncio.run(go())
    assert "second waits to start until first has started on this machine's GPUs" in caplog.text


def test_a_start_that_fails_lets_the_next_begin(tmp_path):
    async def fails():
        async with held("a", tmp_path):
            raise BadConfig("no")

    async def go():
        with pytest.raises(BadConfig):
            await fails()
        async with held("b", tmp_path):
            return True

    assert asyncio.run(go())


@pytest.mark.slow
def test_a_killed_holder_holds_it_no_more(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "has it\n"

        async def go():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1), held("ours", tmp_path):
                    pass
            os.kill(other.pid, signal.SIGKILL)
            async with asyncio.timeout(60), held("ours", tmp_path):
                return True

        assert asyncio.run(go())
    finally:
        other.kill()
        other.wait()


def test_the_folder_is_of_this_user_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(card_lock.tempfile, "gettempdir", lambda: str(tmp_path))
    made = card_lock.folder()
    assert made.stat().st_mode & 0o777 == 0o700 and card_lock.folder() == made
    made.rmdir()
    (tmp_path / "elsewhere").mkdir()
    Path(made).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadConfig, match="expected a folder that only this user may write to"):
        card_lock.folder()
