"""Runs what grows with a request's size in a thread, so that no other request waits for it.

There is one such thread. Python's lock passes to a waiting thread every few milliseconds, but not within one call of a library:
with two threads the event loop could wait for two such calls, one after the other.
"""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

from router.errors import Overloaded
from router.request import json_text
from router.request.json_text import SMALL

T = TypeVar("T")
MOST_WAITING = 64  # large bodies that wait to be read; they are held in memory
MOST_BYTES = 512_000_000  # of those bodies together
AGAIN_S = 2.0
# A context variable and no argument: it belongs to a request and to everything that reads its body, as far as the tiers.
LARGE: ContextVar[int] = ContextVar("large", default=0)
"""bytes of this request's body if it is so large that whatever reads it runs beside the loop, else 0"""
_thread = ThreadPoolExecutor(1, thread_name_prefix="beside-loop")
_waiting: dict["Future[Any]", int] = {}
"""work that has not ended -> bytes of the body that it reads"""


def check_room() -> None:
    """Called before a large body is read. Raises Overloaded where too many wait already."""
    if len(_waiting) >= MOST_WAITING or sum(_waiting.values()) >= MOST_BYTES:
        raise Overloaded(AGAIN_S)


async def beside_loop(work: Callable[..., T], *args: Any) -> T:
    """The result of `work(*args)`, which runs in the thread. It must not raise StopIteration.

    Where the caller is cancelled, it goes on once the work has ended: nobody else may touch what it works on before.
    """
    future = _thread.submit(work, *args)
    _waiting[future] = LARGE.get()
    future.add_done_callback(_waiting.pop)
    waited = asyncio.wrap_future(future)
    try:
        return await asyncio.shield(waited)
    except asyncio.CancelledError:
        future.cancel()
        while not waited.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({waited})
        if not waited.cancelled():
            waited.exception()  # else asyncio reports it as never retrieved
        raise


async def by_size(work: Callable[..., T], *args: Any) -> T:
    """The result of `work(*args)`, which runs in the thread for a large request, else here and now."""
    return await beside_loop(work, *args) if LARGE.get() else work(*args)


async def written(body: Any, *, ascii_only: bool = True, compact: bool = False) -> str:
    """The request's body as JSON. ascii_only, compact: `ensure_ascii` of `json.dumps`, and its shortest separators."""
    if LARGE.get():
        return await beside_loop(partial(json_text.written, body, ascii_only=ascii_only, compact=compact))
    return json.dumps(body, ensure_ascii=ascii_only, separators=(",", ":") if compact else None)


async def by_length(raw: bytes, work: Callable[..., T], *args: Any) -> T:
    """The result of `work(*args)`, which runs in the thread where it reads so much, else here and now."""
    return await beside_loop(work, *args) if len(raw) > SMALL else work(*args)
