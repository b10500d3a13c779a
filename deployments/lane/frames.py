"""What goes over a lane (lane.py, lanes.py): a line of JSON, and as many bytes as its numbers say.

A connection carries one call at a time. Asked: `[path, bytes of the body, call id, missed, hint]`, and the body. Answered:
items, each `[status, bytes of the text, bytes of the reading]` and both; an empty list after the last, or `[0]` where the replica
takes no more calls. Who closes the connection gives the call up.
"""

import asyncio
import json
from typing import Any

END, GONE = b"[]\n", b"[0]\n"


class Connection(asyncio.Protocol):
    """Bytes in, frames out."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.head: list[Any] | None = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (frame := self.frame()) is not None:
            self.came(*frame)

    def frame(self) -> tuple[list[Any], bytes] | None:
        """The next that is whole. A line that is none ends the connection."""
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
        size = self.size(self.head)
        if len(self.buffer) < size:
            return None
        head, body = self.head, bytes(self.buffer[:size])
        del self.buffer[:size]
        self.head = None
        return head, body

    def size(self, head: list[Any]) -> int:
        """Of what follows the line."""
        raise NotImplementedError

    def came(self, head: list[Any], body: bytes) -> None:
        raise NotImplementedError


Shown = tuple[int, str, str]
"""(status, text, reading), as `vllm_tier.PlainServer.openai` yields them"""
