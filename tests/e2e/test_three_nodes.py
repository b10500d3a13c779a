"""A real Ray cluster of three raylets on this machine: tiers land on the nodes that carry their mark; a node's death degrades
its tier alone, and a node that joins with the mark brings it back. The models are stubs, everything around them is real."""

import contextlib
import json
import sys
import types

import httpx
import pytest
from waiting import until

from deployments import APP
from deployments.replicas.placement import bundles
from deployments.serve.background import free_port
from router.config import Config
from router.types import Path

pytestmark = [pytest.mark.ray, pytest.mark.slow]
KEY = "sk-three-nodes"
PRICE = {"usd_per_accelerator_hour": 1}


class Stub:
    """Stands where vLLM stands: says on which node it runs."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def openai(self, path: Path, raw: str, *_):
        import ray

        said = {"role": "assistant", "content": ray.get_runtime_context().get_node_id()}
        answer = {"id": "x", "object": "chat.completion", "created": 0, "model": self.name}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        choice = {"index": 0, "message": said, "finish_reason": "stop"}
        yield 200, json.dumps({**answer, "choices": [choice], "usage": usage}), ""


def bind(tier, drain_s=30.0):
    """As deployments.replicas.vllm_tier.bind, with the stub for the model."""
    from ray import serve

    options = {
        "name": f"tier-{tier.name}",
        "num_replicas": tier.replicas,
        "placement_group_bundles": bundles(tier),
        "placement_group_strategy": "PACK",
        "ray_actor_options": {"num_cpus": tier.cpus},
    }
    return serve.deployment(Stub, **options).bind(tier.name)


def tier(name, **more):
    given = {"name": name, "engine": "vllm", "source": "nowhere", "context": 1_000, "price": PRICE, "cpus": 0.1}
    return {**given, "resources": {f"tier-{name}": 0.01}, **more}


@contextlib.contextmanager
def cluster():
    """A head without room for tiers, and a node for each of the two."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        nodes = {name: made.add_node(num_cpus=1, resources={f"tier-{name}": 1}) for name in ("small", "large")}
        ray.init(address=made.address, namespace="serve", log_to_driver=False, logging_level="ERROR")
        yield made, nodes
    finally:
        from ray import serve

        with contextlib.suppress(Exception):
            serve.shutdown()
        ray.shutdown()
        made.shutdown()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    import ray
    from ray import cloudpickle, serve

    from deployments import app
    from deployments.keys.key_store import hashed

    patch = pytest.MonkeyPatch()
    patch.setenv("STEPDOWN_STATE_DIR", str(tmp_path_factory.mktemp("state")))
    patch.setitem(sys.modules, "deployments.replicas.vllm_tier", types.SimpleNamespace(bind=bind))
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # replicas cannot import a test
    config = Config.model_validate(
        {
            "tiers": [tier("small"), tier("large", price={"usd_per_accelerator_hour": 4})],
            "server": {"port": free_port(), "first_token_timeout_s": 10},
        }
    )
    try:
        with cluster() as (made, nodes):
            # On the head only: the nodes' proxies would share this machine's port, and a connection may go to one that dies.
            serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": config.server.port})
            serve.run(app.application(config, hashed(KEY)), name=APP, route_prefix="/")
            url = f"http://127.0.0.1:{config.server.port}/v1"
            with httpx.Client(base_url=url, headers={"authorization": f"Bearer {KEY}"}, timeout=60) as client:
                yield made, nodes, client
    finally:
        patch.undo()
        assert not ray.is_initialized()


def ask(client, model):
    body = {"model": model, "messages": [{"role": "user", "content": "where?"}]}
    try:
        return client.post("/chat/completions", json=body)
    except httpx.RemoteProtocolError:  # the proxy closed the connection while it was idle: clients ask again
        return client.post("/chat/completions", json=body)


def place(client, model):
    answer = ask(client, model)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def test_tiers_live_and_die_with_their_nodes(running):
    made, nodes, client = running
    assert place(client, "small") == nodes["small"].node_id
    assert place(client, "large") == nodes["large"].node_id

    made.remove_node(nodes["large"], allow_graceful=False)
    refused = until(lambda: (a := ask(client, "large")).status_code == 503 and a)
    assert refused.json()["error"]["code"] == "tier_unavailable" and int(refused.headers["retry-after"]) > 0
    assert place(client, "small") == nodes["small"].node_id
    degraded = until(lambda: (a := ask(client, "auto")).status_code == 200 and a)  # without a router `auto` is the large tier
    assert degraded.json()["model"] == degraded.headers["x-stepdown-tier"] == "small"

    spare = made.add_node(num_cpus=1, resources={"tier-large": 1})
    until(lambda: ask(client, "large").status_code == 200)
    assert place(client, "large") == spare.node_id
