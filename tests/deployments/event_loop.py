"""Calls an ASGI application in its own event loop and measures how long any one turn of the loop held everybody up."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

PIECE = 65_536  # bytes of a body that arrive at once


@dataclass
class Answer:
    status: int = 0
    body: bytearray = field(default_factory=bytearray)


async def ask(app: Any, path: str, raw: bytes = b"", key: str = "right", method: str = "POST") -> Answer:
    """One request by a client that waits for the whole answer."""
    pieces = [raw[at : at + PIECE] for at in range(0, max(1, len(raw)), PIECE)]
    answer, left = Answer(), asyncio.Event()

    async def receive() -> dict[str, Any]:
        if not pieces:
            await left.wait()
            return {"type": "http.disconnect"}
        await asyncio.sleep(0)
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
        else:
            answer.body += message.get("body", b"")

    headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json"), (b"host", b"localhost")]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": headers, "query_string": b""}
    await app({**scope, "http_version": "1.1", "scheme": "http", "server": ("localhost", 80)}, receive, send)
    left.set()
    return answer


class Turns:
    """The longest turn of the loop, in seconds: by the clock or by this process's processor time, whichever is less.

    What other processes on a busy machine take does not count, nor what threads of ours do without holding Python's lock.
    """

    longest_s = 0.0

    async def watch(self) -> None:
        while True:
            worked, began = time.process_time(), time.monotonic()
            await asyncio.sleep(0.001)
            self.longest_s = max(self.longest_s, min(time.process_time() - worked, time.monotonic() - began))


@asynccontextmanager
async def watched(beside: Callable[[], Awaitable[Any]] | None = None) -> AsyncIterator[Turns]:
    """Measures while the body of the `with` runs. beside: called again and again meanwhile, another client."""
    turns = Turns()

    async def again() -> None:
        while beside:
            await beside()
            await asyncio.sleep(0.005)

    tasks = [asyncio.create_task(turns.watch()), asyncio.create_task(again())]
    await asyncio.sleep(0.01)
    turns.longest_s = 0.0
    try:
        yield turns
    finally:
        await asyncio.sleep(0.005)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
