"""A server that is stopped. By itself in a file: beside a Ray that runs, `stepdown serve` would join it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest
import yaml

from benchmarks.chaos_faults import below
from deployments.background import free_port, wait_until_ready
from deployments.leftovers import end, groups_below, left, processes

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
TIERS = [
    {"name": "small", "engine": "echo", "context": 10_000, "delay_s": 0.05, "price": PRICE},
    {"name": "large", "engine": "echo", "context": 10_000, "price": PRICE},
]


@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_stopped_lets_streams_end_and_leaves_no_process(tmp_path, number):
    file, port = tmp_path / "echo.yaml", free_port()
    file.write_text(yaml.safe_dump({"tiers": TIERS, "server": {"replicas": 2}}))
    env = {**os.environ, "STEPDOWN_API_KEY": "right", "STEPDOWN_PORT": str(port), "STEPDOWN_STATE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "router", "serve", str(file), "--dashboard-port", str(free_port())]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    got: list[str] = []

    def stream() -> None:
        body = {"model": "small", "stream": True, "messages": [{"role": "user", "content": "word " * 100}]}
        headers = {"authorization": "Bearer right"}
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        with httpx.stream("POST", url, headers=headers, json=body, timeout=60) as answer:
            got.extend(line for line in answer.iter_lines() if line)

    try:
        wait_until_ready(process, 240)
        groups = groups_below(process.pid)
        reader = threading.Thread(target=stream)
        reader.start()
        time.sleep(1.5)
        process.send_signal(number)
        said = process.communicate(timeout=120)[0]
        reader.join(60)
        assert process.returncode == 0, said
        assert got[-1] == "data: [DONE]" and json.loads(got[-2][6:])["usage"]["completion_tokens"] == 101
        assert "Traceback" not in said and not left(groups)
    finally:
        if process.poll() is None:
            process.kill()


@pytest.mark.ladder
def test_no_engine_outlives_its_replica_or_the_server(tmp_path):
    """On vLLM: a replica is killed, then the server is stopped while it is asked."""
    port = free_port()
    env = {**os.environ, "STEPDOWN_API_KEY": "right", "STEPDOWN_PORT": str(port), "STEPDOWN_STATE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "router", "serve", "pocket", "--dashboard-port", str(free_port())]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
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
        until = time.monotonic() + 60
        while left({victim}):
            assert time.monotonic() < until, "its engine goes on"
            time.sleep(0.5)
        for asker in askers:
            asker.start()
        time.sleep(3)
        groups = groups_below(process.pid)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=180)[0]
        assert process.returncode == 0 and "Traceback" not in said, said
        assert not left(groups | engines)
    finally:
        stop.set()
        if process.poll() is None:
            process.kill()


@pytest.mark.slow
def test_a_child_that_outlives_its_replica_is_ended():
    """As vLLM's worker does: its parent, the leader of its group, is killed."""
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    leader = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert leader.stdout is not None
    assert int(leader.stdout.readline())
    groups = groups_below(os.getpid()) & {leader.pid}
    leader.kill()
    leader.wait()
    assert left(groups) == {leader.pid}
    assert end(groups, wait_s=0.3) == set() and not left(groups)  # asking it was enough
