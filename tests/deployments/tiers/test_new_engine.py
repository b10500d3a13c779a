"""A new engine is a settings class, a file and a line of the registry: one that is made up here answers through the ingress."""

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Literal

import pytest
import yaml
from starlette.testclient import TestClient

from deployments import app
from deployments.tiers.tier import DONE, Engine, Tier, event
from router import tier_settings
from router.config import Config, load_config
from router.trace import Reading
from router.types import Path

pytestmark = pytest.mark.slow

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
LARGE = {"usd_per_1m_input": 9, "usd_per_1m_output": 9}


class ParrotSettings(tier_settings.Tier):
    """The settings class."""

    engine: Literal["parrot"]
    """parrot"""
    word: str
    """what it says"""


class ParrotTier(Tier):
    """The file: two methods, and nothing that the watcher asks of it besides."""

    def __init__(self, settings: ParrotSettings) -> None:
        self.name, self.word = settings.name, settings.word

    async def complete(self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = "") -> bytes:
        message = {"role": "assistant", "content": self.word}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return json.dumps(
            {"id": "p", "object": "chat.completion", "model": self.name, "choices": [choice], "usage": usage}
        ).encode()

    async def stream(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> AsyncGenerator[bytes]:
        frame = {"id": "p", "object": "chat.completion.chunk", "model": self.name}
        yield event({**frame, "choices": [{"index": 0, "delta": {"content": self.word}, "finish_reason": "stop"}]})
        yield DONE


@pytest.fixture
def ladder(tmp_path, monkeypatch) -> Config:
    monkeypatch.setitem(app.TIERS, "parrot", Engine(lambda settings, *_: ParrotTier(settings)))  # the line
    small = {"name": "small", "engine": "parrot", "word": "polly", "context": 1000, "price": PRICE, "hedge_after_s": 5}
    large = {"name": "large", "engine": "echo", "context": 1000, "price": LARGE}
    file = tmp_path / "parrot.yaml"
    ledger = {"url": f"sqlite:///{tmp_path / 'ledger.db'}"}
    file.write_text(yaml.safe_dump({"tiers": [small, large], "ledger": ledger}))
    return load_config(file)


def test_its_settings_are_read_from_the_file_and_survive_the_way_to_the_ingress(ladder):
    assert isinstance(ladder.tiers[0], ParrotSettings)
    assert Config.model_validate(ladder.model_dump(mode="json")) == ladder


def test_it_answers_through_the_ingress_that_serve_makes(ladder):
    ingress = app.ServedIngress(ladder.model_dump(mode="json"), "", True, {})
    body = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}
    with TestClient(ingress.app()) as client:
        whole = client.post("/v1/chat/completions", json=body)
        assert whole.json()["choices"][0]["message"]["content"] == "polly" and whole.headers["x-stepdown-tier"] == "small"
        stream = client.post("/v1/chat/completions", json={**body, "stream": True}).text
        assert '"content": "polly"' in stream and stream.endswith("data: [DONE]\n\n")
        assert client.post("/v1/chat/completions", json={**body, "model": "auto"}).json()["model"] == "large"


def test_it_needs_no_replicas_of_ours_and_is_served_by_the_same_application(ladder):
    (parrot, _) = ladder.tiers
    assert not parrot.local and not parrot.sleeps and parrot.most_replicas == 1 and not app.TIERS["parrot"].bind
    assert app.application(ladder)
