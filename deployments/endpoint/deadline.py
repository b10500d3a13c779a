"""Time limits of one request: for sending its body, for its answer, and for a client that does not read its stream."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import closing
from math import inf
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse

from deployments.endpoint.encodings import Decoder
from deployments.endpoint.ongoing_request import OngoingRequest
from router.errors import TooLarge, TooSlow

T = TypeVar("T")
LOOK_S = 1.0  # between looks how much time a stream has left
GRACE_S = 5.0  # beyond the deadline, so that the event that reports it can still be sent


async def read(request: Request, most_bytes: int, limit_s: float) -> bytes:
    """The body, unpacked if it was compressed. One whose `content-length` is too large is not read at all.

    Raises TooLarge, TooSlow, UnknownEncoding, BadRequest.
    """
    decoder = Decoder(request.headers.get("content-encoding", ""))
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said[:20]) > most_bytes:
        raise TooLarge(most_bytes)
    try:
        async with asyncio.timeout(limit_s):
            return await whole(request, most_bytes, decoder)
    except TimeoutError:
        raise TooSlow(limit_s) from None


async def whole(request: Request, most_bytes: int, decoder: Decoder) -> bytes:
    """most_bytes: counted after unpacking."""
    parts, size = [], 0
    async for sent in request.stream():
        for part in decoder.feed(sent):
            size += len(part)
            if size > most_bytes:
                raise TooLarge(most_bytes)
            parts.append(part)
    decoder.end()
    return b"".join(parts)


async def within(ongoing: OngoingRequest, work: Awaitable[T]) -> T:
    """The result of `work`. Raises DeadlineExceeded, ServerStopping; the work is cancelled then."""
    limit = asyncio.timeout(ongoing.left_s)
    try:
        async with limit:
            return await work
    except TimeoutError:
        if limit.expired():
            raise ongoing.late() from None
        raise


async def timed(ongoing: OngoingRequest, events: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    """The same events. Raises DeadlineExceeded, ServerStopping where the next one comes too late."""
    with closing(NextEvents(ongoing)) as limit:
        while True:
            with limit:
                try:
                    item = await anext(events)
                except StopAsyncIteration:
                    return
            yield item


class NextEvents:
    """Limits the waits for the events of a stream, each by the time that is left. One timer serves the whole stream:
    `asyncio.timeout` makes one for each event, a tenth of the time that an event takes.

    While an event is waited for, the task is cancelled when the time is over; else the next wait raises at once.
    """

    def __init__(self, ongoing: OngoingRequest) -> None:
        self.ongoing, self.loop = ongoing, asyncio.get_running_loop()
        self.waiting: asyncio.Task[Any] | None = None
        self.cancelling = 0
        self.cancelled = self.over = False
        self.timer = self.loop.call_later(min(LOOK_S, ongoing.left_s), self.look)

    def look(self) -> None:
        left_s = self.ongoing.left_s
        if left_s > 0:  # it may have changed since: a server that stops gives less
            self.timer = self.loop.call_later(min(LOOK_S, left_s), self.look)
            return
        self.over = True
        if self.waiting:
            self.cancelled = True
            self.waiting.cancel()

    def __enter__(self) -> None:
        """Raises DeadlineExceeded, ServerStopping."""
        if self.over:
            raise self.ongoing.late()
        self.waiting = asyncio.current_task()
        self.cancelling = self.waiting.cancelling() if self.waiting else 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Raises DeadlineExceeded, ServerStopping where it was this limit that cancelled the wait."""
        waited, self.waiting = self.waiting, None
        if self.cancelled and waited:
            self.cancelled = False
            if waited.uncancel() <= self.cancelling and kind is asyncio.CancelledError:
                raise self.ongoing.late() from None

    def close(self) -> None:
        self.timer.cancel()


class Unread:
    """Lets a limit expire once a client has taken nothing of what is sent for `most_s`. One timer serves the whole stream."""

    def __init__(self, limit: asyncio.Timeout, most_s: float) -> None:
        self.limit, self.most_s, self.loop = limit, most_s, asyncio.get_running_loop()
        self.since_s = inf
        """when the piece was sent that the client is to take, by the loop's clock"""
        self.timer = self.loop.call_later(most_s, self.look)

    def look(self) -> None:
        now_s = self.loop.time()
        if now_s - self.since_s >= self.most_s:
            self.limit.reschedule(now_s)
        else:
            self.timer = self.loop.call_at(min(self.since_s, now_s) + self.most_s, self.look)

    def close(self) -> None:
        self.timer.cancel()


class LimitedStream(StreamingResponse):
    """A stream that is given up where its client does not read it: after the deadline, or once it has read nothing for so long
    as a tier may be silent.

    stop: ends the source of the events, also where they never began, which closing them would not do.
    """

    def __init__(
        self, ongoing: OngoingRequest, events: AsyncGenerator[bytes], headers: dict[str, str], stop: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self.ongoing, self.events, self.stop = ongoing, events, stop

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        limit = asyncio.timeout(self.ongoing.left_s + GRACE_S)
        unread = Unread(limit, self.ongoing.server.stream_idle_s)

        async def noted(message: Any) -> None:
            unread.since_s = unread.loop.time()
            await send(message)
            unread.since_s = inf

        try:
            async with limit:
                with closing(unread):
                    await super().__call__(scope, receive, noted)
        except TimeoutError:
            if not limit.expired():
                raise
            # The server closes a connection whose answer was left unfinished.
        finally:
            await self.events.aclose()  # else a client that left between two events would leave the tier generating
            await self.stop()
            self.ongoing.left()
