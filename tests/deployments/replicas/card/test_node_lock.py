"""One replica of a machine at a time starts, dozes or wakes; a killed one holds nobody up."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from deployments.replicas.card import node_lock as module
from deployments.replicas.card.node_lock import VARIABLE, NodeLock, node_lock
from router.errors import BadConfig

HOLDER = """
import asyncio, sys
from pathlib import Path
from deployments.replicas.card.node_lock import NodeLock

async def run():
    async with NodeLock(Path(sys.argv[1])).held():
        print("held", flush=True)
        await asyncio.sleep(600)

asyncio.run(run())
"""


def test_the_second_waits_until_the_first_is_done(tmp_path):
    path, steps = tmp_path / "lock", []

    async def one(name):
        async with NodeLock(path).held():
            steps.append(f"{name} in")
            await asyncio.sleep(0.01)
            steps.append(f"{name} out")

    async def run():
        await asyncio.gather(one("a"), one("b"), one("c"))

    asyncio.run(run())
    assert [step.split()[1] for step in steps] == ["in", "out"] * 3 and len(set(steps)) == 6


@pytest.mark.slow
def test_a_killed_holder_frees_it(tmp_path):
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        assert NodeLock(path).take() is None
        holder.send_signal(signal.SIGKILL)
        holder.wait(60)
    finally:
        holder.kill()

    async def run():
        async with asyncio.timeout(60), NodeLock(path).held():
            return True

    assert asyncio.run(run())


def test_who_is_cancelled_while_it_waits_or_holds_leaves_nothing_held(tmp_path):
    path = tmp_path / "lock"

    async def hold():
        async with NodeLock(path).held():
            await asyncio.sleep(600)

    async def run():
        tasks = [asyncio.create_task(hold()) for _ in range(2)]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return NodeLock(path).take()

    handle = asyncio.run(run())
    assert handle is not None
    os.close(handle)


def test_a_file_that_was_cleaned_up_is_no_longer_the_lock(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    real = os.open

    def cleaned_up(name, *how):
        handle = real(name, *how)
        path.unlink()
        return handle

    monkeypatch.setattr(module.os, "open", cleaned_up)
    assert NodeLock(path).take() is None
    monkeypatch.undo()
    handle = NodeLock(path).take()
    assert handle is not None and NodeLock(path).take() is None
    os.close(handle)


def test_it_lies_in_a_folder_of_this_user_alone_or_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path))
    found = node_lock("small", {})
    assert found.path.parent.stat().st_mode & 0o777 == 0o700 and found.path.name == "node.lock"
    assert node_lock("small", {VARIABLE: "/shared/lock"}).path.as_posix() == "/shared/lock"
    found.path.parent.chmod(0o755)
    with pytest.raises(BadConfig, match="others may enter; expected one of this user alone"):
        node_lock("small", {})
    found.path.parent.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    found.path.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadConfig, match="expected one of this user alone"):
        node_lock("small", {})


def test_who_waits_long_says_for_whom_and_a_start_that_fails_lets_it_begin(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(module, "SLOWEST_LOOK_S", 0.02)
    path = tmp_path / "lock"

    async def second():
        async with NodeLock(path, "second").held():
            return True

    async def run():
        with pytest.raises(ValueError, match="it does not start"):
            async with NodeLock(path, "first").held():
                waiting = asyncio.create_task(second())
                await asyncio.sleep(0.05)
                assert not waiting.done()
                raise ValueError("it does not start")
        return await asyncio.wait_for(waiting, 60)

    assert asyncio.run(run()) and "second waits until first has started" in caplog.text


def test_it_is_not_where_the_lanes_remove_old_files(tmp_path, monkeypatch):
    from deployments.lane import server

    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path))
    path = node_lock("small", {}).path
    handle = NodeLock(path).take()
    server.sweep(server.own_folder(), 1e12)
    assert NodeLock(path).take() is None
    os.close(handle)
