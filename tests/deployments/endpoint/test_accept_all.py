"""All connections that wait are accepted in a few turns of the loop, by a real uvicorn under uvloop."""

import asyncio
import socket
import time

import pytest
import uvicorn
import uvloop

from deployments.endpoint.doors import accept_all as module
from deployments.endpoint.doors.accept_all import MOST, Acceptor, accept_all

WAIT = 256
TURN_S = 0.01


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def started(backlog=512):
    listening = socket.create_server(("127.0.0.1", 0), backlog=backlog)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", loop="none", backlog=backlog))
    task = asyncio.create_task(server._serve([listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    return server, task, listening.getsockname()[1]


async def ended(server, task):
    server.should_exit = server.force_exit = True
    await task


def connected(port, n):
    """So many connections that wait to be accepted, each with its request sent."""
    found = []
    for _ in range(n):
        one = socket.create_connection(("127.0.0.1", port))
        one.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        found.append(one)
    return found


async def answered(connections, turns):
    """How many were answered after so many turns of the loop, each held up for a while by something else."""
    for _ in range(turns):
        await asyncio.sleep(0)
        time.sleep(TURN_S)
    for one in connections:
        one.setblocking(False)

    def reads(one):
        try:
            return b"200 OK" in one.recv(4096)
        except BlockingIOError:
            return False

    return sum(map(reads, connections))


async def tried(turns, helped):
    server, task, port = await started()
    acceptor = Acceptor(server) if helped else None
    connections = connected(port, WAIT)
    count = await answered(connections, turns)
    for one in connections:
        one.close()
    if acceptor:
        acceptor.close()
        acceptor.close()
    await ended(server, task)
    return count


@pytest.mark.slow
def test_all_that_wait_are_answered_within_a_few_turns():
    turns = 2 * WAIT // MOST + 4
    assert uvloop.run(tried(turns, True)) == WAIT
    assert uvloop.run(tried(turns, False)) < WAIT / 2  # else it would not be needed any more


def test_a_server_that_ends_takes_no_more():
    async def ends():
        server, task, port = await started()
        acceptor = Acceptor(server)
        server.should_exit = True
        acceptor.accept()
        assert acceptor.socket.fileno() < 0
        await ended(server, task)
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1)

    uvloop.run(ends())


@pytest.mark.parametrize("server", [object(), type("Odd", (), {"started": True, "config": type("C", (), {"ssl": None})})()])
def test_another_server_is_left_alone(monkeypatch, server, caplog):
    monkeypatch.setattr(module, "server_of_replica", lambda: server)
    monkeypatch.setattr(module, "LOOK_S", 0.01)

    async def looked():
        async with asyncio.timeout(0.1):
            await accept_all()

    if hasattr(server, "started"):
        with caplog.at_level("INFO", "stepdown"):
            asyncio.run(looked())
        assert "not as expected" in caplog.text
    else:
        with pytest.raises(TimeoutError):
            asyncio.run(looked())


def test_it_begins_and_ends_with_the_server(monkeypatch):
    async def beside():
        server, task, port = await started()
        monkeypatch.setattr(module, "server_of_replica", lambda: server)
        monkeypatch.setattr(module, "LOOK_S", 0.01)
        accepting = asyncio.create_task(accept_all())
        await asyncio.sleep(0.05)
        assert not accepting.done()
        await ended(server, task)
        await asyncio.wait_for(accepting, 1)

    uvloop.run(beside())
