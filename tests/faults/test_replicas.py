"""What breaks below the endpoint: replicas and whole tiers."""

import json

import pytest
from endpoint import endpoint, in_turn, ladder, words
from scripted_tier import Said

from deployments.keys import key_store
from deployments.keys.admission import Keys
from deployments.ledger.ledger import Ledger
from router.config import Ledger as Settings
from router.errors import NoReplica, TierFailed
from router.limits.key_limits import Key
from router.traffic.retries import Retries

KILLED = Said(error=NoReplica("large", "its replica failed (ActorDiedError)", lost=True))
BROKEN = Said(error=TierFailed("large", "its engine is dead", 500))
FULL = Said(error=NoReplica("large", "its queue is full", 2.0))
STREAMED = pytest.mark.parametrize("stream", [False, True])


@pytest.fixture
def ledger(tmp_path):
    return Ledger(Settings(url=f"sqlite:///{tmp_path / 'ledger.db'}"))


def events(answer) -> list[str]:
    return [part.removeprefix("data: ") for part in answer.text.split("\n\n") if part]


@pytest.mark.slow
@STREAMED
@pytest.mark.parametrize("fault", [KILLED, BROKEN])
def test_a_replica_killed_before_the_first_byte_is_not_seen_where_the_tier_has_another(ledger, stream, fault):
    with endpoint(ladder(replicas=2), ledger, large=in_turn(fault, words(None))) as it:
        answer = it.ask(stream=stream)
        assert answer.status_code == 200 and "seven" in answer.text
        assert answer.headers["x-stepdown-tier"] == "large" and "x-stepdown-degraded" not in answer.headers
        assert [len(it.tiers[name].bodies) for name in ("large", "small")] == [2, 0]
        (call,) = it.calls()
        assert (call["outcome"], call["output_tokens"]) == ("answered", 4)


@pytest.mark.slow
@STREAMED
def test_a_replica_killed_before_the_first_byte_sends_the_request_to_the_next_tier_where_there_is_no_other(ledger, stream):
    with endpoint(ladder(), ledger, large=in_turn(KILLED, words(None))) as it:
        answer = it.ask(stream=stream)
        assert (answer.headers["x-stepdown-tier"], answer.headers["x-stepdown-degraded"]) == ("small", "large tier_unavailable")
        assert "seven" in answer.text
        assert [(c["tier"], c["outcome"], c["output_tokens"]) for c in it.calls()] == [
            ("large", "tier_unavailable", 0),
            ("small", "answered", 4),
        ]


@pytest.mark.slow
@pytest.mark.parametrize("fault", [FULL, Said(error=TierFailed("large", "no such field", 400))])
def test_a_full_queue_and_a_refusal_are_not_tried_again(ledger, fault):
    with endpoint(ladder(replicas=2), ledger, large=lambda body: fault) as it:
        it.ask()
        assert len(it.tiers["large"].bodies) == 1


@pytest.mark.slow
def test_the_second_replica_may_fail_too(ledger):
    with endpoint(ladder(replicas=2), ledger, large=lambda body: KILLED) as it:
        assert it.ask().headers["x-stepdown-degraded"] == "large tier_unavailable"
        assert len(it.tiers["large"].bodies) == 2


def test_tries_are_a_tenth_of_the_requests_at_most():
    retries = Retries(lambda: 0.5)
    tried = 0
    for _ in range(1_000):
        retries.asked()
        tried += retries.may()
    assert tried == pytest.approx(10 + 100, abs=1)
    assert retries.wait_s() == pytest.approx(0.05)


@pytest.mark.slow
def test_a_replica_killed_in_mid_stream_is_told_in_the_stream_and_billed_as_far_as_it_came(ledger):
    with endpoint(ladder(replicas=2), ledger, large=lambda body: Said("four five six seven", dies_after=2)) as it:
        got = events(it.ask(stream=True))
        assert got[-1] == "[DONE]" and json.loads(got[-2])["error"]["code"] == "tier_failed"
        assert "".join(json.loads(e)["choices"][0]["delta"].get("content", "") for e in got[:-2]) == "four five "
        (trace,), (call,) = it.rows(), it.calls()
        assert (trace["status"], trace["error"]) == (502, "tier_failed")
        assert (call["outcome"], call["input_tokens"], call["output_tokens"], call["estimated"]) == ("tier_failed", 3, 2, True)
        assert call["cost_usd"] == pytest.approx(5 * 20e-6)
        assert len(it.tiers["small"].bodies) == 0  # nobody goes on with an answer that another began


@pytest.mark.slow
@STREAMED
@pytest.mark.parametrize(
    "when_down, status, told", [("any", 200, "large tier_unavailable"), ("larger", 503, None), ("none", 503, None)]
)
def test_a_tier_that_is_gone_degrades_as_configured_and_the_header_says_so(ledger, stream, when_down, status, told):
    gone = Said(error=NoReplica("large", "no replica is running"))
    with endpoint(ladder(routing={"when_down": when_down}), ledger, large=lambda body: gone) as it:
        answer = it.ask(stream=stream)
        assert (answer.status_code, answer.headers.get("x-stepdown-degraded")) == (status, told)
        if status != 200:
            assert int(answer.headers["retry-after"]) >= 1 and answer.json()["error"]["code"] == "tier_unavailable"


@pytest.mark.slow
def test_a_slow_replica_meets_the_deadline_of_the_request(ledger):
    slow = Said("four five", wait_s=20)
    with endpoint(ladder(server={"request_timeout_s": 0.3}), ledger, large=lambda body: slow) as it:
        for stream in (False, True):
            answer = it.ask(stream=stream)
            assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert it.tiers["large"].given_up == 2  # it does not go on for nobody
        assert [(c["outcome"], c["input_tokens"]) for c in it.calls()] == [("cancelled", 3)] * 2


@pytest.mark.slow
def test_a_replica_that_becomes_slow_in_mid_stream_meets_it_too(ledger):
    slow = Said("four five six seven", token_s=0.2)
    with endpoint(ladder(server={"request_timeout_s": 0.5}), ledger, large=lambda body: slow) as it:
        got = events(it.ask(stream=True))
        assert got[-1] == "[DONE]" and json.loads(got[-2])["error"]["code"] == "deadline_exceeded"
        (trace,), (call,) = it.rows(), it.calls()
        assert (trace["status"], trace["error"]) == (504, "deadline_exceeded")
        assert 0 < call["output_tokens"] < 4 and call["estimated"]


@pytest.mark.slow
@STREAMED
@pytest.mark.parametrize(("calls", "status"), [(1.5, 429), (40.0, 200)])
def test_a_dearer_tier_that_stands_in_cannot_overspend_a_budget(ledger, stream, calls, status):
    """calls: of `large`, decided on and gone, what the budget of the day would pay; `small` is made twenty times as dear."""
    body = {"messages": [{"role": "user", "content": "word " * 1_000}], "max_tokens": 4, "stream": stream}
    small, large = (config := ladder()).tiers
    price = small.price.model_copy(update=dict.fromkeys(("usd_per_1m_input", "usd_per_1m_output"), 400.0))
    config = config.model_copy(update={"tiers": [small.model_copy(update={"price": price}), large]})
    gone = Said(error=NoReplica("large", "no replica is running"))
    with endpoint(config, ledger, Keys(ledger.engine), large=lambda body: gone) as it:
        usd = calls * 20e-6 * 1_100
        _, secret = key_store.create(ledger.engine, Key("", "bob", usd_per_day=usd), 0.0)
        it.client.headers["authorization"] = f"Bearer {secret}"
        assert it.ask(**body).status_code == status
        assert len(it.tiers["small"].bodies) == (1 if status == 200 else 0)
        assert sum(call["cost_usd"] for call in it.calls()) <= usd
        if status == 200:  # what was set aside twice was given back twice: the same fits again
            assert it.ask(**body).status_code == 200
