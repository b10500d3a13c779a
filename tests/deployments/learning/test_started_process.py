"""The server keeps a process that learns beside it: at a low priority, started again when it dies, and never left behind."""

import asyncio
import json
import os
import signal
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from deployments.learning import started_process
from deployments.learning.started_process import NICENESS, StartedProcess
from router.config import Config
from router.errors import BadConfig

pytestmark = pytest.mark.slow
# As deployments.learning.process: reads the configuration, works, and ends when its input does.
CHILD = """
import os, sys
line = sys.stdin.readline()
with open(sys.argv[1], "a") as said:
    said.write(f"{os.getpid()} {os.nice(0)} {line}")
sys.stdin.read()
"""
TIERS = [{"name": "small", "engine": "echo", "context": 100, "price": {"usd_per_1m_input": 1, "usd_per_1m_output": 1}}]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(started_process, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(started_process, "AGAIN_S", 0.01)


def config(**sections) -> Config:
    return Config.model_validate({"tiers": TIERS, **sections})


class Child:
    def __init__(self, folder: Path, code: str = CHILD, **sections) -> None:
        self.file = folder / "said"
        self.file.touch()
        command = [sys.executable, "-c", textwrap.dedent(code), str(self.file)]
        self.started = StartedProcess(config(**sections), command)

    def lines(self) -> list[list[str]]:
        """pid, niceness and configuration of each start."""
        return [line.split(" ", 2) for line in self.file.read_text().splitlines(keepends=True) if line.endswith("\n")]

    async def until(self, starts: int) -> list[str]:
        async with asyncio.timeout(60):
            while len(self.lines()) < starts:
                await asyncio.sleep(0.02)
        return self.lines()[starts - 1]


def test_it_gets_the_configuration_runs_at_a_low_priority_and_ends_with_the_server(tmp_path):
    async def scenario():
        child = Child(tmp_path, learning={"collect": "consented", "start": "auto"})
        child.started.start()
        pid, _, sent = await child.until(1)
        assert Config.model_validate(json.loads(sent)).learning.start == "auto"
        process = psutil.Process(int(pid))
        assert process.nice() == min(19, psutil.Process().nice() + NICENESS)
        await child.started.close()
        assert not psutil.pid_exists(int(pid)) and len(child.lines()) == 1

    asyncio.run(scenario())


def test_one_that_is_killed_is_started_again(tmp_path):
    async def scenario():
        child = Child(tmp_path)
        child.started.start()
        first, *_ = await child.until(1)
        os.kill(int(first), signal.SIGKILL)
        second, *_ = await child.until(2)
        await child.started.close()
        assert first != second and not psutil.pid_exists(int(second))

    asyncio.run(scenario())


def test_another_configuration_starts_it_again(tmp_path):
    async def scenario():
        child = Child(tmp_path)
        child.started.start()
        await child.until(1)
        child.started.use(config(routing={"target": 0.5}))
        _, _, sent = await child.until(2)
        await child.started.close()
        assert Config.model_validate(json.loads(sent)).routing.target == 0.5

    asyncio.run(scenario())


def test_one_that_ends_at_once_is_started_ever_less_often(tmp_path, caplog):
    async def scenario():
        child = Child(tmp_path, CHILD.replace("sys.stdin.read()", "sys.exit(2)"))
        child.started.start()
        await child.until(3)
        await child.started.close()
        assert child.started.pause_s >= 0.04 and "code 2" in caplog.text

    asyncio.run(scenario())


def test_one_that_does_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(started_process, "END_S", 0.2)

    async def scenario():
        child = Child(tmp_path, CHILD + "import time; time.sleep(600)")
        child.started.start()
        pid, *_ = await child.until(1)
        await child.started.close()
        assert not psutil.pid_exists(int(pid))

    asyncio.run(scenario())


def test_one_that_cannot_be_started_stops_nobody(tmp_path, caplog):
    async def scenario():
        started = StartedProcess(config(), [str(tmp_path / "none")])
        started.start()
        async with asyncio.timeout(60):
            while "could not be started" not in caplog.text:
                await asyncio.sleep(0.02)
        await started.close()

    asyncio.run(scenario())


def test_it_ends_with_a_server_that_is_killed(tmp_path):
    """Its input ends with the process that holds the other end."""

    async def scenario():
        child = Child(tmp_path)
        child.started.start()
        pid, *_ = await child.until(1)
        assert child.started.process and child.started.process.stdin
        await child.started.daemon.stop()  # as after kill -9: nobody looks after it
        child.started.process.stdin.close()
        await asyncio.to_thread(child.started.process.wait, 60)
        assert not psutil.pid_exists(int(pid))

    asyncio.run(scenario())


def test_nothing_to_learn_from_stops_the_start(tmp_path):
    from router.config import load_config

    file = tmp_path / "ladder.yaml"
    file.write_text(json.dumps({"tiers": TIERS, "learning": {"start": "auto"}}))
    with pytest.raises(BadConfig, match="set collect: consented"):
        load_config(file)
