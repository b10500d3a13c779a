"""The small HTTP client against an upstream that writes whatever a test tells, over real connections."""

import asyncio
import contextlib

import aiohttp
import pytest
from raw_upstream import END, HEAD, chunked, close, reset, upstream
from yarl import URL

from deployments.relay import http_client
from deployments.relay.http_answer import MOST_WAITING, Answer
from deployments.relay.http_client import Client, lines

PLAIN = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n12345"


def talked(script, talk, silence_s=5.0):
    """What `talk` returns, called with a function that asks the upstream, its client, and the upstream."""

    async def run(raw):
        base = URL(raw.url)
        client = Client(base, {"authorization": "Bearer key"})

        async def ask():
            return await client.post(base / "chat", b"{}", {"traceparent": "00-1"}, silence_s)

        try:
            return await asyncio.wait_for(talk(ask, client, raw), 30)
        finally:
            client.close()

    with upstream() as raw:
        raw.script = script
        return asyncio.run(run(raw))


async def body_of(answer) -> bytes:
    async with answer:
        return b"".join([part async for part in answer.content.iter_any()])


def asked(script, **how) -> tuple[int, bytes, bool]:
    """Status and body, and whether the connection may serve again."""

    async def talk(ask, client, raw):
        answer = await ask()
        return answer.status, await body_of(answer), bool(client.free)

    return talked(script, talk, **how)


def test_a_request_has_the_headers_of_its_client_and_its_own():
    async def talk(ask, client, raw):
        await body_of(await ask())
        head, _, body = raw.asked[0].partition(b"\r\n\r\n")
        return client.port, head.decode().lower().split("\r\n"), body

    port, head, body = talked([PLAIN], talk)
    assert head[0] == "post /v1/chat http/1.1" and body == b"{}"
    wanted = {f"host: 127.0.0.1:{port}", "authorization: bearer key", "traceparent: 00-1", "content-length: 2"}
    assert wanted <= {*head} and "accept-encoding: identity" in head


@pytest.mark.parametrize(
    "script, body",
    [
        ([PLAIN], b"12345"),
        ([PLAIN[:-3], 0.02, PLAIN[-3:]], b"12345"),
        ([HEAD, chunked(b"one"), chunked(b"two"), END], b"onetwo"),
        ([HEAD, b"3;name=value\r\none\r\n", b"0\r\nx-trailer: 1\r\n\r\n"], b"one"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + PLAIN], b"12345"),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"], b""),
    ],
)
def test_a_whole_answer_leaves_its_connection_for_the_next(script, body):
    assert asked(script) == (200, body, True)


@pytest.mark.parametrize(
    "script",
    [
        [b"HTTP/1.1 200 OK\r\n\r\n12", 0.02, b"345", close],  # without a length: until the connection ends
        [b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\n12345"],
        [b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\n12345"],
        [PLAIN + b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nwrong one"],  # a second answer, of nobody's request
        [PLAIN + b"garbage"],
    ],
)
def test_a_connection_that_may_not_serve_again_is_closed(script):
    assert asked(script) == (200, b"12345", False)


def test_connections_are_used_again_and_only_one_at_a_time():
    async def talk(ask, client, raw):
        for _ in range(3):
            await body_of(await ask())
        one = raw.connections
        answers = await asyncio.gather(*(ask() for _ in range(4)))
        bodies = [await body_of(answer) for answer in answers]
        return one, raw.connections, bodies, len(client.free)

    assert talked([PLAIN], talk) == (1, 4, [b"12345"] * 4, 4)


def test_idle_connections_are_closed_in_time(monkeypatch):
    monkeypatch.setattr(http_client, "IDLE_S", 0.02)

    async def talk(ask, client, raw):
        await body_of(await ask())
        for _ in range(100):
            if not client.open:
                break
            await asyncio.sleep(0.02)
        gone = not client.open and not client.free
        return gone, await body_of(await ask()), raw.connections

    assert talked([PLAIN], talk) == (True, b"12345", 2)


def test_what_comes_between_two_requests_ends_the_connection():
    async def talk(ask, client, raw):
        await body_of(await ask())
        for _ in range(100):
            if not client.open:
                return True
            await asyncio.sleep(0.02)
        return False

    assert talked([PLAIN, 0.05, PLAIN], talk)


def test_an_answer_that_is_left_in_the_middle_ends_its_connection():
    async def talk(ask, client, raw):
        async with await ask() as answer:
            part = await answer.content.readany()
        left = await asyncio.to_thread(raw.left.wait, 10)
        return part, left, client.free

    endless = [item for _ in range(500) for item in (chunked(b"more"), 0.02)]
    assert talked([HEAD, chunked(b"one"), 0.1, *endless], talk) == (b"one", True, [])


@pytest.mark.parametrize(
    "script, error",
    [
        ([close], aiohttp.ServerDisconnectedError),
        ([b"HTTP/1.1 200 OK\r\ncontent-", close], aiohttp.ServerDisconnectedError),
        ([reset], aiohttp.ClientError),
        ([b"SSH-2.0-OpenSSH_9.6\r\n"], aiohttp.ClientPayloadError),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n"], aiohttp.ClientPayloadError),
        ([b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"], aiohttp.ClientPayloadError),
        ([b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 400_000 + b"\r\n\r\n"], aiohttp.ClientPayloadError),
        ([b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 60_000, 0.02, PLAIN], aiohttp.ClientPayloadError),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000, 0.02, PLAIN], aiohttp.ClientPayloadError),
        ([HEAD, chunked(b"one"), close], aiohttp.ClientPayloadError),
        ([HEAD, chunked(b"one"), reset], aiohttp.ClientError),
        ([HEAD, chunked(b"one"), b"zz\r\nmore"], aiohttp.ClientPayloadError),
        ([HEAD, b"5\r\n12345678"], aiohttp.ClientPayloadError),
        ([HEAD, chunked(b"one"), b"0\r\n" + b"x: y\r\n" * 150_000, 0.02, b"\r\n"], aiohttp.ClientPayloadError),
        ([PLAIN[:-1], close], aiohttp.ClientPayloadError),
        ([PLAIN[:-1], 5.0], aiohttp.SocketTimeoutError),
        ([5.0], aiohttp.SocketTimeoutError),
    ],
)
def test_what_is_broken_cut_endless_or_silent_is_an_error_of_aiohttps_kinds(script, error):
    async def talk(ask, client, raw):
        with pytest.raises(error):
            await body_of(await ask())
        return client.free

    assert talked(script, talk, silence_s=0.15) == []


class Clock:
    """A loop whose time a test sets."""

    def __init__(self, loop) -> None:
        self.loop, self.now, self.waits = loop, 0.0, []
        self.create_future = loop.create_future

    def time(self) -> float:
        return self.now

    def call_later(self, after_s, call):
        self.waits.append(after_s)
        return self.loop.call_later(100, call)


def test_a_trickle_is_no_silence():
    async def run():
        answer = Answer(lambda: None, lambda: None, lambda whole: None, 10.0)
        answer.loop = clock = Clock(answer.loop)
        reading = asyncio.create_task(answer.head())
        for clock.now in (0.0, 9.0, 18.0):
            await asyncio.sleep(0)
            answer.wake()
        clock.now = 19.0
        answer.look()
        assert answer.error is None and clock.waits == [10.0, 9.0]  # it was heard at 18
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        clock.now = 29.0
        answer.look()
        with pytest.raises(aiohttp.SocketTimeoutError):
            await reading
        answer.close()

    asyncio.run(run())


def test_a_large_body_in_one_read_is_no_large_head():
    body = b"x" * 3_000_000
    assert asked([b"HTTP/1.1 200 OK\r\ncontent-length: 3000000\r\n\r\n" + body])[1] == body


@pytest.mark.slow
def test_the_upstream_waits_while_nobody_reads():
    block = chunked(b"x" * 20_000)

    async def talk(ask, client, raw):
        sent = []
        raw.script[1:1] = [item for _ in range(1_000) for item in (block, lambda: sent.append(1))]
        answer = await ask()
        first, before = 0, -1
        while first != before:
            await asyncio.sleep(0.3)
            first, before = len(sent), first
        held = answer.waiting
        return first, held, len(await body_of(answer)), bool(client.free)

    sent, held, size, again = talked([HEAD, END], talk)
    assert 0 < sent < 900 and MOST_WAITING < held < MOST_WAITING + 400_000  # the rest waits in the sockets' buffers
    assert size == 20_000_000 and again


def test_nobody_listens():
    async def run():
        client = Client(URL("http://127.0.0.1:9/v1"), {})
        with pytest.raises(OSError):
            await client.post(client.base / "chat", b"", {}, 1.0)
        assert not client.open

    asyncio.run(run())


def test_one_that_does_not_accept_is_given_up(monkeypatch):
    monkeypatch.setattr(http_client, "CONNECT_S", 0.05)

    async def never(*_, **__):
        await asyncio.Event().wait()

    async def run():
        client = Client(URL("http://127.0.0.1:9/v1"), {})
        monkeypatch.setattr(client.loop, "create_connection", never)
        with pytest.raises(aiohttp.ConnectionTimeoutError):
            await client.post(client.base / "chat", b"", {}, 1.0)

    asyncio.run(run())


def test_a_sink_takes_only_what_a_reader_waits_for():
    """The first part is read, the next go to the sink until it takes none, and nothing changes its place."""

    async def talk(ask, client, raw):
        taken, read = [], []
        async with await ask() as answer:
            read.append(await answer.content.readany())
            answer.sink = lambda part: part != b"three" and not taken.append(part)
            async for part in answer.content.iter_any():
                read.append(part)
                answer.sink = None
        return taken, read

    steps = [item for word in (b"one", b"two", b"2b", b"three", b"four") for item in (chunked(word), 0.1)]
    taken, read = talked([HEAD, *steps, END], talk)
    assert b"".join(read[:1] + taken + read[1:]) == b"onetwo2bthreefour"
    assert b"three" not in taken and taken


def test_headers_cannot_end_their_line():
    assert lines({"a": "1", "b": "2"}.items()) == b"a: 1\r\nb: 2\r\n"
    for bad in ("1\r\nx: 2", "1\n", "\0"):
        with pytest.raises(ValueError), contextlib.suppress(TypeError):
            lines([("a", bad)])
