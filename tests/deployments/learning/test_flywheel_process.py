"""The flywheel's own process: it ends with its input, and whatever kills it, the next one goes on."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import student_life
from life import World, keep, ladder, served

from deployments.learning import runs
from deployments.learning.flywheel import Flywheel
from deployments.learning.lease import Lease
from deployments.learning.live import model_store
from deployments.ledger.database import connect, migrate
from deployments.tiers.fingerprints import ladder_fingerprints
from router import config

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
QUICK = {"canary_s": 0, "canary_requests": 20, "keep_old_s": 3, "promote": "auto"}
PATIENCE_S = 600  # a process takes seconds to start, and ten times as long on a loaded machine
KILLED_AT = ("training", "looked", "promoted")  # once after each


@pytest.fixture
def settings(tmp_path):
    return ladder(f"sqlite:///{tmp_path / 'ledger.db'}", QUICK)


@pytest.fixture
def log(settings):
    made = connect(config.Ledger(url=settings.ledger.url))
    migrate(made)
    yield made
    made.dispose()


@pytest.fixture
def started(settings, tmp_path):
    children = []
    (tmp_path / "events.txt").touch()

    def start(*words, settings=settings):
        paths = {"PYTHONPATH": str(HERE.parents[2]), "STEPDOWN_STATE_DIR": str(tmp_path / "state")}
        command = [sys.executable, str(HERE / "killed_flywheel.py"), str(tmp_path / "events.txt"), *words]
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, env={**os.environ, **paths, "WEIGHTS": str(tmp_path / "weights")}
        )
        child.stdin.write(settings.model_dump_json().encode() + b"\n")
        child.stdin.flush()
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.wait()


def until(true, what):
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def latest(engine):
    with engine.connect() as connection:
        return runs.latest(connection)


def test_it_ends_when_its_input_does(started, log):
    child = started()
    until(lambda: Lease(log).holder("flywheel"), "it has begun")
    child.stdin.close()
    assert child.wait(PATIENCE_S) == 0
    assert Lease(log).holder("flywheel") is None  # given back


def test_killed_after_each_kind_of_event_it_takes_a_run_to_its_end(started, log, settings, tmp_path):
    world, chance, killed_at, turn = World(log, settings), random.Random(7), set(), 0
    keep(log, [f"a{n}" for n in range(100)], time.time())
    child = started()
    end = time.monotonic() + PATIENCE_S

    def gone_on():
        nonlocal turn
        turn += 1
        run = latest(log)
        if run and run.stage == "shadow":
            keep(log, [f"b{turn}-{n}" for n in range(10)], time.time())
        if run and run.stage == "canary":
            served(log, [f"c{turn}-{n}" for n in range(5)], time.time(), run.candidate)

    def ended():
        run = latest(log)
        return run is not None and run.closed

    while not ended():
        assert time.monotonic() < end, latest(log)
        seen = (tmp_path / "events.txt").read_text()
        until(lambda seen=seen: (tmp_path / "events.txt").read_text() != seen or ended() or gone_on(), "an event")
        what = (tmp_path / "events.txt").read_text().split("\n")[-2]
        if what in KILLED_AT and what not in killed_at and not ended():
            killed_at.add(what)
            time.sleep(chance.random() * 0.2)
            child.kill()
            child.wait()
            forget(log)  # else the next one waits for the dead one's lease to run out
            child = started()
    run = latest(log)
    assert run.stage == "done" and killed_at >= {"training", "looked"}
    assert [what for what in world.history(run) if what[1] != "looked"] == [
        ("training", "began"),
        ("shadow", "trained"),
        ("canary", "passed"),
        ("promoted", "promoted"),
        ("done", "done"),
    ]
    names = [name for name, _, _ in world.compared(run)]
    assert len(names) == len(set(names)) >= 60 and set(world.slots()) == {"promoted"}


def forget(engine):
    holder = Lease(engine).holder("flywheel")
    if holder:
        Lease(engine).release("flywheel", holder[0])


def test_a_second_process_waits_and_takes_over(started, log):
    first = started()
    until(lambda: Lease(log).holder("flywheel"), "the first has begun")
    holder, _ = Lease(log).holder("flywheel")
    started()
    time.sleep(1)
    assert Lease(log).holder("flywheel")[0] == holder
    first.stdin.close()
    first.wait(PATIENCE_S)
    until(lambda: (Lease(log).holder("flywheel") or (holder,))[0] != holder, "the second has taken over")


def test_a_students_training_killed_after_each_of_its_steps_is_trained_to_the_same_end(started, log, tmp_path):
    settings = student_life.ladder(tmp_path, f"sqlite:///{tmp_path / 'ledger.db'}", QUICK)
    keep(log, [f"a{n}" for n in range(120)], time.time() - 60, source="agreement")
    prints = ladder_fingerprints(settings)
    Flywheel(settings, log, prints, tmp_path / "cache", by="test").advance("me", student=student_life.STUDENT)
    forget(log)
    kills = 0

    def further():
        return (tmp_path / "events.txt").read_text().count("step") > kills or trained(log)

    child = started("student", settings=settings)
    until(further, "a step")
    while not trained(log):
        kills += 1
        child.kill()
        child.wait()
        forget(log)
        child = started("student", settings=settings)
        until(further, "a step")
    with log.connect() as connection:
        events = runs.events(connection, latest(log).id)
        (weights,) = model_store.weights_listed(connection)
    steps = [event.numbers["step"] for event in events if event.what == "step"]
    assert steps == ["data", "train", "gates", "answers", "router"] and kills >= 3
    assert latest(log).stage == "shadow" and weights.numbers["tokens"] == 2_400_000


def trained(engine):
    return latest(engine).stage != "training"
