"""Writing past uvicorn: only with the one that this was written for, and only while that changes nothing."""

import asyncio

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from deployments.relay import client_socket
from deployments.relay.client_socket import SOCKET, SWITCH, WRITTEN_FOR, known_kind, remember, unlike


@pytest.fixture(autouse=True)
def anew():
    known_kind.cache_clear()
    yield
    known_kind.cache_clear()


def test_the_installed_uvicorn_is_as_it_is_needed():
    assert unlike(RequestResponseCycle) == ""
    assert known_kind() is RequestResponseCycle and uvicorn.__version__.startswith(WRITTEN_FOR)


def test_another_version_is_left_alone_with_one_line_in_the_log(monkeypatch, caplog):
    monkeypatch.setattr(uvicorn, "__version__", "1.0.0")
    assert known_kind() is known_kind() is None
    assert len(caplog.records) == 1 and "uvicorn 1.0.0" in caplog.text


def test_it_can_be_switched_off(monkeypatch, caplog):
    monkeypatch.setenv(SWITCH, "off")
    assert known_kind() is None and not caplog.records


class Differs(RequestResponseCycle):
    pass


class Writes(Differs):
    """Chunks of other forms."""

    async def send(self, message):
        if message["type"] == "http.response.body":
            self.transport.write(b"9;x=y\r\n" + message["body"] + b"\r\n")
        else:
            await super().send(message)


class Waits(Differs):
    async def send(self, message):
        await asyncio.sleep(0)
        await super().send(message)


class Renamed(Differs):
    def __init__(self, **given):
        super().__init__(**given)
        del self.response_started


class Asks(Differs):
    def __init__(self, *, more, **given):
        super().__init__(**given)


@pytest.mark.parametrize("kind", [Writes, Waits, Renamed, Asks])
def test_a_cycle_that_differs_is_found_out(kind):
    assert unlike(kind)


class Transport:
    def __init__(self) -> None:
        self.sent, self.write_paused = b"", False

    def write(self, data: bytes) -> None:
        self.sent += data


def cycle(method="POST"):
    wire = Transport()
    fixed = {"logger": None, "access_logger": None, "access_log": False, "default_headers": [], "message_event": asyncio.Event()}
    more = {"expect_100_continue": False, "keep_alive": True, "on_response": lambda: None}
    return RequestResponseCycle(scope={"method": method, "type": "http"}, transport=wire, flow=wire, **fixed, **more), wire


async def remembered(made):
    SOCKET.set(None)
    remember(made.send)
    return SOCKET.get()


START = {"type": "http.response.start", "status": 200, "headers": []}


def test_events_are_written_between_the_head_and_the_end_only():
    async def run():
        made, wire = cycle()
        client = await remembered(made)
        assert not client.ready
        await made.send(START)
        before = wire.sent
        assert client.ready and client.write(b"data: 1\n\n")
        assert wire.sent == before + b"9\r\ndata: 1\n\n\r\n"
        await made.send({"type": "http.response.body", "body": b""})
        assert not client.ready and not client.write(b"data: 2\n\n")
        assert wire.sent.endswith(b"1\n\n\r\n0\r\n\r\n")

    asyncio.run(run())


@pytest.mark.parametrize("what", ["a length", "HEAD", "another loop", "left", "slow"])
def test_where_it_would_be_wrong_nothing_is_written(what):
    async def begun():
        made, wire = cycle("HEAD" if what == "HEAD" else "POST")
        client = await remembered(made)
        await made.send({**START, "headers": [(b"content-length", b"9")]} if what == "a length" else START)
        made.disconnected, wire.write_paused = what == "left", what == "slow"
        if what in ("left", "slow"):
            assert not client.write(b"data: 1\n\n")
        elif what != "another loop":
            assert not client.ready
        return client

    async def ready(client):
        return client.ready

    client = asyncio.run(begun())
    if what == "another loop":
        assert not asyncio.run(ready(client))


def test_what_another_server_sends_is_not_remembered():
    class Server:
        async def send(self, message):
            pass

    async def run():
        assert await remembered(Server()) is None
        SOCKET.set("before")
        remember(lambda message: None)
        assert SOCKET.get() == "before"

    asyncio.run(run())
    assert client_socket.known_kind() is RequestResponseCycle
