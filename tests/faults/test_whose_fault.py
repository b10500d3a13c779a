"""Whose fault it is, over real connections to upstreams that answer as a test tells: what the client gets, who else is asked,
what the circuit counts, what the ledger and the log say; and that other clients notice nothing."""

import asyncio
import contextlib
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from delegation import CHAT as LISTING
from delegation import SETTINGS as PLANNING
from delegation import is_plan
from endpoint import CHAT, Endpoint, count
from live import PRICES, OneFlow, serving, stage
from ray.serve.exceptions import BackPressureError
from scripted_tier import Said, ScriptedTier
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deployments.endpoint.accounts import Accounts
from deployments.keys.admission import Keys
from deployments.ledger.ledger import Ledger
from deployments.replicas.replica_health import ReplicaHealth
from deployments.tiers.remote_tier import RemoteTier
from deployments.tiers.serve_tier import CallPolicy, ServeTier
from deployments.traffic.watched_tier import Watched
from router.cascade.flow import AcceptAny, Cascade
from router.cascade.race import Race
from router.config import Config, Escalation
from router.config import Ledger as Settings
from router.engine import Router
from router.errors import TierBusy, TierFailed, WindowExceeded
from router.traffic.breaker import Breaker

pytestmark = pytest.mark.slow

KEY = "sk-operator-0123456789"
STREAMED = pytest.mark.parametrize("stream", [False, True])
Answer = tuple[int, dict[str, str], Any]
GOOD = (200, {}, None)


def said(status: int, message: str = "no", code: Any = None, param: Any = None, **headers: str) -> Answer:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, {"error": error}


REFUSED_KEY = said(401, f"Incorrect API key provided: {KEY}", "invalid_api_key")
TOO_LONG = said(400, "This model's maximum context length is 512 tokens", "context_length_exceeded")
WRONG = said(400, "temperature is 9", "invalid_value", "temperature")
BROKEN = said(500, "broken")


@dataclass
class Upstream:
    """A server that answers like a model's; `says` decides for each body."""

    says: Callable[[dict[str, Any]], Answer] = lambda body: GOOD
    bodies: list[dict[str, Any]] = field(default_factory=list)
    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        stage().apps[self.name] = Starlette(routes=[Route("/{rest:path}", self.answer, methods=["POST"])])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{stage().port}/{self.name}/v1"

    async def answer(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.bodies.append(body)
        status, headers, told = self.says(body)
        if status != 200:
            raw = told if isinstance(told, bytes) else json.dumps(told).encode()
            return Response(raw, status, headers, "application/json")
        tier = ScriptedTier("m", lambda body: told or Said("four five six seven"))
        if body.get("stream"):
            return Response(b"".join([e async for e in tier.stream("chat/completions", body)]), media_type="text/event-stream")
        return Response(await tier.complete("chat/completions", body), media_type="application/json")


NAMES = ("small", "medium", "large")
WINDOWS = {"small": 9_000, "medium": 5_000, "large": 1_000}


def config_of(upstreams: dict[str, Upstream], windows: dict[str, int], **sections: Any) -> Config:
    tiers = [
        {
            "name": name,
            "engine": "remote",
            "url": upstream.url,
            "model": "m",
            "context": windows.get(name, 100_000),
            "price": {"usd_per_1m_input": PRICES[name], "usd_per_1m_output": PRICES[name]},
        }
        for name, upstream in upstreams.items()
    ]
    return Config.model_validate({"tiers": tiers, **sections})


class Place(Endpoint):
    def asked(self) -> dict[str, int]:
        return {name: len(upstream.bodies) for name, upstream in self.tiers.items()}


@pytest.fixture
def ledger(tmp_path):
    return Ledger(Settings(url=f"sqlite:///{tmp_path / 'ledger.db'}"))


@contextlib.contextmanager
def place(
    ledger: Ledger | None,
    flow: Any = None,
    windows: dict[str, int] | None = None,
    sections: Any = None,
    kind: Any = Router,
    **says: Any,
) -> Iterator[Place]:
    """says: by tier, what its upstream answers: always the same, or by the body."""
    told = {name: (made if callable(made) else lambda body, made=made: made) for name, made in says.items()}
    upstreams = {name: Upstream(told.get(name, lambda body: GOOD)) for name in NAMES}
    config = config_of(upstreams, windows or {}, **(sections or {}))
    router = OneFlow(config, flow, count) if flow else kind(config, None, dict.fromkeys(config.names, count))
    accounts = Accounts(Keys(None, insecure=True), ledger, tiers={tier.name: tier for tier in config.tiers}) if ledger else None
    with serving(router, {tier.name: RemoteTier(tier) for tier in config.tiers}, accounts) as url:
        made = Place(url, upstreams, ledger)
        with made.client:
            yield made


def last_event(answer: Any) -> dict[str, Any]:
    events = [part.removeprefix("data: ") for part in answer.text.split("\n\n") if part]
    return json.loads(events[-2])


# -- plain calls -----------------------------------------------------------------------------------------------------------

OPERATORS = {
    "key": REFUSED_KEY,
    "no money": said(402),
    "no right": said(403, "not for you", "permission_denied"),
    "model": said(404, "The model `m` does not exist", "model_not_found"),
    "path": (404, {}, b"404 page not found"),
    "timeout": (408, {}, b""),
    "gone": said(410),
    "quota": said(429, "You exceeded your current quota", "insufficient_quota", retry_after="3600"),
    "moved": (302, {"location": "http://127.0.0.1:1/"}, b""),
    "broken": BROKEN,
    "a proxy's page": (524, {}, b"<html><title>524: A timeout occurred</title></html>"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "stream"), [(fault, i % 2 == 0) for i, fault in enumerate(OPERATORS)])
def test_what_is_not_the_clients_fault_is_answered_by_another_tier_and_opens_the_circuit(ledger, fault, stream):
    with place(ledger, large=OPERATORS[fault]) as it:
        answers = [it.ask(stream=stream) for _ in range(5)]
        assert [(a.status_code, a.headers["x-stepdown-tier"]) for a in answers] == [(200, "medium")] * 5
        assert all(a.headers["x-stepdown-degraded"].startswith("large tier_") and "seven" in a.text for a in answers)
        assert it.asked() == {"small": 0, "medium": 5, "large": 3}
        assert [c["outcome"] for c in it.calls() if c["tier"] == "large"] == [
            "tier_failed" if status_of(fault) >= 500 else "tier_misconfigured"
        ] * 3


def status_of(fault: str) -> int:
    return OPERATORS[fault][0]


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True])
@pytest.mark.parametrize("fault", OPERATORS)
def test_where_the_client_named_the_tier_it_hears_that_the_tier_failed_and_nothing_of_the_key(fault, stream):
    with place(None, large=OPERATORS[fault]) as it:
        answer = it.ask(model="large", stream=stream)
        assert answer.status_code == 502 and answer.json()["error"]["type"] == "server_error"
        assert KEY[:6] not in answer.text and it.asked()["medium"] == 0


def test_the_log_says_once_what_to_mend(caplog):
    with place(None, large=REFUSED_KEY) as it, caplog.at_level(logging.WARNING, "stepdown"):
        for _ in range(3):
            it.ask()
    lines = [record.getMessage() for record in caplog.records if "large" in record.getMessage()]
    assert len(lines) == 1 and "tiers.large.api_key_env" in lines[0] and KEY[:6] not in lines[0]


REQUESTS = {
    "400": (WRONG, 400, "temperature is 9"),
    "422": ((422, {}, {"detail": [{"loc": ["body", "n"], "msg": "too large"}]}), 422, "body.n: too large"),
    "409": (said(409, "conflict"), 400, "conflict"),
    "415": (said(415, "no such type"), 400, "no such type"),
    "older": ((400, {}, {"object": "error", "message": "temperature is 9"}), 400, "temperature is 9"),
    "text": ((400, {}, b"temperature is 9"), 400, "temperature is 9"),
    "page": ((400, {}, b"<html><title>Bad Request</title><body>x</body></html>"), 400, "Bad Request"),
    "file": (said(404, "No such File object: file-1", param="id"), 400, "No such File"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("stream", "model"), [(False, "auto"), (True, "large")])
@pytest.mark.parametrize("fault", REQUESTS)
def test_a_requests_own_fault_is_told_with_its_reason_and_nobody_else_notices(ledger, fault, model, stream):
    answer, status, reason = REQUESTS[fault]
    with place(ledger, large=lambda body: answer if body.get("temperature") == 9 else GOOD) as it:
        for _ in range(4):
            refused = it.ask(model=model, temperature=9, stream=stream)
            assert refused.status_code == status and reason in refused.json()["error"]["message"]
        good = it.ask(model=model)
        assert good.status_code == 200 and "x-stepdown-degraded" not in good.headers
        assert it.asked() == {"small": 0, "medium": 0, "large": 5}
        assert sorted(c["outcome"] for c in it.calls()) == ["answered"] + ["request_refused"] * 4


# -- windows ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@STREAMED
@pytest.mark.parametrize("answer", [TOO_LONG, said(413), (400, {}, {"error": "exceeds the available context size"})])
def test_a_window_that_is_too_small_sends_the_request_to_the_next_larger_one(ledger, answer, stream):
    with place(ledger, large=answer, windows=WINDOWS) as it:
        for _ in range(4):
            moved = it.ask(stream=stream)
            assert (moved.status_code, moved.headers["x-stepdown-tier"]) == (200, "medium") and "seven" in moved.text
            assert "x-stepdown-degraded" not in moved.headers
        assert it.asked() == {"small": 0, "medium": 4, "large": 4}  # no circuit
        assert {(c["tier"], c["outcome"]) for c in it.calls()} == {("large", "context_length_exceeded"), ("medium", "answered")}


@pytest.mark.parametrize(
    ("says", "windows", "asked"),
    [
        ({"large": TOO_LONG, "medium": TOO_LONG}, WINDOWS, {"small": 0, "medium": 1, "large": 1}),  # once
        ({"large": TOO_LONG}, {}, {"small": 0, "medium": 0, "large": 1}),  # none is wider
        ({"large": TOO_LONG}, {"small": 2_000, "medium": 500, "large": 500}, {"small": 1, "medium": 0, "large": 1}),
    ],
)
def test_a_wider_window_is_tried_once(says, windows, asked):
    with place(None, windows=windows, **says) as it:
        answer = it.ask()
        assert it.asked() == asked
        if not asked["small"]:
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
            assert "512" not in answer.text and "maximum context length" in answer.text


def test_a_named_tier_with_too_small_a_window_is_not_replaced():
    with place(None, large=TOO_LONG, windows=WINDOWS) as it:
        answer = it.ask(model="large")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert it.asked() == {"small": 0, "medium": 0, "large": 1}


def test_a_wider_tier_that_is_down_leaves_its_place_to_the_next():
    with place(None, large=TOO_LONG, medium=BROKEN, windows=WINDOWS) as it:
        answer = it.ask()
        assert (answer.status_code, answer.headers["x-stepdown-tier"]) == (200, "small")
        assert answer.headers["x-stepdown-degraded"] == "medium tier_failed"


# -- tiers that are full ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@STREAMED
@pytest.mark.parametrize("status", [429, 503])
def test_a_tier_that_is_full_is_left_alone_as_long_as_it_asks_and_no_longer(status, stream):
    full = [True]
    with place(None, large=lambda body: said(status, "slow down", retry_after="1") if full[0] else GOOD) as it:
        answers = [it.ask(stream=stream) for _ in range(5)]
        assert [(a.status_code, a.headers["x-stepdown-tier"]) for a in answers] == [(200, "medium")] * 5
        assert {a.headers["x-stepdown-degraded"] for a in answers} == {"large tier_busy"}
        assert it.asked()["large"] == 1
        named = it.ask(model="large")
        assert (named.status_code, named.headers["retry-after"]) == (503, "1")
        full[0] = False
        time.sleep(1.1)
        back = it.ask(stream=stream)
        assert back.headers["x-stepdown-tier"] == "large" and "x-stepdown-degraded" not in back.headers


def test_where_all_tiers_are_full_the_client_is_told_when_to_come_back():
    full = said(429, "slow down", retry_after="40")
    with place(None, small=full, medium=full, large=full) as it:
        for _ in range(4):
            answer = it.ask()
            assert answer.status_code == 503 and 30 <= int(answer.headers["retry-after"]) <= 40
        assert it.asked() == {"small": 1, "medium": 1, "large": 1}


def test_of_several_tiers_that_are_full_the_soonest_counts():
    says = {name: said(429, retry_after=after) for name, after in (("small", "50"), ("medium", "20"), ("large", "40"))}
    with place(None, **says) as it:
        for _ in range(2):
            assert 10 <= int(it.ask().headers["retry-after"]) <= 20
            assert 10 <= int(it.ask(**limited({})).headers["retry-after"]) <= 20


def test_a_request_that_only_a_resting_tier_can_take_is_not_the_clients_fault():
    sections = {"routing": {"when_down": "any"}}
    with place(None, large=BROKEN, windows={"small": 20, "medium": 20}, sections=sections) as it:
        long = [{"role": "user", "content": "word " * 50}]
        answers = [it.ask(messages=long) for _ in range(5)]
        assert [a.status_code for a in answers] == [502, 502, 502, 503, 503]
        assert int(answers[-1].headers["retry-after"]) >= 1


# -- flows -----------------------------------------------------------------------------------------------------------------


def cascade(router, asked, decided):
    names = decided.allowed(router.names)
    windows = {tier.name: tier.context for tier in router.tiers}
    return Cascade(asked.body, names, AcceptAny(), Escalation(mode="buffer"), asked.stream, windows=windows).run(names[:1])


def race(router, asked, decided):
    return Race(asked.body, ("small", "medium"), 5.0, "large").run()


FLOWS = pytest.mark.parametrize("flow", [cascade, race], ids=["cascade", "race"])


@pytest.mark.slow
@STREAMED
@FLOWS
@pytest.mark.parametrize(
    ("fault", "code"), [(REFUSED_KEY, "tier_misconfigured"), (BROKEN, "tier_failed"), (said(429), "tier_busy")]
)
def test_a_flow_says_which_tier_failed(flow, fault, code, stream):
    with place(None, flow, small=fault) as it:
        more = {"stream_options": {"include_usage": True}} if stream else {}
        answer = it.ask(stream=stream, **more)
        assert (answer.status_code, answer.headers["x-stepdown-tier"]) == (200, "medium")
        assert answer.headers["x-stepdown-degraded"] == f"small {code}" and KEY[:6] not in answer.text
        usage = last_event(answer)["usage"] if stream else answer.json()["usage"]
        assert usage["stepdown"]["degraded_by"] == f"small {code}"


@pytest.mark.slow
@STREAMED
@FLOWS
def test_a_flow_ends_with_a_requests_own_fault(flow, stream):
    with place(None, flow, small=lambda body: WRONG if body.get("temperature") == 9 else GOOD) as it:
        for _ in range(4):
            answer = it.ask(temperature=9, stream=stream)
            assert answer.status_code == 400 and answer.json()["error"]["message"] == "temperature is 9"
        good = it.ask()
        assert good.headers["x-stepdown-tier"] == "small" and "x-stepdown-degraded" not in good.headers
        assert it.asked() == {"small": 5, "medium": 0, "large": 0}


@pytest.mark.slow
@STREAMED
@FLOWS
def test_a_flow_goes_to_the_next_wider_tier_once(flow, stream):
    windows = {"small": 1_000, "medium": 1_000, "large": 5_000}
    with place(None, flow, small=TOO_LONG, windows=windows) as it:
        for _ in range(4):
            answer = it.ask(stream=stream)
            assert (answer.status_code, answer.headers["x-stepdown-tier"]) == (200, "large")
            assert "x-stepdown-degraded" not in answer.headers
        assert it.asked() == {"small": 4, "medium": 0, "large": 4}
    with place(None, flow, small=TOO_LONG, large=TOO_LONG, windows=windows) as it:
        answer = it.ask(stream=stream)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert it.asked() == {"small": 1, "medium": 0, "large": 1}


@pytest.mark.slow
def test_a_cascade_says_which_tier_it_passed_over():
    hard = (200, {}, Said("<ESCALATE>"))
    with place(None, cascade, small=lambda body: GOOD if body.get("n") else hard, medium=BROKEN) as it:
        answers = [it.ask() for _ in range(5)]
        told = [a.headers["x-stepdown-degraded"] for a in answers]
        assert told == ["medium tier_failed"] * 3 + ["medium tier_unavailable"] * 2  # the last two do not ask it any more
        assert [a.json()["usage"]["stepdown"]["degraded_by"] for a in answers] == told
        assert it.asked() == {"small": 5, "medium": 3, "large": 5}
        assert "x-stepdown-degraded" not in it.ask(n=1).headers  # it needed nobody above the first


class PrefersSmall(Router):
    """Decides on the smallest tier that may be asked, as a trained router would for an easy request."""

    def decide(self, *given):
        decided = super().decide(*given)
        return decided if decided.target in self.names else replace(decided, tier=decided.allowed(self.names)[0])


@pytest.mark.slow
def test_an_open_circuit_of_the_tier_that_would_have_been_chosen_is_told():
    with place(None, kind=PrefersSmall, small=BROKEN) as it:
        told = [it.ask().headers["x-stepdown-degraded"] for _ in range(4)]
        assert told == ["small tier_failed"] * 3 + ["small tier_unavailable"]
    with place(None, kind=PrefersSmall, large=BROKEN) as it:
        for _ in range(3):
            it.ask(model="large")
        assert "x-stepdown-degraded" not in it.ask().headers  # it would not have been chosen


def limited(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "stepdown": {"max_cost_usd": 1.0}}


@pytest.mark.slow
@STREAMED
def test_a_request_with_limits_goes_to_another_tier_too(stream):
    with place(None, large=REFUSED_KEY) as it:
        answers = [it.ask(**limited({"stream": stream})) for _ in range(4)]
        assert [(a.status_code, a.headers["x-stepdown-tier"]) for a in answers] == [(200, "medium")] * 4
        assert all(a.headers["x-stepdown-degraded"].startswith("large ") for a in answers)
    with place(None, large=TOO_LONG, windows=WINDOWS) as it:
        assert it.ask(**limited({"stream": stream})).headers["x-stepdown-tier"] == "medium"


def planner(worker: Answer) -> dict[str, Any]:
    def top(body):
        return 200, {}, Said('{"plan": [{"each": "c1"}]}' if is_plan(body) else "the whole")

    return {"large": top, "medium": worker}


@pytest.mark.slow
@STREAMED
@pytest.mark.parametrize(
    ("worker", "told"), [(REFUSED_KEY, "medium tier_misconfigured"), (said(429), "medium tier_busy"), (WRONG, None)]
)
def test_a_delegation_says_which_tier_failed(worker, told, stream):
    with place(None, sections={"delegation": {**PLANNING, "deadline_s": 10.0}}, **planner(worker)) as it:
        answer = it.ask(**LISTING, stream=stream)
        assert answer.status_code == 200 and answer.headers.get("x-stepdown-degraded") == told
        assert "whole" in answer.text and KEY[:6] not in answer.text


@pytest.mark.slow
def test_a_delegation_whose_part_is_too_long_for_a_worker_asks_a_wider_one(ledger):
    sections = {"delegation": {**PLANNING, "deadline_s": 10.0}}
    with place(ledger, sections=sections, windows={"small": 5_000, "medium": 5_000}, **planner(TOO_LONG)) as it:
        answer = it.ask(**LISTING)
        assert answer.status_code == 200 and "x-stepdown-degraded" not in answer.headers
        assert {c["outcome"] for c in it.calls() if c["tier"] == "medium"} == {"too long"}


# -- streams that break ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_tier_whose_streams_break_again_and_again_is_left_alone(ledger):
    from endpoint import endpoint, ladder

    with endpoint(ladder(), ledger, large=lambda body: Said("four five six", dies_after=2)) as it:
        for _ in range(3):
            assert it.ask(stream=True).headers["x-stepdown-tier"] == "large"
        other = it.ask(stream=True)
        assert (other.headers["x-stepdown-tier"], other.headers["x-stepdown-degraded"]) == ("small", "large tier_unavailable")


# -- tiers of vLLM replicas --------------------------------------------------------------------------------------------------


class Queued:
    """A Serve handle that answers each call as told: by an item (status, text, measurement) or by an error."""

    def __init__(self, said: Any) -> None:
        self.said = said

    def options(self, **_: Any) -> "Queued":
        return self

    def remote(self, *_: Any) -> "Queued":
        return self

    async def __anext__(self) -> Any:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said

    def cancel(self) -> None: ...


async def one() -> int:
    return 1


VLLM = {
    "its queue is full": (BackPressureError(num_queued_requests=5, max_queued_requests=5), TierBusy),
    "too long": ((400, json.dumps(TOO_LONG[2]), ""), WindowExceeded),
    "wrong": ((400, json.dumps(WRONG[2]), ""), TierFailed),
}


@pytest.mark.parametrize("fault", VLLM)
def test_a_tier_of_replicas_is_judged_in_the_same_way_and_neither_circuit_nor_replica_counts_it(fault):
    said, kind = VLLM[fault]
    tier = ServeTier("large", Queued(said), one, CallPolicy(5.0))
    breaker = Breaker(time.monotonic, lambda: 0.0)
    watched = Watched(tier, breaker)
    tier.health = ReplicaHealth()
    for n in range(5):
        tier.health.routed(f"t/{n}", "r1")
        with pytest.raises(kind) as raised:
            asyncio.run(watched.complete("chat/completions", CHAT, call_id=f"t/{n}"))
        assert type(raised.value) is kind and raised.value.outcome != "tier_failed"
    assert breaker.left_s("large") == 0 and not breaker.circuits
    assert not tier.health.breaker.circuits
