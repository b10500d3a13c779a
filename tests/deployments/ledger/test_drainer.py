"""A busy ledger has its spool emptied by another process; whatever becomes of that process, each row is there once."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from made import assert_sums, count, opened, trace, until

from deployments.ledger import drain_process, drainer
from deployments.ledger.database import writing
from deployments.ledger.drain_process import serve
from deployments.ledger.drainer import DONE, FAILED, MUCH, READY, Drainer
from deployments.ledger.ledger import Ledger
from deployments.ledger.rows import from_trace
from deployments.ledger.schema import calls, traces
from deployments.ledger.store import Store
from router import config

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


async def many(ledger: Ledger, name: str, n: int = MUCH) -> None:
    await asyncio.gather(*(ledger.record(trace(f"{name}-{k}")) for k in range(n)))


async def helped(ledger: Ledger, name: str) -> int:
    """Record much, again and again, until another process is there to drain. Returns how many requests that were."""
    rounds = 0
    until_s = time.monotonic() + 30
    while not ledger.store.drainer.ready:
        assert time.monotonic() < until_s
        await many(ledger, f"{name}-{rounds}")
        await ledger.settled()
        rounds += 1
    return rounds * MUCH


@pytest.mark.slow
def test_much_is_drained_elsewhere_and_little_is_not(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        async with opened(url, journal_s=0.05) as ledger:
            for n in range(10):
                await ledger.record(trace(f"one-{n}"))
            await ledger.settled()
            assert ledger.store.drainer.process is None
            before = 10 + await helped(ledger, "first")
            monkeypatch.setattr(ledger.store, "save", lambda rows: pytest.fail("the ingress drains by itself"))
            await many(ledger, "more")
            await ledger.record(trace("alone"))
            await until(lambda: count(ledger.engine, traces) == before + MUCH + 1)
            await until(lambda: ledger.spooled == 0)
            assert count(ledger.engine, calls) == before + MUCH + 1 and ledger.state == "ok"
            assert_sums(ledger.engine)
            child = psutil.Process(ledger.store.drainer.process.pid)
            assert child.nice() == psutil.Process().nice() + drain_process.NICENESS
            monkeypatch.undo()
        assert not child.is_running()

    asyncio.run(go())


@pytest.mark.slow
def test_one_that_is_killed_leaves_the_work_to_the_ingress_and_is_started_again(url: str) -> None:
    async def go() -> None:
        async with opened(url, journal_s=0.05) as ledger:
            before = await helped(ledger, "first")
            killed = ledger.store.drainer.process
            os.kill(killed.pid, signal.SIGKILL)
            await many(ledger, "then")
            await until(lambda: count(ledger.engine, traces) == before + MUCH)
            more = await helped(ledger, "again")
            assert ledger.store.drainer.process.pid != killed.pid
            await until(lambda: count(ledger.engine, traces) == before + MUCH + more)
            assert_sums(ledger.engine)

    asyncio.run(go())


@pytest.mark.slow
def test_one_that_hangs_is_ended(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        async with opened(url, journal_s=0.05) as ledger:
            before = await helped(ledger, "first")
            monkeypatch.setattr(drainer, "ANSWER_S", 0.3)
            monkeypatch.setattr(drainer, "END_S", 0.3)
            hung = ledger.store.drainer.process
            os.kill(hung.pid, signal.SIGSTOP)
            await many(ledger, "then")
            await until(lambda: count(ledger.engine, traces) == before + MUCH)
            assert hung.poll() is not None

    asyncio.run(go())


@pytest.mark.slow
def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    text = f"""
        import time
        from deployments.ledger.drainer import MUCH, Drainer
        from router import config
        one = Drainer(config.Ledger(url="sqlite:///{tmp_path}/ledger.db"))
        one.available(MUCH)
        print(one.process.pid, flush=True)
        time.sleep(600)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(text)], stdout=subprocess.PIPE, text=True)
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    child.wait(30)


@pytest.mark.slow
def test_it_ends_when_there_was_little_to_do_for_long(tmp_path: Path) -> None:
    now = [0.0]
    one = Drainer(config.Ledger(url=f"sqlite:///{tmp_path}/ledger.db"), lambda: now[0])
    assert not one.available(MUCH) and one.process
    child, now[0] = one.process, drainer.IDLE_S - 1
    one.available(1)
    assert one.process is child
    now[0] += 2
    assert not one.available(1) and one.process is None and child.poll() is not None


def test_one_that_cannot_be_started_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(drainer.sys, "executable", "/nowhere/python")
    one = Drainer(config.Ledger(url=f"sqlite:///{tmp_path}/ledger.db"))
    assert not one.available(MUCH) and one.process is None and "no process for the ledger's spool" in caplog.text


def test_what_it_says(tmp_path: Path) -> None:
    """Ready, then one word for each time it is asked; a database that is down is a failure, and not its end."""
    settings = config.Ledger(url=f"sqlite:///{tmp_path}/ledger.db")
    store, said = Store(settings), []
    store.start()
    spooled(store, "a")

    def asked():
        yield "drain\n"
        assert count(store.engine, traces) == 1
        spooled(store, "b")
        with writing(store.engine):  # nobody else may write meanwhile
            yield "drain\n"
        yield "drain\n"
        assert count(store.engine, traces) == 2

    class Told:
        lines = asked()

        def readline(self):
            return settings.model_dump_json() + "\n"

        def __iter__(self):
            return self.lines

    serve(Told(), said.append)
    assert said == [READY, DONE, FAILED, DONE]


def spooled(store: Store, name: str) -> None:
    store.spool.append([from_trace(trace(name))])
    store.spool.close_file()


@pytest.mark.slow
def test_it_is_heard_by_an_ingress_with_thousands_of_connections(url: str) -> None:
    """`select.select` refuses file descriptors above 1,023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    connections = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    process = Drainer(config.Ledger(url=url))
    try:
        process.start()
        until_s = time.monotonic() + 30
        while not process.available(MUCH):
            assert process.process and time.monotonic() < until_s
            time.sleep(0.05)
    finally:
        process.stop()
        for file in connections:
            os.close(file)


@pytest.mark.slow
def test_it_does_without_what_only_classifiers_need() -> None:
    """scikit-learn and what it imports take seconds and hundreds of megabytes; so it is in replicas, which warm up."""
    text = "import sys, deployments.ledger.drain_process, deployments.replicas.abilities; "
    text += "print({'sklearn', 'ray'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
