"""The same call to two replicas, where the first has said nothing for long: who answers first wins, the other is stopped."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from router.config import Tier
from router.costs import prices as costs
from router.costs.prices import token_cost_usd
from router.errors import RequestFailed
from router.trace import HEDGE, CallRow, Reading, Twin
from router.types import Usage

T = TypeVar("T")
Ask = Callable[[Reading | None, str], Awaitable[T]]
Drop = Callable[[T], Awaitable[None]]


async def raced(first: "asyncio.Task[T]", second: Callable[[Twin], Awaitable[T]], began: float, drop: Drop[T]) -> tuple[T, Twin]:
    """The first answer of two, and what became of the other. began: of the first, by time.monotonic. Raises RequestFailed.

    drop: lets go of an answer that nobody wants.
    """
    twin = Twin(time.monotonic() - began, Reading())
    tries = [first, asyncio.ensure_future(second(twin))]
    won: asyncio.Task[T] | None = None
    try:
        won = await first_good(tries)
        twin.won = won is tries[1]
        return won.result(), twin
    finally:
        others = [task for task in tries if task is not won]
        await stopped(others, drop)
        twin.ended_s = time.monotonic() - began
        twin.lost = outcome(others[-1])


async def first_good(tries: "Sequence[asyncio.Task[T]]") -> "asyncio.Task[T]":
    """That has an answer; where none has, the first of them."""
    waiting = set(tries)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if good := [task for task in tries if task in done and not task.exception()]:
            return good[0]
    return tries[0]


async def stopped(tries: "Sequence[asyncio.Task[T]]", drop: Drop[T]) -> None:
    for task in tries:
        task.cancel()
    await asyncio.wait(tries)
    for task in tries:
        if not task.cancelled() and not task.exception():
            await drop(task.result())


def outcome(task: "asyncio.Task[T]") -> str:
    error = None if task.cancelled() else task.exception()
    return error.code if isinstance(error, RequestFailed) else "cancelled"


def rows(row: CallRow, first: Reading, twin: Twin, prices: Sequence[float], tier: Tier) -> list[CallRow]:
    """Both calls. row: as if there were one, of what the client got. The other one read the same prompt, or a part of it."""
    said, other = (twin.reading, first) if twin.won else (first, twin.reading)
    usage = Usage(row.input_tokens, row.output_tokens)
    won = replace(row, **measured(said, tier), cost_usd=token_cost_usd(usage, prices, said.cached_tokens))
    lost = replace(
        row,
        **measured(other, tier),
        outcome=twin.lost,
        output_tokens=0,
        estimated=True,
        first_token_s=None,
        cost_usd=lost_usd(usage, prices),
    )
    if not twin.won:
        return [won, replace(later(lost, twin), took_s=twin.ended_s - twin.began_s)]
    return [replace(lost, took_s=twin.ended_s), later(won, twin)]


def lost_usd(usage: Usage, prices: Sequence[float]) -> float:
    """Of the call that was stopped before it said anything: at most its prompt."""
    return token_cost_usd(Usage(usage.input_tokens, 0), prices)


def later(row: CallRow, twin: Twin) -> CallRow:
    """The row of the call that began second."""
    first_token_s = None if row.first_token_s is None else max(0.0, row.first_token_s - twin.began_s)
    began_s, took_s = row.began_s + twin.began_s, max(0.0, row.took_s - twin.began_s)
    return replace(row, id=row.id + HEDGE, began_s=began_s, took_s=took_s, first_token_s=first_token_s)


def measured(reading: Reading, tier: Tier) -> dict[str, Any]:
    gpu_usd = None if reading.busy_s is None else costs.gpu_usd(reading.busy_s, tier)
    return {"replica": reading.replica, "busy_s": reading.busy_s, "cached_tokens": reading.cached_tokens, "gpu_usd": gpu_usd}
