"""Several processes, some of which are killed: what was acknowledged is there, once."""

import multiprocessing
import random
import threading
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from made import assert_sums, count, rows_of
from recorder import record
from sqlalchemy import Engine

from deployments.ledger.database import writing
from deployments.ledger.schema import calls, traces
from deployments.ledger.store import Store
from router import config

# Forked from a clean process that has imported everything: quick to start, and no thread of ours is copied.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["recorder"])


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where children write the ids of what they were told is durable."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # the process that forks is told its path by nothing else
    path = tmp_path / "said.txt"
    path.touch()
    return path


def start(url: str, name: str, n: int, said: Path, busy_s: float = 5.0) -> BaseProcess:
    child = FORKS.Process(target=record, args=(url, name, n, said, busy_s), daemon=True)
    child.start()
    return child


def kill(child: BaseProcess, said: Path, after_s: float) -> None:
    """So long after its first acknowledgement."""
    before, until = said.stat().st_size, time.monotonic() + 60
    while said.stat().st_size == before and child.is_alive() and time.monotonic() < until:
        time.sleep(0.002)
    time.sleep(after_s)
    child.kill()
    child.join()


def assert_kept(engine: Engine, said: Path) -> int:
    """Each trace that was acknowledged is there with all its calls, once; the sums agree. Returns how many there are."""
    ids = set(said.read_text().split())
    kept = Counter(row["id"] for row in rows_of(engine, traces))
    assert not ids - kept.keys()
    assert set(kept.values()) <= {1}
    answers = Counter(row["trace_id"] for row in rows_of(engine, calls) if row["role"] == "answer")
    assert all(answers[id] == 1 + int(id.rpartition("-")[2]) % 3 for id in kept)
    assert_sums(engine)
    return len(ids)


def drained(url: str) -> Engine:
    """What a start does with what dead processes left in the spool."""
    store = Store(config.Ledger(url=url))
    assert store.recover()
    assert not store.spool.waiting()
    return store.engine


@pytest.mark.slow
def test_processes_that_start_and_write_at_once(url: str, said: Path) -> None:
    children = [start(url, name, 60, said) for name in ("p", "q", "r", "same", "same")]
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 5
    engine = drained(url)
    assert assert_kept(engine, said) == count(engine, traces) == 4 * 60
    engine.dispose()


@pytest.mark.slow
def test_what_a_killed_process_acknowledged_is_kept_once(url: str, said: Path) -> None:
    dice = random.Random(5)
    for round in range(12):
        kill(start(url, f"r{round}", 10_000, said), said, dice.uniform(0, 0.25))
    engine = drained(url)
    assert assert_kept(engine, said) >= 12
    engine.dispose()


@pytest.mark.slow
def test_what_a_process_spooled_before_it_was_killed_is_kept_once(tmp_path: Path, said: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    engine, dice, spooled = drained(url), random.Random(6), 0
    for round in range(6):
        child = start(url, f"r{round}", 10_000, said, 0.05)
        with_lock = threading.Thread(target=hold, args=(engine, said, dice.uniform(0.4, 0.8)))
        with_lock.start()
        kill(child, said, dice.uniform(0.2, 0.6))
        spooled += len(list(Path(f"{tmp_path}/ledger.db.spool").glob("rows-*")))
        with_lock.join()
    assert spooled
    engine.dispose()
    engine = drained(url)
    assert assert_kept(engine, said) >= 6
    engine.dispose()


def hold(engine: Engine, said: Path, seconds: float) -> None:
    """The write lock, soon after the child began, so that its database is down."""
    before = said.stat().st_size
    while said.stat().st_size == before:
        time.sleep(0.01)
    with writing(engine):
        time.sleep(seconds)
