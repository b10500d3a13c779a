"""Audits of accepted answers: which, when, how many at once, and what is told of them."""

import asyncio
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import waiting
from live import OneFlow, ladder
from scripted_tier import Said, ScriptedTier
from sqlalchemy import select
from starlette.testclient import TestClient

from classifiers import Rule
from deployments.endpoint import audit
from deployments.endpoint.accounts import Accounts
from deployments.endpoint.ingress import Ingress
from deployments.keys.admission import Keys
from deployments.ledger import schema
from deployments.ledger.ledger import Ledger
from deployments.tiers.faults import failure
from router.cascade.flow import Cascade
from router.config import Escalation
from router.config import Ledger as Settings
from router.decide.certificates import Certificate
from router.decide.promises import Promises
from router.errors import NoReplica
from router.types import Accept, GoUp

CHAT = {"model": "auto", "messages": [{"role": "user", "content": "how much is six times seven"}]}


class Judge:
    def next(self, answers):
        (tier, reply), *_ = answers.items()
        return Accept(tier) if min(reply.logprobs, default=0.0) > -1 else GoUp(("large",), "low confidence")


class Promised(Promises):
    """Writes down what it is told."""

    def __init__(self):
        super().__init__(None, Escalation(), {})
        self.heard = []

    def audited(self, target, error, stream=False):
        self.heard.append((target, error))


class Judged(OneFlow):
    """Every `auto` request is a cascade from `small` on, its answers looked at."""

    def __init__(self, config, mode="buffer", certificate="valid", **changes):
        super().__init__(config, self.cascade)
        self.changes = {"certificate": certificate, **changes}
        self.settings = Escalation(mode=mode, holdback_tokens=2)
        self.flows.promises = Promised()

    def decide(self, *given):
        decided = super().decide(*given)
        return decided if decided.target in self.names else replace(decided, tier="small", judge=Judge(), **self.changes)

    def cascade(self, router, request, decided):
        return Cascade(request.body, self.names, Judge(), self.settings, request.stream).run(["small"])


class Place:
    """An endpoint whose every accepted answer is audited."""

    def __init__(self, ledger=None, small="42", large="42", rate=1.0, mode="buffer", medium="unused", **judged):
        config = ladder(escalation={"audit_rate": rate})
        said = {"small": small, "medium": medium, "large": large}
        self.tiers = {n: ScriptedTier(n, s if callable(s) else lambda body, s=s: as_said(s)) for n, s in said.items()}
        self.router = Judged(config, mode, **judged)
        tiers = {tier.name: tier for tier in config.tiers}
        self.accounts = Accounts(Keys(None, insecure=True), ledger, tiers=tiers)
        self.ingress = Ingress(self.router, self.tiers, self.accounts, 1_000_000)
        self.large, self.heard = self.tiers["large"], self.router.flows.promises.heard

    def client(self):
        return TestClient(self.ingress.app())


def as_said(text) -> Said:
    return text if isinstance(text, Said) else Said(text)


def ask(client, **more):
    answer = client.post("/v1/chat/completions", json={**CHAT, **more})
    assert answer.status_code == 200, answer.text
    return answer


until = partial(waiting.until, patience_s=10, every_s=0.01)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(audit, "LOOK_EVERY_S", 0.01)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(Settings(journal_s=0, url=f"sqlite:///{tmp_path / 'ledger.db'}", store="nothing"))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["buffer", "holdback"])
@pytest.mark.parametrize(
    "small, large, told",
    [
        ("42", "42", [("balanced", False)]),
        ("so the answer is 42", "#### 42.0", [("balanced", False)]),
        ("42", "41", [("balanced", True)]),
        ("42", "a long story " * 30, []),
    ],
)
def test_an_accepted_answer_is_compared_with_the_top_tiers(small, large, told, stream, mode):
    place = Place(small=small, large=large, mode=mode)
    with place.client() as client:
        ask(client, stream=stream)
        assert until(lambda: place.large.ledger and place.ingress.auditor.worker.done())
    assert place.heard == told and len(place.large.bodies) == 1


def test_the_top_tier_is_asked_as_the_client_asked():
    place = Place()
    more = {"temperature": 0, "seed": 7, "max_tokens": 9, "top_k": 3}
    with place.client() as client:
        ask(client, stream=True, stream_options={"include_usage": True}, tools=[{"type": "stepdown:escalate"}], **more)
        assert until(lambda: place.large.ledger)
    assert place.large.bodies == [{**CHAT, "model": "large", "stream": False, **more}]


@pytest.mark.parametrize(
    "small, body",
    [
        (Said("41", logprob=-4.0), {}),
        ("42", {"model": "small"}),
        ("42", {"model": "large"}),
        ("once upon a time " * 30, {}),
        (Said("", finish="tool_calls", tool_calls=[{"id": "a", "function": {"name": "f", "arguments": "{}"}}]), {}),
    ],
)
def test_other_answers_are_not_audited(small, body):
    place = Place(small=small)
    with place.client() as client:
        ask(client, **body)
    assert place.ingress.auditor.worker is None and not place.heard


def test_an_answer_that_stands_in_for_a_missing_one_was_not_accepted():
    place = Place(small=Said("41", logprob=-4.0), large=Said(error=NoReplica("large", "it is down")))
    with place.client() as client:
        assert ask(client).json()["usage"]["stepdown"]["degraded"]
    assert place.ingress.auditor.worker is None


@pytest.mark.parametrize("rate, drawn", [(0.0, 0), (0.25, 2), (1.0, 8)])
def test_chance_alone_decides(rate, drawn):
    place = Place(rate=rate)
    place.ingress.auditor.draw = iter([i / 8 for i in range(8)]).__next__
    with place.client() as client:
        for _ in range(8):
            ask(client)
        assert until(lambda: len(place.heard) == drawn)
    assert len(place.large.bodies) == drawn


@pytest.mark.slow
def test_audits_wait_until_the_top_tier_is_idle_and_run_one_at_a_time():
    place = Place(large=lambda body: Said("42", wait_s=0.05))
    top, begun_beside = place.ingress.auditor.top, []
    place.large.script = lambda body: begun_beside.append(place.large.running) or Said("42", wait_s=0.05)
    with place.client() as client:
        top.running += 1  # a client's call
        for _ in range(5):
            ask(client)
        time.sleep(0.2)
        assert not place.large.bodies
        top.running -= 1
        assert until(lambda: len(place.heard) == 5)
    assert begun_beside == [1] * 5 and place.large.most_running == 1


def test_no_more_wait_than_may(monkeypatch):
    monkeypatch.setattr(audit, "WAITING", 3)
    place = Place()
    with place.client() as client:
        place.ingress.auditor.top.running += 1
        for _ in range(9):
            ask(client)
        assert len(place.ingress.auditor.waiting) == 3
        place.ingress.auditor.top.running -= 1
        assert until(lambda: len(place.heard) == 3) and place.ingress.auditor.bytes == 0
    assert len(place.large.bodies) == 3


def test_no_more_bytes_wait_than_may(monkeypatch):
    monkeypatch.setattr(audit, "WAITING_BYTES", 250)
    place = Place()
    with place.client() as client:
        place.ingress.auditor.top.running += 1
        for _ in range(9):
            ask(client)
        assert 0 < len(place.ingress.auditor.waiting) < 4


def test_an_audit_that_fails_says_nothing_and_the_next_goes_on(ledger):
    said = iter([Said(error=NoReplica("large", "it is down")), Said(error=KeyError("odd")), Said("41")])
    place = Place(ledger, large=lambda body: next(said))
    with place.client() as client:
        for _ in range(3):
            ask(client)
        assert until(lambda: len(place.heard) == 1 and len(audits(ledger)) == 3)  # it is written down a moment after it is heard
    assert place.heard == [("balanced", True)]
    assert [c["outcome"] for c in audits(ledger)] == ["tier_unavailable", "tier_failed", "differs"]


def test_a_request_that_the_largest_tier_refuses_is_a_missing_audit_and_no_failure_of_the_tier(ledger):
    refused = failure("large", 400, b'{"error": {"message": "it takes no such field"}}')
    said = iter([Said(error=refused)] * 4 + [Said("41")])
    place = Place(ledger, large=lambda body: next(said))
    with place.client() as client:
        for _ in range(5):
            ask(client)
        assert until(lambda: len(place.heard) == 1 and len(audits(ledger)) == 5)
        assert place.ingress.answering.breaker.left_s("large") == 0
    assert [c["outcome"] for c in audits(ledger)] == ["request_refused"] * 4 + ["differs"]


def audits(ledger):
    """Their sums are in `hourly`, their rows under the request's trace."""
    with ledger.engine.connect() as connection:
        found = connection.execute(select(schema.calls).order_by(schema.calls.c.began_s))
        return [dict(row._mapping) for row in found if row.role == "audit"]


def test_what_an_audit_cost_is_written_down(ledger):
    place = Place(ledger, large="41 42 43 is 42")
    with place.client() as client:
        trace = ask(client).headers["x-stepdown-trace-id"]
        assert until(lambda: place.heard and place.ingress.auditor.worker.done())
    (row,) = audits(ledger)
    assert row["id"] == f"{trace}/audit" and (row["tier"], row["input_tokens"], row["output_tokens"]) == ("large", 6, 5)
    assert row["cost_usd"] == pytest.approx(11 * 20e-6) and row["took_s"] > 0 and not row["estimated"]


def test_the_length_of_the_top_tiers_answer_is_learned():
    place = Place(small="42", large="the answer is 42")
    with place.client() as client:
        ask(client)
        assert until(lambda: place.heard)
    assert place.accounts.lengths.audits["small"].requests == 1


def test_a_server_that_stops_ends_its_audit_and_drops_the_others():
    place = Place(large=Said("42", wait_s=60))
    with place.client() as client:
        for _ in range(3):
            ask(client)
        assert until(lambda: place.large.running == 1)
        began = time.monotonic()
    assert time.monotonic() - began < 10 and place.large.running == 0 and place.large.given_up == 1
    assert not place.heard and len(place.large.bodies) == 1


def test_a_tier_that_never_answers_is_given_up(monkeypatch, ledger):
    monkeypatch.setattr(audit, "TIMEOUT_S", 0.05)
    place = Place(ledger, large=Said("42", wait_s=60))
    with place.client() as client:
        ask(client)
        assert until(lambda: audits(ledger) != [])
    assert place.large.given_up == 1
    (row,) = audits(ledger)
    assert (row["outcome"], row["input_tokens"], row["estimated"]) == ("tier_unavailable", 6, True)


def test_a_broken_promise_is_found():
    """With the real alarm: every answer differs, and the certificate is retired."""
    found = Certificate(0.9, 0.05, 0.1, 500, 10, 0.6, 0.04, "balanced")
    manifest = {"certificates": {"balanced": found.to_dict()}}
    place = Place(large="41")
    artefact = SimpleNamespace(manifest=manifest, cascades={"balanced": Rule("cascade", 0.2)})
    place.router.flows.promises = made = Promises(artefact, Escalation(), {})
    with place.client() as client:
        for _ in range(30):
            ask(client)
        assert until(lambda: made.state("balanced") == "retired")


def test_closing_twice_is_closing():
    async def go():
        await Place().ingress.auditor.close()

    asyncio.run(go())
