"""A server that stops: not ready at once, answering for a while, then refusing, then cutting; it lives all the time."""

import asyncio
import json
import threading
import time

import httpx
import pytest
from live import ladder, listening
from scripted_tier import Said, ScriptedTier
from waiting import until

from deployments.endpoint.draining import Draining
from deployments.endpoint.ingress import Ingress
from router.engine import Router

CHAT = {"model": "large", "messages": [{"role": "user", "content": "one"}]}


def served(said, **server) -> Ingress:
    config = ladder(("large",), server=server)
    router = Router(config, None, {"large": lambda text: len(text.split())})
    return Ingress(router, {"large": ScriptedTier("large", lambda body: said)}, None, 1_000_000)


def at(now: list[float], delay_s=5.0, drain_s=30.0, **more) -> Draining:
    return Draining(delay_s, drain_s, ticks=lambda: now[0], **more)


def test_it_begins_once_and_refuses_after_its_delay():
    now = [100.0]
    draining = at(now)
    assert (draining.begun, draining.refuses, draining.left_s) == (False, False, float("inf"))
    draining.begin()
    assert (draining.begun, draining.refuses, draining.left_s) == (True, False, 34.0)
    now[0] += 4.9
    draining.begin(50.0)
    assert not draining.refuses
    now[0] += 0.2
    assert draining.refuses and draining.left_s == pytest.approx(28.9)
    now[0] += 100.0
    assert draining.left_s == 0.0


def test_without_a_delay_it_refuses_at_once():
    draining = at([100.0], delay_s=5.0)
    draining.begin(0.0)
    assert draining.refuses


def test_whoever_runs_the_process_may_be_the_first_to_stop_it():
    now, stops = [100.0], []
    draining = at(now, told=lambda: bool(stops))
    assert not draining.begun
    stops.append(True)
    assert draining.begun and not draining.refuses and draining.left_s == 29.0  # it gives them 30 s from now
    now[0] += 5.0
    assert draining.refuses


@pytest.mark.slow
def test_load_balancers_see_it_before_anybody_is_refused():
    ingress = served(Said("four five"), drain_delay_s=0.6)
    with listening(ingress.app()) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert client.get("/readyz").status_code == 200
        ingress.draining.begin()
        for path in ("/readyz", "/health", "/ping"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["missing"]) == (503, {"server": "it is stopping"})
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
        time.sleep(0.65)
        refused = client.post("/v1/chat/completions", json=CHAT)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_stopping")
        assert refused.headers["connection"] == "close" and refused.headers["retry-after"] == "1"
        assert client.get("/v1/models").status_code == 503
        assert client.get("/livez").status_code == client.get("/startupz").status_code == client.get("/").status_code == 200
        assert client.get("/readyz").status_code == 503


@pytest.mark.slow
def test_a_stream_that_began_before_comes_to_its_end():
    ingress, got = served(Said("four five six seven", token_s=0.15), drain_delay_s=0.1), []
    with listening(ingress.app()) as port:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"

        def read():
            with httpx.stream("POST", url, json={**CHAT, "stream": True}) as answer:
                got.extend(line for line in answer.iter_lines() if line)

        reader = threading.Thread(target=read)
        reader.start()
        until(lambda: len(got) > 1, 5, 0.01)
        ingress.draining.begin()
        time.sleep(0.2)
        assert httpx.post(url, json=CHAT).status_code == 503
        reader.join(10)
    assert got[-1] == "data: [DONE]" and "seven" in got[-3] + got[-2]


@pytest.mark.slow
def test_an_answer_that_takes_too_long_ends_with_the_reason():
    ingress, got = served(Said(" ".join(["word"] * 400), token_s=0.05), drain_delay_s=0, drain_s=0.6), []
    with listening(ingress.app()) as port:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        with httpx.stream("POST", url, json={**CHAT, "stream": True}) as answer:
            for line in answer.iter_lines():
                got += [line] if line else []
                ingress.draining.begin()
    error = json.loads(got[-2][6:])["error"]
    assert got[-1] == "data: [DONE]" and error["code"] == "server_stopping" and len(got) < 30


def test_a_probe_is_not_kept_waiting_by_a_controller_that_is_gone():
    ingress = served(Said("four"))

    async def never():
        await asyncio.Event().wait()

    ingress.health.readiness.tiers["large"].replicas = never
    ingress.draining.begin()
    missing, _ = asyncio.run(asyncio.wait_for(ingress.health.readiness.shown(), 0.5))
    assert missing == {"server": "it is stopping"}
