"""Time that tiers held is neither invented nor lost without a word."""

import asyncio
from dataclasses import dataclass, field

import pytest

from deployments.ledger.held_time import GAP_S, HeldTime, last_windows
from deployments.ledger.ledger import Ledger
from router.config import Ledger as Settings
from router.config import VllmTier
from router.errors import LedgerDown
from router.trace import Window

PRICE = {"usd_per_accelerator_hour": 2.0}


@dataclass
class World:
    now: float = 1000.0
    replicas: dict[str, int | Exception] = field(default_factory=lambda: {"small": 1, "large": 1})
    rows: list[Window] = field(default_factory=list)
    down: bool = False

    async def running(self, name: str) -> int:
        if isinstance(count := self.replicas[name], Exception):
            raise count
        return count

    async def held(self, windows) -> None:
        if self.down:
            raise LedgerDown("told to")
        self.rows += windows

    def provision(self, **changes) -> HeldTime:
        tiers = [
            VllmTier(name="small", engine="vllm", source="x", context=9, price=PRICE),
            VllmTier(name="large", engine="vllm", source="x", context=9, price=PRICE, accelerator="H100", tensor_parallel=4),
        ]
        return HeldTime(tiers, self.running, self.held, clock=lambda: self.now, **changes)

    def seconds(self, name: str) -> float:
        return sum(w.accelerator_s for w in self.rows if w.tier == name)


def looks(world: World, made: HeldTime, *steps) -> None:
    """Each step: seconds that pass, and the replicas then."""

    async def go():
        await made.look()
        for passed, replicas in steps:
            world.now += passed
            world.replicas |= replicas
            await made.look()

    asyncio.run(go())


def test_windows_begin_at_multiples_and_hold_all_accelerators():
    world = World(now=1003.0)
    looks(world, world.provision(), (10, {}), (10, {}))
    assert [w.began_s for w in world.rows if w.tier == "small"] == [1000, 1010]
    assert world.seconds("small") == 20 and world.seconds("large") == 80
    assert {w.usd_per_accelerator_hour for w in world.rows} == {2.0}


def test_two_ingresses_out_of_step_report_the_same_rows():
    first, second = World(now=1001.0), World(now=1008.5)
    for world in (first, second):
        looks(world, world.provision(), (10, {}), (10, {}))
    assert first.rows == second.rows


@pytest.mark.parametrize("late_s", [10, 30, 90])
def test_a_late_look_loses_nothing_and_a_change_counts_from_the_middle(late_s):
    world = World()
    looks(world, world.provision(), (late_s, {"small": 3}))
    assert len([w for w in world.rows if w.tier == "small"]) == late_s // 10
    assert world.seconds("small") == pytest.approx(2 * late_s)


def test_a_long_pause_is_not_claimed_and_told(caplog):
    world = World()
    made = world.provision()
    looks(world, made, (10, {}), (GAP_S + 10, {}), (10, {}))
    assert world.seconds("small") == 20
    assert made.unseen_s == 2 * (GAP_S + 10)
    assert "not recorded" in caplog.text


def test_a_tier_that_cannot_be_looked_at_is_filled_in_by_the_next_look():
    world = World()
    looks(world, world.provision(), (10, {"small": RuntimeError("no controller")}), (10, {"small": 1}))
    assert world.seconds("small") == 20 and world.seconds("large") == 80


def test_a_tier_without_replicas_holds_nothing():
    world = World()
    looks(world, world.provision(), (10, {"large": 0}), (10, {}))
    assert [w.accelerator_s for w in world.rows if w.tier == "large"] == [20, 0]


def test_windows_wait_for_a_ledger_that_is_down():
    world = World(down=True)
    made = world.provision()
    looks(world, made, (10, {}), (10, {}))
    assert not world.rows
    world.down = False
    looks(world, made, (10, {}))
    assert world.seconds("small") == 30


def test_a_clock_set_back_reports_nothing_twice():
    world = World()
    looks(world, world.provision(), (20, {}), (-10, {}), (10, {}), (10, {}))
    assert [w.began_s for w in world.rows if w.tier == "small"] == [1000, 1010, 1020]


def test_a_restart_goes_on_from_the_ledgers_last_window_unless_it_is_old():
    world = World(now=1031.0)
    looks(world, world.provision(last={"small": (1010.0, 1.0), "large": (1010.0 - GAP_S, 1.0)}), (10, {}))
    assert [w.began_s for w in world.rows if w.tier == "small"] == [1010, 1020, 1030]
    assert [w.began_s for w in world.rows if w.tier == "large"] == [1030]


def test_the_task_goes_on_after_an_error_and_reports_until_its_end():
    world = World()

    async def held(windows):
        if world.now < 1020:
            raise ValueError("unexpected")
        world.rows += windows

    async def go():
        made = HeldTime(world.provision().tiers.values(), world.running, held, every_s=1, clock=lambda: world.now)
        made.start()
        await asyncio.sleep(0.01)
        world.now += 30.7
        await made.close()

    asyncio.run(go())
    assert world.seconds("small") == 30


def test_the_last_windows_are_those_that_ended_last(tmp_path):
    ledger = Ledger(Settings(journal_s=0, url=f"sqlite:///{tmp_path / 'ledger.db'}"))

    async def filled():
        await ledger.open()
        await ledger.held([Window(tier, at, 10, count, 1) for tier, at, count in (("a", 0, 1), ("a", 10, 2), ("b", 0, 3))])
        await ledger.close()

    asyncio.run(filled())
    assert last_windows(ledger.engine) == {"a": (20.0, 2.0), "b": (10.0, 3.0)}
    ledger.engine.dispose()
    for file in tmp_path.glob("ledger.db*"):
        file.unlink()
    assert last_windows(ledger.engine) == {}


def test_the_hosts_are_noted_until_it_worked():
    world, said = World(), [False, False, True, True]
    made = world.provision(note_hosts=lambda: said.pop(0))
    looks(world, made, (10, {"small": 1, "large": 1}), (10, {"small": 1, "large": 1}), (10, {"small": 1, "large": 1}))
    assert said == [True]
