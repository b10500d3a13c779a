"""How what a replica found comes to the ingress, keeps requests away from the tier, and is shown."""

import asyncio
import json

import pytest
import yaml
from ray.exceptions import RayError
from starlette.testclient import TestClient
from waiting import until

from deployments import app
from deployments.tiers import serve_tier
from deployments.tiers.echo_tier import EchoTier
from deployments.tiers.serve_tier import CallPolicy, ServeTier
from deployments.tiers.tier import Engine
from router.config import load_config

pytestmark = pytest.mark.slow

REPORT = {"chat": "", "tools": "it has no tool parser"}
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}
TOOLS = [{"type": "function", "function": {"name": "f"}}]


class Handle:
    """A Serve handle whose method `abilities` answers, or raises, what it is given in turn."""

    deployment_name = "tier-it"

    def __init__(self, *answers) -> None:
        self.answers, self.asked = list(answers), 0

    def options(self, **_):
        return self

    async def remote(self):
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def one() -> int:
    return 1


def tier(handle: Handle, sleeps: bool = False) -> ServeTier:
    return ServeTier("it", handle, one, CallPolicy(5.0, sleeps=sleeps))


def answered_by(tier: ServeTier, replica: str) -> None:
    tier.note(json.dumps({"replica": replica, "busy_s": 0.0, "cached_tokens": 0, "late": {}}), None)


async def waits(tier: ServeTier) -> bool:
    """Whether there is nothing new to hear."""
    try:
        await asyncio.wait_for(tier.abilities(), 0.02)
    except TimeoutError:
        return True
    return False


def test_a_tier_is_asked_once_and_again_when_another_replica_answers():
    async def run() -> None:
        made = tier(Handle(REPORT, {"chat": ""}, {}))
        assert await made.abilities() == REPORT and await waits(made)
        answered_by(made, "r1")  # perhaps the one that was asked, perhaps not
        assert await made.abilities() == {"chat": ""}
        answered_by(made, "r1")
        assert await waits(made)
        answered_by(made, "r2")
        assert await made.abilities() == {}

    asyncio.run(run())


def test_a_tier_that_sleeps_is_not_woken_to_be_asked():
    async def run() -> None:
        handle = Handle(REPORT)
        made = tier(handle, sleeps=True)
        assert await waits(made) and handle.asked == 0
        answered_by(made, "r1")
        assert await made.abilities() == REPORT

    asyncio.run(run())


def test_a_replica_that_dies_meanwhile_is_asked_again(monkeypatch):
    monkeypatch.setattr(serve_tier, "LOOK_EVERY_S", 0.001)
    handle = Handle(RayError("gone"), RayError("gone"), REPORT)
    assert asyncio.run(ask(handle)) == REPORT and handle.asked == 3


async def ask(handle: Handle):
    return await tier(handle).abilities()


def test_only_so_many_replicas_are_remembered(monkeypatch):
    monkeypatch.setattr(serve_tier, "HEARD", 3)

    async def run() -> int:
        made = tier(Handle())
        for n in range(50):
            answered_by(made, f"r{n}")
        return len(made.heard)

    assert asyncio.run(run()) <= 4


def test_an_engine_without_replicas_has_nothing_to_say():
    async def run() -> bool:
        settings = load_config("echo").tiers[0]
        return await waits(EchoTier(settings))

    assert asyncio.run(run())


# -- in the ingress -----------------------------------------------------------------------------------------------------------


class Reporting(EchoTier):
    """An echo tier that says what a tier of vLLM might say."""

    report: dict[str, str] = {}

    async def abilities(self):
        if self.report and self.name == "large" and not getattr(self, "said", False):
            self.said = True
            return self.report
        return await super().abilities()


@pytest.fixture
def ingress(tmp_path, monkeypatch):
    monkeypatch.setitem(app.TIERS, "echo", Engine(lambda settings, *_: Reporting(settings)))
    price = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
    tiers = [{"name": n, "engine": "echo", "context": 1000, "price": price} for n in ("small", "large")]
    file = tmp_path / "ladder.yaml"
    file.write_text(yaml.safe_dump({"tiers": tiers, "ledger": {"url": f"sqlite:///{tmp_path}/ledger.db"}}))
    return app.ServedIngress(load_config(file).model_dump(mode="json"), "", True, {}, str(file))


def ladder_of(client):
    return client.get("/v1/status").json()["ladder"]


def test_what_a_tier_cannot_do_is_on_the_status_page_and_keeps_requests_away(ingress, monkeypatch):
    monkeypatch.setattr(Reporting, "report", REPORT)
    with TestClient(ingress.app()) as client:
        until(lambda: "tools" in ladder_of(client)["large"]["unable"], patience_s=5, every_s=0.01)
        shown = ladder_of(client)
        assert shown["large"]["able"] == ["chat"] and shown["large"]["state"] == "ready"
        assert shown["large"]["unable"]["tools"] == "takes no tools: it has no tool parser"
        assert shown["small"] == {"state": "ready", "able": [], "unable": {"images": "takes no images"}}
        with_tools = client.post("/v1/chat/completions", json={**CHAT, "tools": TOOLS})
        assert with_tools.headers["x-stepdown-tier"] == "small"
        named = client.post("/v1/chat/completions", json={**CHAT, "model": "large", "tools": TOOLS})
        assert named.status_code == 400 and named.json()["error"]["code"] == "no_tier_fits"
        assert "large: takes no tools: it has no tool parser" in named.json()["error"]["message"]
        assert client.post("/v1/chat/completions", json=CHAT).headers["x-stepdown-tier"] == "large"


def test_a_reload_does_not_forget_it(ingress):
    ingress.router.abilities.report("large", REPORT)
    asyncio.run(ingress.reloader.from_file())
    assert ingress.router.abilities.lack("large", "tools")
    ingress.reloader = None
    asyncio.run(ingress.reconfigure({"routing": {"target": 0.5}}))
    assert ingress.router.config.routing.target == 0.5 and ingress.router.abilities.lack("large", "tools")


def test_a_ladder_that_answers_no_chat_says_so_in_the_log(ingress, monkeypatch, caplog):
    ingress.router.abilities.report("small", {"chat": "its tokenizer has no chat template"})
    monkeypatch.setattr(Reporting, "report", {"chat": "its tokenizer has no chat template"})
    with TestClient(ingress.app()) as client:
        until(lambda: "at least one has to answer chats" in caplog.text, patience_s=5, every_s=0.01)
        refused = client.post("/v1/chat/completions", json=CHAT)
        assert refused.status_code == 400 and "no chat template" in refused.json()["error"]["message"]
        assert client.post("/v1/completions", json={"model": "auto", "prompt": "hello"}).status_code == 200


def test_an_open_circuit_is_shown(ingress):
    with TestClient(ingress.app()) as client:
        for _ in range(3):
            ingress.answering.breaker.failed("small")
        assert ladder_of(client)["small"]["state"] == "circuit open"
