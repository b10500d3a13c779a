"""Leases: one of several processes has it, a dead one's runs out, and SQLite and PostgreSQL agree."""

import multiprocessing
import threading
import time
from pathlib import Path

import pytest

from deployments.learning.lease import Lease, this_process
from deployments.ledger.database import connect
from router import config

pytestmark = pytest.mark.slow
FORKS = multiprocessing.get_context("forkserver")


@pytest.fixture
def engine(either):
    return either


@pytest.fixture
def lease(engine):
    return Lease(engine)


def test_the_first_has_it_and_the_second_does_not(lease):
    assert lease.take("flywheel", "a", 10, now_s=100)
    assert not lease.take("flywheel", "b", 10, now_s=101)
    assert lease.holder("flywheel") == ("a", 110)
    assert lease.take("filler", "b", 10, now_s=101)  # another lease


def test_taking_it_again_renews_it(lease):
    assert lease.take("flywheel", "a", 10, now_s=100) and lease.take("flywheel", "a", 10, now_s=108)
    assert not lease.take("flywheel", "b", 10, now_s=117)


def test_one_that_ran_out_goes_to_whoever_asks(lease):
    assert lease.take("flywheel", "a", 10, now_s=100) and lease.take("flywheel", "b", 10, now_s=110)
    assert not lease.take("flywheel", "a", 10, now_s=111)


def test_it_is_given_back_by_its_holder_alone(lease):
    lease.take("flywheel", "a", 10, now_s=100)
    lease.release("flywheel", "b")
    assert lease.holder("flywheel") == ("a", 110)
    lease.release("flywheel", "a")
    assert lease.holder("flywheel") is None and lease.take("flywheel", "b", 10, now_s=101)


def test_it_is_renewed_while_a_block_runs(lease):
    assert lease.take("flywheel", "a", 0.3, time.time())
    with lease.kept("flywheel", "a", 0.3, time.time):
        time.sleep(0.6)
        assert not lease.take("flywheel", "b", 0.3, time.time())


def test_no_two_processes_have_the_same_name():
    assert this_process() != this_process()


def test_threads_go_through_a_store_s_own_turn(engine):
    turn, taken = threading.Lock(), []

    def transact(action):
        with turn, engine.begin() as connection:
            taken.append(True)
            return action(connection)

    assert Lease(transact).take("filler", "a", 10, 100) and taken == [True]


def counting(url, name, rounds, wins):
    """Take the lease as often as possible, and count how often somebody else had it at the same time."""
    engine = connect(config.Ledger(url=url))
    lease = Lease(engine)
    for _ in range(rounds):
        if lease.take("flywheel", name, 60, time.time()):
            found = lease.holder("flywheel")
            wins.put(found is not None and found[0] == name)
            lease.release("flywheel", name)
    engine.dispose()


def test_of_several_processes_one_has_it_at_a_time(url, engine, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{Path(__file__).parents[3]}")
    wins = FORKS.Queue()
    children = [FORKS.Process(target=counting, args=(url, name, 30, wins), daemon=True) for name in ("a", "b")]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    found = [wins.get(timeout=5) for _ in range(wins.qsize())]
    assert found and all(found)


def holding(url, taken):
    lease = Lease(connect(config.Ledger(url=url)))
    assert lease.take("flywheel", "dies", 1.0, time.time())
    taken.set()
    time.sleep(600)


def test_the_lease_of_a_killed_process_is_taken_over(url, engine, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{Path(__file__).parents[3]}")
    taken = FORKS.Event()
    child = FORKS.Process(target=holding, args=(url, taken), daemon=True)
    child.start()
    assert taken.wait(60)
    child.kill()
    child.join()
    lease, until = Lease(engine), time.monotonic() + 30
    while not lease.take("flywheel", "lives", 10, time.time()):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert lease.holder("flywheel")[0] == "lives"
