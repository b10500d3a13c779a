"""`stepdown check --ask`: a remote tier is asked once for everything that a ladder may want of it."""

import json

import pytest

from deployments.tiers import ask_remote
from deployments.tiers.ask_remote import asked_all
from router.config import Config
from router.decide.abilities import TRIED
from router.errors import BadConfig, NoReplica, TierFailed

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
FAR = {"name": "far", "engine": "remote", "url": "http://x/v1", "model": "m", "context": 99, "price": PRICE}


def kind_of(body) -> str:
    if body.get("tools"):
        return "tools" if body["tool_choice"] == "auto" else "tool_choice"
    return "images" if isinstance(body.get("messages", [{}])[0].get("content"), list) else "other"


class Provider:
    """In the place of `RemoteTier`: raises what `faults` says for a kind of request."""

    faults: dict = {}
    bodies: list = []
    closed = 0

    def __init__(self, settings, first_token_s) -> None:
        self.settings = settings

    async def complete(self, path, body, reading=None, call_id="") -> bytes:
        type(self).bodies.append(body)
        if fault := self.faults.get(kind_of(body)):
            raise fault
        return json.dumps({}).encode()

    async def close(self) -> None:
        type(self).closed += 1


@pytest.fixture
def provider(monkeypatch):
    made = type("Provider", (Provider,), {"faults": {}, "bodies": [], "closed": 0})
    monkeypatch.setattr(ask_remote, "RemoteTier", made)
    return made


def ladder(**more) -> Config:
    echo = {"name": "near", "engine": "echo", "context": 99, "price": {"usd_per_1m_input": 0, "usd_per_1m_output": 0}}
    return Config.model_validate({"tiers": [echo, {**FAR, **more}]})


def test_what_it_can_do_is_listed_and_its_own_fields_are_sent(provider):
    said = asked_all(ladder(body={"reasoning_effort": "low"}))
    assert said == f"  far can: {', '.join(TRIED)}"
    assert provider.closed == 1 and len(provider.bodies) == len(TRIED)
    assert [body.get("reasoning_effort") for body in provider.bodies].count("low") == len(TRIED) - 1, "a completion has none"


def test_what_it_refuses_is_told_with_what_to_write(provider):
    refused = TierFailed("far", "no tools here", status=400)
    provider.faults = {"tools": refused, "tool_choice": refused, "images": NoReplica("far", "gone")}
    said = asked_all(ladder())
    assert "    takes no tools: " in said and "no tools here" in said
    assert said.endswith("    not known: images\n    write tools: false")


def test_a_promise_that_it_does_not_keep_is_an_error(provider):
    provider.faults = {"tools": TierFailed("far", "no tools here", status=400)}
    with pytest.raises(BadConfig, match="tiers.far.tools is true, but the tier takes no tools"):
        asked_all(ladder(tools=True))


def test_a_ladder_without_remote_tiers_costs_nothing(provider):
    assert asked_all(Config.model_validate({"tiers": ladder().model_dump()["tiers"][:1]})) == "  no tier is remote"
    assert provider.bodies == []
