"""A server that is stopped. By itself in a file: beside a Ray that runs, `stepdown serve` would join it."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import yaml
from waiting import until

from benchmarks.chaos_faults import below
from deployments.serve.background import free_port, wait_until_ready
from deployments.serve.process_cleanup import MARK, ServerProcesses, processes

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
TIERS = [
    {"name": "small", "engine": "echo", "context": 10_000, "delay_s": 0.05, "price": PRICE},
    {"name": "large", "engine": "echo", "context": 10_000, "price": PRICE},
]


def alive(pids: set[int]) -> set[int]:
    return pids & {pid for pid, _, _ in processes()}


def started(tmp_path, port: int, config: str | dict, **more) -> subprocess.Popen[str]:
    """`stepdown serve`, of a shipped ladder or of these settings."""
    if isinstance(config, dict):
        file = tmp_path / "echo.yaml"
        file.write_text(yaml.safe_dump(config))
        config = str(file)
    env = {**os.environ, "STEPDOWN_API_KEY": "right", "STEPDOWN_PORT": str(port), "STEPDOWN_STATE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "deployments", "serve", config, "--dashboard-port", str(free_port())]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)


def deaf(pid: int, number: int = signal.SIGTERM) -> bool:
    """Whether it ignores that signal, by now."""
    mask = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigIgn:"))
    return bool(int(mask.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.ray
@pytest.mark.parametrize("how", ["killed", "asked with all its group"])
def test_a_server_that_cannot_clear_up_leaves_no_process(tmp_path, how):
    """`kill -9`; and SIGTERM to Ray's processes too, as `timeout` and systemd send it."""
    port = free_port()
    process = started(tmp_path, port, {"tiers": TIERS}, start_new_session=True)
    try:
        wait_until_ready(process, 240)
        family = {process.pid, *below(process.pid, "")}
        assert len(family) > 6
        process.kill() if how == "killed" else os.killpg(process.pid, signal.SIGTERM)
        until(lambda: not alive(family))
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
    finally:
        process.kill()


@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_stopped_lets_streams_end_and_leaves_no_process(tmp_path, number):
    port = free_port()
    process = started(tmp_path, port, {"tiers": TIERS, "server": {"replicas": 2}})
    got: list[str] = []

    def stream() -> None:
        chat = {"model": "small", "messages": [{"role": "user", "content": "word " * 100}]}
        body = {**chat, "stream": True, "stream_options": {"include_usage": True}}
        headers = {"authorization": "Bearer right"}
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        with httpx.stream("POST", url, headers=headers, json=body, timeout=60) as answer:
            got.extend(line for line in answer.iter_lines() if line)

    try:
        wait_until_ready(process, 240)
        family = set(below(process.pid, ""))
        reader = threading.Thread(target=stream)
        reader.start()
        time.sleep(1.5)
        process.send_signal(number)
        said = process.communicate(timeout=120)[0]
        reader.join(60)
        assert process.returncode == 0, said
        assert got[-1] == "data: [DONE]" and json.loads(got[-2][6:])["usage"]["completion_tokens"] == 101
        assert "Traceback" not in said and not alive(family)
    finally:
        if process.poll() is None:
            process.kill()


HANDSHAKE = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13", "sec-websocket-key": "x" * 22 + "=="}


@pytest.mark.ray
@pytest.mark.parametrize("front", ["fast", "plain"])
def test_a_load_balancer_sees_the_stop_while_requests_are_still_answered(tmp_path, front):
    port = free_port()
    process = started(tmp_path, port, {"tiers": TIERS, "server": {"replicas": 2, "drain_delay_s": 4, "front": front}})
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"authorization": "Bearer right"}, timeout=30)
    chat = {"model": "large", "messages": [{"role": "user", "content": "word"}]}
    try:
        wait_until_ready(process, 240)
        for path in ("/readyz", "/ping", "/livez", "/startupz", "/-/healthz"):
            assert client.get(path).status_code == 200
        assert client.get("/v1/responses", headers=HANDSHAKE).status_code == 426
        for _ in range(10):
            assert client.get("/readyz").status_code == 200  # of both replicas
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        until(lambda: client.get("/readyz").status_code == 503, patience_s=2, every_s=0.05)
        while time.monotonic() < began + 3:
            assert client.get("/readyz").status_code == 503 and client.get("/livez").status_code == 200
            assert client.get("/-/healthz").status_code == (503 if front == "fast" else 200)
            assert client.post("/v1/chat/completions", json=chat).status_code == 200
        until(lambda: refused(client, chat), patience_s=10, every_s=0.1)
        said = process.communicate(timeout=120)[0]
        assert process.returncode == 0 and "new requests are taken for 4 s more" in said and "Traceback" not in said
    finally:
        if process.poll() is None:
            process.kill()


def refused(client: httpx.Client, chat: dict) -> bool:
    try:
        return client.post("/v1/chat/completions", json=chat).status_code in (404, 503)
    except httpx.HTTPError:
        return True


@pytest.mark.ladder
def test_no_engine_outlives_its_replica_or_the_server(tmp_path):
    """On vLLM: a replica is killed, then the server is stopped while it is asked."""
    port = free_port()
    process = started(tmp_path, port, "pocket")
    stop = threading.Event()

    def ask() -> None:
        body = {"model": "small", "max_tokens": 200, "messages": [{"role": "user", "content": "What is 23 plus 45?"}]}
        while not stop.is_set():
            with contextlib.suppress(httpx.HTTPError):
                url = f"http://127.0.0.1:{port}/v1/chat/completions"
                httpx.post(url, headers={"authorization": "Bearer right"}, json=body, timeout=60)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    try:
        wait_until_ready(process, 900)
        victim = below(process.pid, "ServeReplica:stepdown:tier-large")[-1]
        engines = {group for pid, _, group in processes() if pid in below(process.pid, "VLLM::")}
        assert victim in engines and len(engines) == 3
        assert not below(process.pid, "VLLM::Worker")  # on one thread an engine needs none
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in {group for _, _, group in processes()}, patience_s=60)  # its engine too
        for asker in askers:
            asker.start()
        time.sleep(3)
        family = set(below(process.pid, ""))
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=180)[0]
        assert process.returncode == 0 and "Traceback" not in said, said
        assert not alive(family) and not engines & {group for _, _, group in processes()}
    finally:
        stop.set()
        if process.poll() is None:
            process.kill()


@pytest.fixture
def run(tmp_path):
    """With two of its processes: one marked, one that hides its mark and writes into Ray's folder, as Ray's agents do."""
    ours = ServerProcesses(secrets.token_hex(8), str(tmp_path))
    command = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"]
    with (tmp_path / "agent.out").open("w") as out:
        agent = subprocess.Popen(["sleep", "60"], stdout=out)
    marked = subprocess.Popen(command, env={**os.environ, MARK: ours.mark})
    until(lambda: deaf(marked.pid), patience_s=20, every_s=0.02)
    yield ours, {marked.pid, agent.pid}
    for process in (marked, agent):
        process.kill()
        process.wait()


@pytest.mark.slow
def test_what_is_left_is_found_asked_and_killed(run):
    ours, pids = run
    other = subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: "another"})
    try:
        assert ours.alive() == pids
        assert ours.end(wait_s=0.3) == pids and not ours.alive()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.slow
def test_the_watchdog_ends_them_when_a_server_is_killed(run):
    ours, pids = run
    code = f"""if True:
        import time
        from deployments.serve.process_cleanup import ServerProcesses
        guard = ServerProcesses({ours.mark!r}, {ours.session!r}).watchdog()
        print(guard.pid, flush=True)
        time.sleep(60)"""
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    guard = int(server.stdout.readline())
    until(lambda: deaf(guard), patience_s=20, every_s=0.02)
    os.kill(guard, signal.SIGTERM)  # as when a whole group is stopped
    assert ours.alive() == pids
    server.kill()
    server.wait()
    until(lambda: not ours.alive() and not Path(f"/proc/{guard}").exists(), patience_s=20)
