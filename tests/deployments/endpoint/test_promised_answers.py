"""What is said of an answer's certificate, on the real decision code of the pocket ladder: header, usage and ledger agree."""

import json
from dataclasses import replace

import pytest
import waiting
from scripted_tier import Said, ScriptedTier
from sqlalchemy import select
from starlette.testclient import TestClient

from deployments.endpoint import answering, audit
from deployments.endpoint.accounts import Accounts
from deployments.endpoint.ingress import Ingress
from deployments.keys.admission import Keys
from deployments.ledger import schema
from deployments.ledger.ledger import Ledger
from router.config import Escalation, load_config
from router.config import Ledger as Settings
from router.engine import Router, load_artefact
from router.errors import NoReplica, TierCold, TierFailed
from router.types import Decision

pytestmark = pytest.mark.slow

EASY = {"model": "auto:cheap", "temperature": 0, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
SURE = Said("5", logprob=-0.0001)
DOUBTFUL = Said("7", logprob=-6.0)


class Place:
    def __init__(self, tmp_path, small=SURE, medium=SURE, large=SURE, rate=0.0, mode="buffer"):
        config = load_config("pocket")
        settings = Escalation(mode=mode, audit_rate=rate)
        self.config = config.model_copy(update={"escalation": settings})
        said = {"small": small, "medium": medium, "large": large}
        self.tiers = {name: ScriptedTier(name, lambda body, s=s: s) for name, s in said.items()}
        self.router = Router(self.config, load_artefact(self.config), dict.fromkeys(config.names, lambda text: len(text.split())))
        self.ledger = Ledger(Settings(journal_s=0, url=f"sqlite:///{tmp_path / 'ledger.db'}", store="nothing"))
        tiers = {tier.name: tier for tier in config.tiers}
        accounts = Accounts(Keys(None, insecure=True), self.ledger, tiers=tiers)
        self.ingress = Ingress(self.router, self.tiers, accounts, 1_000_000)

    def ask(self, **more):
        """(the answer, and its certificate's state as the header, the usage and the ledger have it)."""
        with TestClient(self.ingress.app()) as client:
            answer = client.post("/v1/chat/completions", json={**EASY, **more})
        with self.ledger.engine.connect() as connection:
            (written,) = connection.execute(select(schema.traces.c.certificate, schema.traces.c.tier))
        told = answer.headers.get("x-stepdown-certificate", "")
        if not more.get("stream") and answer.status_code == 200:
            flow = (answer.json().get("usage") or {}).get("stepdown")
            assert flow is None or flow.get("certificate", "") == told
        assert written.certificate == told
        return answer, told


def failing(error) -> Said:
    return Said(error=error)


DOWN = failing(NoReplica("any", "no replica is running"))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "tiers, tier, state",
    [
        ({}, "small", "valid"),
        ({"small": DOUBTFUL, "medium": DOUBTFUL}, "large", "valid"),
        ({"small": DOWN}, "medium", "uncovered"),
        ({"small": failing(TierFailed("small", "it broke"))}, "medium", "uncovered"),
        ({"small": failing(TierCold("small"))}, "medium", "uncovered"),
        ({"small": DOUBTFUL, "medium": DOWN, "large": DOWN}, "small", "uncovered"),
        ({"small": Said("", finish="stop")}, "medium", "uncovered"),
        ({"small": Said("no", finish="content_filter", logprob=-0.0001)}, "small", "uncovered"),
    ],
)
def test_an_answer_that_came_about_in_another_way_is_not_covered(tmp_path, tiers, tier, state, stream):
    answer, told = Place(tmp_path, **tiers).ask(stream=stream)
    assert answer.status_code == 200, answer.text
    assert (answer.headers["x-stepdown-tier"], told) == (tier, state)


def test_an_answer_cut_off_at_the_clients_own_limit_is_not_covered(tmp_path):
    answer, told = Place(tmp_path, small=Said("5", finish="length", logprob=-0.0001)).ask(max_tokens=1)
    assert (answer.headers["x-stepdown-tier"], told) == ("small", "uncovered")


def test_a_clients_limit_that_ends_the_cascade_early_uncovers_it(tmp_path):
    place = Place(tmp_path, small=DOUBTFUL, medium=DOUBTFUL)
    answer, told = place.ask(stepdown={"max_cost_usd": 0.00003}, max_tokens=20)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-stepdown-tier"] != "large" and told == "uncovered"


def moved(monkeypatch, **changes):
    plain = answering.Answering.decide

    async def decide(self, *given) -> Decision:
        return replace(await plain(self, *given), **changes)

    monkeypatch.setattr(answering.Answering, "decide", decide)


def test_a_request_that_was_moved_off_a_queue_is_not_covered(tmp_path, monkeypatch):
    moved(monkeypatch, tier="medium", first=("medium",), reason="moved off a queue")
    answer, told = Place(tmp_path).ask()
    assert (answer.headers["x-stepdown-tier"], told) == ("medium", "uncovered")


def test_a_circuit_that_is_open_uncovers_everybody(tmp_path):
    place = Place(tmp_path)
    for _ in range(3):
        place.ingress.answering.breaker.sent("large")
        place.ingress.answering.breaker.failed("large")
    answer, told = place.ask()
    assert (answer.headers["x-stepdown-tier"], told) == ("small", "uncovered")


def test_the_top_tier_asked_at_once_is_covered_and_its_stand_in_is_not(tmp_path):
    hard = {"messages": [{"role": "user", "content": "What is 238 plus 467?"}]}
    answer, told = Place(tmp_path / "a").ask(**hard)
    assert (answer.headers["x-stepdown-tier"], told) == ("large", "valid")
    answer, told = Place(tmp_path / "b", large=DOWN).ask(**hard)
    assert answer.headers["x-stepdown-degraded"] == "large tier_unavailable" and told == "uncovered"


def test_a_stream_whose_headers_leave_before_its_tier_is_known_says_it_at_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(answering, "HEARTBEAT_S", 0.05)
    place = Place(tmp_path, small=Said("5", logprob=-0.0001, wait_s=0.3))
    with TestClient(place.ingress.app()) as client:
        answer = client.post("/v1/chat/completions", json={**EASY, "stream": True, "stream_options": {"include_usage": True}})
    assert "x-stepdown-certificate" not in answer.headers
    chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert chunks[-1]["usage"]["stepdown"]["certificate"] == "valid"


@pytest.mark.parametrize("small, counted", [(SURE, 1), (DOWN, 0)])
def test_audits_of_covered_answers_alone_reach_the_alarm(tmp_path, monkeypatch, small, counted):
    monkeypatch.setattr(audit, "LOOK_EVERY_S", 0.01)
    place = Place(tmp_path, small=small, large=Said("6", logprob=-0.0001), rate=1.0)
    heard = []
    monkeypatch.setattr(place.router.flows.promises, "audited", lambda *given: heard.append(given))
    with TestClient(place.ingress.app()) as client:
        client.post("/v1/chat/completions", json=EASY)
        assert waiting.until(lambda: place.ingress.auditor.worker.done(), patience_s=10, every_s=0.01)
    assert len(heard) == counted
