"""A small HTTP/1.1 client for one upstream without TLS and without a proxy between.

Behind aiohttp a task wakes for every piece of a stream; here `Answer.sink` may take it where it comes in. httptools reads the
answers, which uvicorn brings.
"""

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, cast

import aiohttp
import httptools
from multidict import CIMultiDict
from yarl import URL

from deployments.relay.http_answer import Answer

CONNECT_S = 5.0
IDLE_S = 4.0  # servers close idle connections after 5 s and more; we must not use one that is just being closed
MOST_HEAD = 131_072  # bytes of a head


class Connection(asyncio.Protocol):
    """It carries one request at a time. client: takes it back when it may carry another."""

    transport: asyncio.Transport

    def __init__(self, client: "Client") -> None:
        self.client = client
        self.answer: Answer | None = None
        self.parser: Any = None
        self.headers: list[tuple[str, str]] = []
        self.size = 0
        """bytes of a head so far, or of what else came without a byte of the body"""
        self.pieces: list[bytes] = []
        """of the body, of one read"""
        self.complete = self.until_closed = self.again = False
        """again: it may carry another request, since the answer says so and no more came than that"""
        self.idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self.client.open.add(self)

    def send(self, request: list[bytes], silence_s: float) -> Answer:
        """Its answer, of which nothing has come yet."""
        self.parser = httptools.HttpResponseParser(self)
        self.complete = self.until_closed = self.again = False
        self.size, self.headers = 0, []
        self.answer = Answer(self.pause, self.resume, self.end, silence_s)
        if self.transport.is_closing():  # since it was handed out: no `connection_lost` may come any more
            self.answer.fail(aiohttp.ServerDisconnectedError())
        else:
            self.transport.writelines(request)
        return self.answer

    def pause(self) -> None:
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        answer = self.answer
        if answer is None or self.complete:  # nobody asked for it
            self.again = False
            self.transport.abort()
            return
        wrong = ""
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, ValueError) as error:
            wrong = f"it is no HTTP: {error}"
        self.size = 0 if self.pieces else self.size + len(data)
        if self.size > MOST_HEAD:
            wrong = f"more than {MOST_HEAD} bytes came without one of the body"
        if self.pieces:
            piece = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
            self.pieces = []
            answer.feed(piece)
        if self.complete:
            self.again = self.again and not wrong
            answer.done()
        elif wrong:
            answer.fail(aiohttp.ClientPayloadError(wrong))
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.client.forget(self)
        if (answer := self.answer) is None or self.complete:
            return
        if answer.status and self.until_closed and error is None:
            self.complete = True
            answer.done()
        elif answer.status:
            answer.fail(aiohttp.ClientPayloadError("Response payload is not completed"))
        else:
            answer.fail(aiohttp.ServerDisconnectedError() if error is None else aiohttp.ClientOSError(*error.args))

    # -- what httptools finds ------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.again = False  # another answer than the first, if that is complete

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.answer is not None and not self.answer.status:  # else it stands after the body
            self.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        status, headers = self.parser.get_status_code(), CIMultiDict(self.headers)
        self.headers = []
        if self.answer is None or self.complete or status < 200:  # 100 Continue, 103 Early Hints: the head is still to come
            return
        chunked = headers.get("transfer-encoding", "").lower().endswith("chunked")
        self.until_closed = not chunked and "content-length" not in headers
        self.answer.begin(status, headers)

    def on_body(self, piece: bytes) -> None:
        if not self.complete:
            self.pieces.append(piece)

    def on_message_complete(self) -> None:
        if not self.complete and self.answer and self.answer.status:
            self.complete, self.again = True, self.parser.should_keep_alive()  # which httptools forgets after this

    # -- one request after the other -----------------------------------------------------------------------------------

    def end(self, whole: bool) -> None:
        """The answer is not read any further. whole: it was read to its end."""
        self.answer = None
        if whole and self.again and not self.transport.is_closing():
            self.client.take_back(self)
        else:
            self.transport.abort()


class Client:
    """base: the address that all paths begin with. headers: of every request."""

    def __init__(self, base: URL, headers: Mapping[str, str]) -> None:
        self.base, self.loop = base, asyncio.get_running_loop()
        self.free: list[Connection] = []
        self.open: set[Connection] = set()
        self.host, self.port = base.raw_host or "", base.port or 80
        fixed = {"host": base.host_port_subcomponent or "", "accept": "*/*", "accept-encoding": "identity"}
        self.fixed = lines({**fixed, "user-agent": aiohttp.http.SERVER_SOFTWARE, **headers}.items())
        self.closed = False

    async def post(self, url: URL, raw: bytes, headers: Mapping[str, str], silence_s: float) -> Answer:
        """An answer whose head has come, to be read or closed. Raises aiohttp.ClientError, TimeoutError, OSError."""
        connection = await self.connection()
        head = b"POST %b HTTP/1.1\r\n%b%bcontent-length: %d\r\n\r\n"
        whole = head % (url.raw_path_qs.encode(), self.fixed, lines(headers.items()), len(raw))
        answer = connection.send([whole, raw], silence_s)
        try:
            await answer.head()
        except BaseException:
            answer.close()
            raise
        return answer

    async def connection(self) -> Connection:
        """One that is idle, or a new one."""
        while self.free:
            found = self.free.pop()
            if found.idle is not None:
                found.idle.cancel()
            if not found.transport.is_closing():
                return found
        connecting = self.loop.create_connection(partial(Connection, self), self.host, self.port)
        try:
            async with asyncio.timeout(CONNECT_S):
                _, made = await connecting
        except TimeoutError:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {self.base}") from None
        return made

    def take_back(self, connection: Connection) -> None:
        if self.closed:
            connection.transport.abort()
            return
        connection.idle = self.loop.call_later(IDLE_S, connection.transport.abort)
        self.free.append(connection)

    def forget(self, connection: Connection) -> None:
        """It is closed."""
        self.open.discard(connection)
        if connection.idle is not None:
            connection.idle.cancel()
        if connection in self.free:
            self.free.remove(connection)

    def close(self) -> None:
        """Close all connections, those with an answer under way too."""
        self.closed = True
        for connection in list(self.open):
            connection.transport.abort()


def lines(headers: Iterable[tuple[str, str]]) -> bytes:
    """Headers as they are sent. Raises ValueError for one that would end its line."""
    found = []
    for name, value in headers:
        if any(sign in name + value for sign in "\r\n\0"):
            raise ValueError(f"the header {name!r} holds the end of a line")
        found.append(f"{name}: {value}\r\n")
    return "".join(found).encode("latin-1")
