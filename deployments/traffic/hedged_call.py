"""Sends a call to a second replica when the first has been silent for long: the first to answer wins, the other is stopped."""

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
    """The first answer of two calls, and what became of the other. Raises RequestFailed.

    began: when the first call began, by time.monotonic. drop: lets go of an answer that is not used.
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
    """The first to answer; if none does, the first of the sequence."""
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
    """row: the winning call. Returns it and a second row for the call that lost, which read the same prompt or part of it."""
    winner, loser = (twin.reading, first) if twin.won else (first, twin.reading)
    usage = Usage(row.input_tokens, row.output_tokens)
    won = replace(row, **measured(winner, tier), cost_usd=token_cost_usd(usage, prices, winner.cached_tokens))
    lost = replace(
        row,
        **measured(loser, tier),
        outcome=twin.lost,
        output_tokens=0,
        estimated=True,
        first_token_s=None,
        cost_usd=lost_usd(usage, prices),
    )
    if not twin.won:
        return [won, replace(begun_second(lost, twin), took_s=twin.ended_s - twin.began_s)]
    return [replace(lost, took_s=twin.ended_s), begun_second(won, twin)]


def cost_usd(usage: Usage, prices: Sequence[float], reading: Reading) -> float:
    """The token price of a call; of one that was sent to two replicas, of both."""
    twin = reading.twin
    said = twin.reading if twin and twin.won else reading
    return token_cost_usd(usage, prices, said.cached_tokens) + (lost_usd(usage, prices) if twin else 0.0)


def lost_usd(usage: Usage, prices: Sequence[float]) -> float:
    """The price of a call that was stopped before it said anything: at most its prompt."""
    return token_cost_usd(Usage(usage.input_tokens, 0), prices)


def begun_second(row: CallRow, twin: Twin) -> CallRow:
    """The row with the id and the times of the call that began second."""
    first_token_s = None if row.first_token_s is None else max(0.0, row.first_token_s - twin.began_s)
    began_s, took_s = row.began_s + twin.began_s, max(0.0, row.took_s - twin.began_s)
    return replace(row, id=row.id + HEDGE, began_s=began_s, took_s=took_s, first_token_s=first_token_s)


def measured(reading: Reading, tier: Tier) -> dict[str, Any]:
    """A row's fields for what a replica measured."""
    gpu_usd = None if reading.busy_s is None else costs.gpu_usd(reading.busy_s, tier)
    return {"replica": reading.replica, "busy_s": reading.busy_s, "cached_tokens": reading.cached_tokens, "gpu_usd": gpu_usd}
