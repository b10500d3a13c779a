"""The frames on a lane: a line of JSON, followed by as many bytes as its numbers say.

A connection carries one call at a time. Request: `[path, bytes of the body, call id, missed, hint]`, then the body. Answer:
items, each `[status, bytes of the text, bytes of the measurement]`, then both; an empty list after the last item, or `[0]` if the
replica takes no more calls. Closing the connection gives the call up.
"""

import asyncio
import json
from typing import Any

END = b"[]\n"  # after the last item
CLOSING = b"[0]\n"  # the same, and the replica takes no more calls

Item = tuple[int, str, str]
"""(status, text, measurement), as `vllm_tier.PlainServer.openai` yields them"""


class Connection(asyncio.Protocol):
    """Turns received bytes into frames."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.head: list[Any] | None = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (frame := self.next_frame()) is not None:
            self.frame_received(*frame)

    def next_frame(self) -> tuple[list[Any], bytes] | None:
        """The next frame that is complete. A line that is not a JSON list ends the connection."""
        if self.head is None:
            end = self.buffer.find(b"\n")
            if end < 0:
                return None
            try:
                self.head = list(json.loads(self.buffer[:end]))
            except (ValueError, TypeError):
                self.transport.abort()
                return None
            del self.buffer[: end + 1]
        size = self.body_size(self.head)
        if len(self.buffer) < size:
            return None
        head, body = self.head, bytes(self.buffer[:size])
        del self.buffer[:size]
        self.head = None
        return head, body

    def body_size(self, head: list[Any]) -> int:
        """Bytes that follow the line."""
        raise NotImplementedError

    def frame_received(self, head: list[Any], body: bytes) -> None:
        raise NotImplementedError
