"""Work beside the event loop: its result or error comes back, and nobody goes on before it has ended."""

import asyncio
import threading

import pytest

from deployments import beside_loop as beside
from router.errors import Overloaded

pytestmark = pytest.mark.slow


def test_results_and_errors_come_back_from_another_thread():
    def fails() -> None:
        raise ValueError("as it was")

    async def run() -> None:
        assert await beside.beside_loop(threading.get_ident) != threading.get_ident()
        with pytest.raises(ValueError, match="as it was"):
            await beside.beside_loop(fails)

    asyncio.run(run())


@pytest.mark.parametrize("large", [False, True])
def test_only_what_belongs_to_a_large_request_leaves_the_loop(large):
    async def run() -> bool:
        beside.LARGE.set(large)
        return await beside.by_size(threading.get_ident) != threading.get_ident()

    assert asyncio.run(run()) is large


def test_a_cancelled_caller_waits_for_work_that_runs():
    begun, go_on, ended = threading.Event(), threading.Event(), []

    def work() -> None:
        begun.set()
        go_on.wait(10)
        ended.append(True)

    async def run() -> None:
        task = asyncio.create_task(beside.beside_loop(work))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended

    asyncio.run(run())


def test_where_too_many_wait_the_next_is_told_to_come_again(monkeypatch):
    monkeypatch.setattr(beside, "MOST_WAITING", 2)
    go_on = threading.Event()

    async def run() -> None:
        beside.check_room()
        tasks = [asyncio.create_task(beside.beside_loop(go_on.wait, 10)) for _ in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded, match="try again"):
            beside.check_room()
        go_on.set()
        await asyncio.gather(*tasks)
        beside.check_room()

    asyncio.run(run())


def test_so_it_is_where_the_bodies_that_wait_are_too_large_together(monkeypatch):
    monkeypatch.setattr(beside, "MOST_BYTES", 60)
    go_on = threading.Event()

    async def large(size: int) -> None:
        beside.LARGE.set(size)
        beside.check_room()
        await beside.beside_loop(go_on.wait, 10)

    async def run() -> None:
        tasks = [asyncio.create_task(large(size)) for size in (30, 30)]
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded, match="try again"):
            await large(1)
        go_on.set()
        await asyncio.gather(*tasks)
        beside.check_room()

    asyncio.run(run())
