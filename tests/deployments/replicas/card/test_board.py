"""Tiers on a card that holds one of them: who is asked wakes, the other goes once it is idle, a dead one does not count."""

import asyncio
import os
import subprocess
import sys
from contextlib import suppress

import pytest
from sleepy_engine import SleepyEngine

from deployments.replicas.card import dozer as module
from deployments.replicas.card.board import ASKED_S, CardBoard, folder_of
from deployments.replicas.card.dozer import Dozer
from deployments.replicas.card.node_lock import NodeLock
from router.doze_settings import Card
from router.errors import TierDozing

CARD = Card(group="a", gib=50, of_gib=80)
GONE = """
import os, sys
from pathlib import Path
from deployments.replicas.card.board import CardBoard
from router.doze_settings import Card

CardBoard(Path(sys.argv[1]), "gone", Card(group="a", gib=50, of_gib=80)).tell(True, 1, 0.0)
os._exit(9)
"""


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def board(tmp_path, clock):
    made = []

    def board(name, card=CARD):
        made.append(CardBoard(folder_of(card.group, tmp_path), name, card, clock))
        return made[-1]

    yield board
    for one in made:
        with suppress(OSError):  # the test has closed it
            one.close()


def test_who_fits_beside_the_others_wakes_at_once(board):
    small, large = board("small", Card(group="a", gib=20, of_gib=80)), board("large")
    large.tell(True, 1, 0.0)
    assert small.may_wake() and not large.wanted()


def test_who_does_not_fit_asks_the_idle_one_to_go_and_wakes_when_it_has_gone(board):
    one, other = board("one"), board("other")
    other.tell(True, 0, 3.0)
    assert not one.may_wake() and other.wanted() and not one.wanted()
    other.tell(False, 0, 4.0)
    assert one.may_wake() and not other.wanted()


def test_a_busy_one_is_not_asked(board):
    one, other = board("one"), board("other")
    other.tell(True, 1, 0.0)
    assert not one.may_wake() and not other.wanted()


def test_the_one_that_was_idle_longest_is_asked_however_much_later_it_says_so(board, clock):
    one, early, late = (board(name, Card(group="a", gib=35, of_gib=80)) for name in ("one", "early", "late"))
    early.tell(True, 0, 0.0)
    clock.now += 60
    late.tell(True, 0, 0.0)
    early.tell(True, 0, 60.0)
    assert not one.may_wake() and early.wanted() and not late.wanted()


def test_a_request_to_go_is_forgotten(board):
    one = board("one")
    one.file("ask").touch()
    assert one.wanted()
    os.utime(one.file("ask"), (1.0, 1.0))
    assert ASKED_S < 1e9 and not one.wanted() and not one.file("ask").exists()


def test_only_what_others_decide_by_is_written_again(board, clock):
    one = board("one")
    one.tell(True, 0, 0.0)
    first = one.file("json").stat().st_ino
    clock.now += 30
    one.tell(True, 0, 30.0)
    assert one.file("json").stat().st_ino == first
    one.tell(True, 2, 0.0)
    assert one.file("json").stat().st_ino != first


def test_who_has_not_started_yet_holds_nothing(board):
    board("starting")
    assert board("one").others() == [] and board("two").may_wake()


@pytest.mark.slow
def test_a_killed_replica_does_not_count_and_leaves_nothing_behind(board):
    one = board("one")
    assert subprocess.run([sys.executable, "-c", GONE, str(one.folder)]).returncode == 9
    assert one.file("json", "gone").exists()
    assert one.may_wake()
    assert [path.name for path in one.folder.iterdir() if path.name.startswith("gone")] == []


@pytest.mark.slow
def test_two_tiers_take_turns(tmp_path, board, monkeypatch):
    monkeypatch.setattr(module, "LOOK_S", 0.005)
    monkeypatch.setattr(module, "MAKE_ROOM_S", 0.005)
    steps = []

    def tier(name):
        engine = SleepyEngine()
        return Dozer(name, engine, 300.0, 60.0, NodeLock(tmp_path / "lock"), engine.token, board(name))

    async def ask(dozer):
        async with dozer.call():
            assert sum(not other.engine.asleep for other in dozers) == 1  # never both on the card
            steps.append(dozer.tier)
            return await dozer.engine.generate()

    dozers = []

    async def run():
        dozers.extend([tier("one"), tier("other")])
        one, other = dozers
        one.start()
        other.state, other.engine.asleep = "dozing", True
        other.tell()
        other.looking.start()
        for _ in range(3):
            async with asyncio.timeout(60):
                await ask(other)
                await ask(one)
        one.engine.held.clear()
        busy = asyncio.create_task(ask(one))
        await asyncio.sleep(0.02)
        other.wait_s = 0.05
        with pytest.raises(TierDozing):
            await ask(other)
        one.engine.held.set()
        assert await busy == "x"
        for dozer in dozers:
            assert dozer.engine.aborted == 0
            await dozer.close()

    asyncio.run(run())
    assert steps == ["other", "one"] * 3 + ["one"]
