"""One call on a lane, as its reader sees it: items that come in, or an error."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from deployments.lane.frames import Item

CLOSED = "the replica's end of the lane was closed"
HELD = 64  # items that wait for their reader, above which the replica is held up
FLOWS = 8  # items below which it goes on

Sink = Callable[[bytes], bool]
"""Takes an item's text. False: it did not, and the item is to be read."""


class LaneLost(ConnectionError):
    """The replica is gone, or failed in a way that it could not report."""


class LaneFull(LaneLost):
    """The replica has as many calls as it takes; nothing was done."""


class Line(Protocol):
    """A connection, as its call sees it."""

    transport: Any
    lane: Any
    """which hears when the call is over"""


class LaneCall:
    """The items that answer one call: (status, text, measurement), as a handle's generator. Raises LaneLost, LaneFull."""

    def __init__(self, connection: Line) -> None:
        self.connection: Line | None = connection
        """None: the call is over, and the connection belongs to another"""
        self.replica = connection.lane.name
        self.sink: Sink | None = None
        """takes texts while somebody waits for the next item and none is left to read, so that their order stays"""
        self.items: deque[Item] = deque()
        """that nobody has read yet"""
        self.ended = False
        """nothing comes after `items` but `error`"""
        self.error: LaneLost | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.held = False
        """the replica is held up, as its items are not read"""

    def __aiter__(self) -> "LaneCall":
        return self

    async def __anext__(self) -> Item:
        while not self.items:
            if self.ended:
                raise self.error or StopAsyncIteration
            self.waiter = asyncio.get_running_loop().create_future()
            try:
                await self.waiter
            finally:
                self.waiter = None
        item = self.items.popleft()
        if self.held and len(self.items) < FLOWS:
            self.hold(False)
        return item

    def came(self, status: int, body: bytes, size: int) -> None:
        """An item, whose text is the first `size` bytes. One that means nothing but its text needs no reader."""
        waits = self.waiter is not None and not self.waiter.done() and not self.items
        if waits and self.sink and status == 200 and size == len(body) and self.sink(body):
            return
        self.items.append((status, body[:size].decode(), body[size:].decode()))
        self.wake()
        if not self.held and len(self.items) > HELD:
            self.hold(True)

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def hold(self, held: bool) -> None:
        """Have the replica wait until items are read; or go on."""
        self.held = held
        if self.connection and not self.connection.transport.is_closing():
            transport = self.connection.transport
            transport.pause_reading() if held else transport.resume_reading()

    def cancel(self) -> None:
        """Give the call up: the replica stops at once."""
        if self.connection:
            self.connection.transport.abort()
            self.over()

    def over(self, error: LaneLost | None = None) -> None:
        if self.connection:
            if self.held:
                self.hold(False)
            self.connection.lane.ended()
        self.connection, self.sink = None, None
        self.ended, self.error = True, error
        self.wake()
