"""An upstream on a real port that writes exactly the bytes that a test tells, in the reads that it tells."""

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
LENGTH = re.compile(rb"content-length:\s*(\d+)", re.I)
Part = bytes | float | Callable[[], Any]
"""bytes to write, seconds to wait, or what to do; CLOSE and RESET end the connection"""


def close() -> None:
    """End the connection after what was written."""


def reset() -> None:
    """Break the connection."""


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(content: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {} if content is None else {"content": content}, "finish_reason": finish}
    shown = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "theirs", "choices": [choice], **more}
    return b"data: " + json.dumps(shown, separators=(",", ":")).encode() + b"\n\n"


USAGE = event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8})
DONE = b"data: [DONE]\n\n"
FIRST = event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])


class RawUpstream:
    """script: what to write for each request, from the head on. asked: the requests, as they came."""

    def __init__(self) -> None:
        self.script: list[Part] = []
        self.first: list[list[Part]] = []
        """scripts of the next requests, before `script`"""
        self.asked: list[bytes] = []
        self.connections = 0
        self.left = threading.Event()
        """a client left in the middle of an answer"""
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections += 1
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while request := self.read(connection):
                self.asked.append(request)
                if not self.play(connection, self.first.pop(0) if self.first else list(self.script)):
                    return

    def read(self, connection: socket.socket) -> bytes:
        held = b""
        while True:
            end = held.find(b"\r\n\r\n")
            said = LENGTH.search(held[: end + 4]) if end >= 0 else None
            if end >= 0 and len(held) >= end + 4 + (int(said[1]) if said else 0):
                return held
            if not (more := connection.recv(65_536)):
                return b""
            held += more

    def play(self, connection: socket.socket, script: list[Part]) -> bool:
        """Whether the connection may carry another request."""
        try:
            for part in script:
                if part is close:
                    return False
                if part is reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    return False
                if isinstance(part, bytes):
                    connection.sendall(part)
                elif isinstance(part, float):
                    time.sleep(part)
                else:
                    part()
        except OSError:
            self.left.set()
            raise
        return True


@contextlib.contextmanager
def upstream() -> Iterator[RawUpstream]:
    made = RawUpstream()
    try:
        yield made
    finally:
        made.socket.close()
