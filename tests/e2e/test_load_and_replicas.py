"""A real Ray with two ingresses: conversations stay on their replica and outlive it, a tier sleeps and wakes, and each
ingress hears of the other's load. The models are stubs, everything around them is real."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import types
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from waiting import until

from deployments import APP
from deployments.replicas.placement import choice_of, replicas_of
from deployments.serve.background import free_port
from deployments.traffic.queue_exchange import Counts
from router.config import Config
from router.types import Path

pytestmark = [pytest.mark.ray, pytest.mark.slow]
KEY = "sk-replicas"
OFTEN = {"RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1"}


class Stub:
    """Stands where vLLM stands: says which process it is, after as many seconds as it is asked for."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def awake(self) -> bool:
        return True

    async def openai(self, path: Path, raw: str, *_):
        asked = json.loads(raw)["messages"][-1]["content"]
        await asyncio.sleep(float(asked.split()[1]) if asked.startswith("wait") else 0)
        said = {"role": "assistant", "content": str(os.getpid())}
        answer = {"id": "x", "object": "chat.completion", "created": 0, "model": self.name}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        choice = {"index": 0, "message": said, "finish_reason": "stop"}
        yield 200, json.dumps({**answer, "choices": [choice], "usage": usage}), ""


def bind(tier, drain_s=30.0):
    """As deployments.replicas.vllm_tier.bind, with the stub for the model."""
    from ray import serve

    options = {"name": f"tier-{tier.name}", "max_ongoing_requests": tier.max_ongoing, "ray_actor_options": {"num_cpus": 0}}
    return serve.deployment(Stub, **options, **replicas_of(tier), **choice_of(tier)).bind(tier.name)


def tier(name, usd, **more):
    price = {"usd_per_accelerator_hour": usd}
    return {"name": name, "engine": "vllm", "source": "nowhere", "context": 1_000, "price": price, "cpus": 0.1, **more}


SLEEPS = {"idle_s": 3, "down_delay_s": 3, "look_back_s": 2, "up_delay_s": 0, "cold_start_wait_s": 0.3}
TIERS = [tier("small", 1, replicas=2, max_replicas=2), tier("large", 4, replicas=0, max_replicas=1, scaling=SLEEPS)]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    import ray
    from ray import cloudpickle, serve

    from deployments import app
    from deployments.keys.key_store import hashed

    patch = pytest.MonkeyPatch()
    patch.setenv("STEPDOWN_STATE_DIR", str(tmp_path_factory.mktemp("state")))
    patch.setitem(sys.modules, "deployments.replicas.vllm_tier", types.SimpleNamespace(bind=bind))
    for name, value in OFTEN.items():
        patch.setenv(name, value)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # replicas cannot import a test
    config = Config.model_validate({"tiers": TIERS, "server": {"port": free_port(), "replicas": 2}})
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", namespace="serve")
        serve.start(http_options={"host": "127.0.0.1", "port": config.server.port})
        serve.run(app.application(config, hashed(KEY)), name=APP, route_prefix="/")
        url = f"http://127.0.0.1:{config.server.port}/v1"
        with httpx.Client(base_url=url, headers={"authorization": f"Bearer {KEY}"}, timeout=60) as made:
            yield made
    finally:
        with contextlib.suppress(Exception):
            serve.shutdown()
        ray.shutdown()
        patch.undo()


def ask(client, content, model="small", **headers):
    body = {"model": model, "messages": [{"role": "user", "content": content}]}
    try:
        return client.post("/chat/completions", json=body, headers=headers)
    except httpx.RemoteProtocolError:  # the proxy closed the connection while it was idle: clients ask again
        return client.post("/chat/completions", json=body, headers=headers)


def process(client, content, **headers) -> int:
    answer = ask(client, content, **headers)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["choices"][0]["message"]["content"])


def asleep(tier) -> bool:
    from ray import serve

    return not sum(serve.status().applications["stepdown"].deployments[f"tier-{tier}"].replica_states.values())


def test_a_conversation_stays_and_different_ones_spread(client):
    assert len({process(client, "the same again") for _ in range(12)}) == 1
    assert len({process(client, f"turn {n}", **{"x-session-id": "mine"}) for n in range(12)}) == 1
    counts = Counter(process(client, f"conversation {n}") for n in range(40))
    assert len(counts) == 2 and min(counts.values()) >= 8


def test_a_crowd_for_one_conversation_uses_both_replicas(client):
    with ThreadPoolExecutor(40) as pool:
        found = Counter(pool.map(lambda n: process(client, "wait 1"), range(40)))
    assert len(found) == 2


def test_when_its_replica_is_killed_another_answers(client):
    home = process(client, "who are you?")
    os.kill(home, signal.SIGKILL)
    after = [process(client, "who are you?") for _ in range(10)]
    assert home not in after and len(set(after)) == 1
    until(lambda: len({process(client, f"{time.monotonic()} {n}") for n in range(10)}) == 2)  # conversations nobody knows


def test_each_ingress_hears_what_the_other_has_under_way(client):
    from ray import serve

    exchange = serve.get_deployment_handle("queue-exchange", "stepdown")
    under_way = lambda: exchange.report.remote("spy", {}).result(timeout_s=10).get("small", Counts())  # noqa: E731
    until(lambda: under_way().running + under_way().waiting == 0)  # news of the last request may be a second old
    with ThreadPoolExecutor(24) as pool:
        asked = [pool.submit(ask, client, f"wait 4 {n}") for n in range(24)]
        until(lambda: under_way().running + under_way().waiting == 24)
        assert {answer.result().status_code for answer in asked} == {200}
    until(lambda: under_way().running + under_way().waiting == 0 and under_way().finished >= 24)


def test_a_tier_sleeps_is_replaced_while_it_starts_and_wakes(client):
    """Without a router `auto` is the large tier."""
    first = ask(client, "hello", "auto")
    assert (first.status_code, first.headers["x-stepdown-tier"]) == (200, "small")
    assert first.headers["x-stepdown-degraded"] == "large cold"
    woken = until(lambda: (a := ask(client, "hello", "auto")).headers["x-stepdown-tier"] == "large" and a)
    assert "x-stepdown-degraded" not in woken.headers
    until(lambda: asleep("large"))  # nobody asks
    time.sleep(3)  # both ingresses have heard of it
    named = ask(client, "hello", "large")
    assert named.status_code == 503
    assert (named.json()["error"]["code"], named.headers["retry-after"]) == ("cold", "30")
    until(lambda: ask(client, "hello", "large").status_code == 200)
