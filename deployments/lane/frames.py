"""The frames on a lane: a line of JSON, followed by as many bytes as its numbers say.

A connection carries one call at a time. On TCP its first line is `[token]`. Request: `[path, bytes of the body, call id, missed,
hint]`, then the body. Answer: items, each `[status, bytes of the text, bytes of the measurement]`, then both; after the last item
a line with one number: how many other calls the replica has, or `CLOSING`; or, in place of an answer, `FULL`. Closing the
connection gives the call up. Lines and bodies have bounds; what exceeds them ends the connection.
"""

import asyncio
import json
from typing import Any

CLOSING = -1  # after the last item: the replica takes no more calls
FULL = -2  # the replica has as many calls as it takes; nothing was done
MOST_LINE = 65_536  # bytes
MOST_BODY = 1 << 28  # bytes that follow one line

Item = tuple[int, str, str]
"""(status, text, measurement), as `vllm_tier.PlainServer.openai` yields them"""


def ending(number: int) -> bytes:
    """The line after the last item."""
    return b"[%d]\n" % number


class Connection(asyncio.Protocol):
    """Turns received bytes into frames."""

    most_line = MOST_LINE
    """bytes of a line"""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.head: list[Any] | None = None
        self.size = 0
        """bytes that follow the line"""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (frame := self.next_frame()) is not None:
            self.frame_received(*frame)

    def next_frame(self) -> tuple[list[Any], bytes] | None:
        """The next frame that is complete. What is not the language ends the connection."""
        if self.head is None and not self.read_line():
            return None
        size = self.size
        if len(self.buffer) < size:
            return None
        head, body = self.head, bytes(self.buffer[:size])
        del self.buffer[:size]
        self.head = None
        assert head is not None
        return head, body

    def read_line(self) -> bool:
        """Read the line of a frame, if all of it is there."""
        end = self.buffer.find(b"\n", 0, self.most_line)
        if end < 0:
            if len(self.buffer) >= self.most_line:
                self.refuse()
            return False
        try:
            head = list(json.loads(self.buffer[:end]))
            self.size = self.body_size(head)
        except (ValueError, TypeError, IndexError):
            self.size = -1
        if not 0 <= self.size <= MOST_BODY:
            self.refuse()
            return False
        del self.buffer[: end + 1]
        self.head = head
        return True

    def refuse(self) -> None:
        """End the connection, whose other end does not speak the language."""
        self.buffer.clear()
        self.transport.abort()

    def body_size(self, head: list[Any]) -> int:
        """Bytes that follow the line. Raises ValueError, TypeError, IndexError where it is no line of this language."""
        raise NotImplementedError

    def frame_received(self, head: list[Any], body: bytes) -> None:
        raise NotImplementedError


def size_of(number: Any) -> int:
    """A number of bytes. Raises TypeError, ValueError."""
    if type(number) is not int:
        raise TypeError(f"found {number!r}, expected a number of bytes")
    if number < 0:
        raise ValueError(f"found {number} bytes, expected none or more")
    return number
