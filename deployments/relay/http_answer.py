"""An answer of an upstream as it comes in: its head, and its body in pieces, to be read or to be handed straight on.

Errors are aiohttp's, so that they mean the same from either client.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
from multidict import CIMultiDict

MOST_WAITING = 65_536  # bytes that nobody has read yet; the upstream waits beyond them

Sink = Callable[[bytes], bool]
"""Takes a piece of the body. False: it did not, and the piece is to be read."""


class Answer:
    """pause, resume: stop and go on reading from the upstream. end: what becomes of the connection; True: it may serve again.

    silence_s: seconds without a byte after which a wait for one raises aiohttp.SocketTimeoutError.
    """

    def __init__(
        self, pause: Callable[[], None], resume: Callable[[], None], end: Callable[[bool], None], silence_s: float
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.pause, self.resume, self.end, self.silence_s = pause, resume, end, silence_s
        self.status = 0
        """0: its head has not come"""
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.sink: Sink | None = None
        """takes pieces while somebody waits for the next and none is left to read, so that their order stays"""
        self.parts: list[bytes] = []
        self.waiting = 0
        """bytes in `parts`"""
        self.paused = self.whole = False
        self.error: Exception | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.heard_s = self.loop.time()
        self.timer: asyncio.TimerHandle | None = None

    @property
    def packed(self) -> bool:
        """Whether its body is compressed, though it was asked not to be: this client cannot read it."""
        return self.headers.get("content-encoding", "identity").lower() != "identity"

    @property
    def content(self) -> "Answer":
        """The body, under the names that aiohttp's has."""
        return self

    # -- what the connection tells -------------------------------------------------------------------------------------

    def begin(self, status: int, headers: CIMultiDict[str]) -> None:
        self.status, self.headers = status, headers
        self.wake()

    def feed(self, piece: bytes) -> None:
        """Take a piece of the body."""
        waiter = self.waiter
        if self.sink is not None and not self.parts and waiter is not None and not waiter.done() and self.sink(piece):
            self.heard_s = self.loop.time()
            return
        self.parts.append(piece)
        self.waiting += len(piece)
        if self.waiting > MOST_WAITING and not self.paused:
            self.paused = True
            self.pause()
        self.wake()

    def done(self) -> None:
        """All of it has come."""
        self.whole = True
        self.wake()

    def fail(self, error: Exception) -> None:
        """It breaks off. Nothing happens to one that is whole or has failed."""
        if not self.whole and self.error is None:
            self.error = error
            self.wake()

    def wake(self) -> None:
        self.heard_s = self.loop.time()
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    # -- what its reader asks ------------------------------------------------------------------------------------------

    async def head(self) -> None:
        """Returns once status and headers are there. Raises aiohttp.ClientError."""
        while not self.status:
            await self.more()

    async def readany(self) -> bytes:
        """What has come, at least a byte; empty at the end. Raises aiohttp.ClientError."""
        while not self.parts:
            if self.whole:
                return b""
            await self.more()
        read = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        self.parts.clear()
        self.waiting = 0
        if self.paused:
            self.paused = False
            self.resume()
        return read

    async def iter_any(self) -> AsyncIterator[bytes]:
        while part := await self.readany():
            yield part

    async def more(self) -> None:
        """Wait until something comes."""
        if self.error is not None:
            raise self.error
        self.waiter = self.loop.create_future()
        self.heard_s = self.loop.time()
        if self.timer is None:
            self.timer = self.loop.call_later(self.silence_s, self.look)
        try:
            await self.waiter
        finally:
            self.waiter = None

    def look(self) -> None:
        """Give up if nothing was heard for long while somebody waited, else look again when that may be so."""
        left_s = self.silence_s - (self.loop.time() - self.heard_s) if self.waiter is not None else self.silence_s
        if left_s > 0:
            self.timer = self.loop.call_later(left_s, self.look)
        else:
            self.fail(aiohttp.SocketTimeoutError("Timeout on reading data from socket"))

    async def __aenter__(self) -> "Answer":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection. It serves again if the answer was read to its end."""
        self.sink = None
        if self.timer is not None:
            self.timer.cancel()
        self.end(self.whole and self.error is None and not self.paused)
