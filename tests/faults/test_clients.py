"""What clients do to the endpoint: by dribbling, by size, by number, by not reading."""

import json
import resource
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest
from endpoint import CHAT, endpoint, ladder
from scripted_tier import Said

from deployments.ledger.ledger import Ledger
from router.config import Ledger as Settings

BODY = json.dumps(CHAT).encode()


@pytest.fixture
def ledger(tmp_path):
    return Ledger(Settings(url=f"sqlite:///{tmp_path / 'ledger.db'}"))


def head(length: int, path: str = "chat/completions", *more: str) -> bytes:
    lines = [f"POST /v1/{path} HTTP/1.1", "host: localhost", "content-type: application/json", f"content-length: {length}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


def all_of(connection: socket.socket) -> bytes:
    """Until the server closes it."""
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.slow
def test_a_body_that_dribbles_in_gets_408_and_its_connection_is_closed(ledger):
    with endpoint(ladder(server={"body_timeout_s": 0.5}), ledger) as it, it.connect() as slow:
        slow.sendall(head(len(BODY)))
        began = time.monotonic()
        for byte in BODY:
            with suppress(BrokenPipeError, ConnectionResetError):  # it may have been closed already
                slow.sendall(bytes([byte]))
            time.sleep(0.05)
            assert it.ask().status_code == 200  # others are not kept waiting
            if time.monotonic() - began > 0.6:
                break
        answer = all_of(slow)
        assert answer.startswith(b"HTTP/1.1 408") and b"request_timeout" in answer
        assert all(row["status"] == 200 for row in it.rows())


@pytest.mark.slow
def test_many_bodies_that_never_come_hold_nobody_up(ledger):
    with endpoint(ladder(server={"body_timeout_s": 5}), ledger) as it:
        dribbling = [it.connect() for _ in range(200)]
        for connection in dribbling:
            connection.sendall(head(1_000) + b"{")
        assert it.ask().status_code == 200
        for connection in dribbling:
            connection.close()


@pytest.mark.slow
def test_a_body_of_100_mb_gets_413_without_being_read(ledger):
    with endpoint(ladder(), ledger) as it, it.connect() as large:
        large.sendall(head(100_000_000))  # not a byte of it: the refusal comes all the same
        assert all_of(large).startswith(b"HTTP/1.1 413")


@pytest.mark.slow
def test_a_body_of_100_mb_that_does_not_say_so_is_read_up_to_the_limit_and_never_kept(ledger):
    with endpoint(ladder(), ledger) as it, it.connect() as large:
        before = held_bytes()
        large.sendall(head(0).replace(b"content-length: 0", b"transfer-encoding: chunked"))
        chunk = b"%x\r\n" % 1_000_000 + b"x" * 1_000_000 + b"\r\n"
        sent = 0
        try:
            while sent < 100_000_000:
                large.sendall(chunk)
                sent += 1_000_000
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert 32_000_000 <= sent < 64_000_000  # what lies in the sockets' buffers besides
        assert held_bytes() - before < 100_000_000
        assert it.ask().status_code == 200


def held_bytes() -> int:
    """Of this process's memory, what is resident."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def open_files(wanted: int) -> int:
    """Connections whose both ends this process may hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * wanted + 500)), hard))
    return min(wanted, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500) // 2)


@pytest.mark.slow
def test_two_thousand_connections_of_which_all_are_answered(ledger):
    with endpoint(ladder(), ledger) as it:
        n = open_files(2_000)
        connections = [it.connect() for _ in range(n)]
        request = head(len(BODY), "chat/completions", "connection: close") + BODY
        for connection in connections:
            connection.sendall(request)
        answers = [all_of(connection) for connection in connections]
        for connection in connections:
            connection.close()
        assert sum(a.startswith(b"HTTP/1.1 200") and b"four five six seven" in a for a in answers) == n
        assert len({row["id"] for row in it.rows()}) == n == len(it.rows())


@pytest.mark.slow
@pytest.mark.parametrize("limits", [{"request_timeout_s": 1.0}, {"stream_idle_s": 1.0}], ids=["deadline", "silence"])
def test_a_client_that_never_reads_is_left_and_keeps_no_tier_working(ledger, limits):
    endless = Said("x" * 200_000 + " " + " ".join(["y" * 50_000] * 400))
    with endpoint(ladder(server=limits), ledger, large=lambda body: endless) as it, pytest.MonkeyPatch.context() as patch:
        patch.setattr("deployments.endpoint.deadline.GRACE_S", 0.5)
        mute = socket.socket()
        mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        mute.connect(it.address)
        body = json.dumps({**CHAT, "stream": True}).encode()
        mute.sendall(head(len(body)) + body)
        end = time.monotonic() + 15
        while not it.rows():
            assert time.monotonic() < end
            time.sleep(0.05)
        assert it.tiers["large"].running == 0
        (trace,) = it.rows()
        assert trace["status"] in (499, 504) and trace["took_s"] < 10
        assert it.ask(model="small").status_code == 200
        mute.close()
