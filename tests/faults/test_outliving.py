"""A replica is killed in mid-stream and another goes on: what the client gets, what is written down, and what it costs."""

import contextlib
import json
import random
import time

import pytest
from endpoint import CHAT, Endpoint, count, ladder
from kept_replica import ANSWER, PROMPT, KeptReplica, Replicas
from live import serving

from deployments.endpoint.accounts import Accounts
from deployments.keys import key_store
from deployments.keys.admission import Keys
from deployments.ledger.ledger import Ledger
from deployments.tiers.serve_tier import CallPolicy, ServeTier
from router.config import Ledger as Settings
from router.engine import Router
from router.limits.key_limits import Key
from router.trace import HEDGE, RESUMED
from router.traffic.retries import Retries

pytestmark = pytest.mark.slow
USD = 20e-6  # a token of the large tier
USAGE = {"stream_options": {"include_usage": True}}
TEXT = "".join(f"{word} " for word in ANSWER)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(Settings(url=f"sqlite:///{tmp_path / 'ledger.db'}"))


async def two() -> int:
    return 2


@contextlib.contextmanager
def killing(ledger, *lost, keys=None, others=(), config=None, resumes=True, **how):
    """(endpoint, handle): two replicas of the large tier; each call in turn is lost after so many items."""
    config = config or ladder(replicas=2)
    made = [KeptReplica(f"r{n}", **how) for n in range(2)]
    handle = Replicas([*others, *made][:2], list(lost), f"tier-{random.random()}")
    tiers = {n: ServeTier(n, handle, two, CallPolicy(20.0, resumes=resumes)) for n in config.names}
    accounts = Accounts(keys or Keys(None, insecure=True), ledger, tiers={tier.name: tier for tier in config.tiers})
    with serving(Router(config, None, dict.fromkeys(config.names, count)), tiers, accounts) as url:
        it = Endpoint(url, {}, ledger)
        with it.client:
            yield it, handle


def parts(answer):
    return [part for part in answer.text.split("\n\n") if part]


def chunks(answer):
    return [json.loads(part[6:]) for part in parts(answer) if part.startswith("data: {")]


def text(answer):
    return "".join(c["delta"].get("content") or "" for chunk in chunks(answer) for c in chunk.get("choices") or [])


@pytest.mark.parametrize("cut", range(2, 9))
def test_the_client_gets_the_whole_answer_once_and_both_calls_are_written_down(ledger, cut):
    """cut: items that came, the first of which is the role."""
    with killing(ledger, cut) as (it, handle):
        answer = it.ask(model="large", stream=True, **USAGE)
        got = chunks(answer)
        assert text(answer) == TEXT and parts(answer)[-1] == "data: [DONE]"
        assert {(chunk["id"], chunk["created"], chunk["model"]) for chunk in got} == {("chatcmpl-r0", 2, "large")}
        assert parts(answer).count(": stepdown resumed") == 1 and '_ids":[' not in answer.text
        k = cut - 1
        usage = got[-1]["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (PROMPT, len(ANSWER))
        assert usage["stepdown"] == {"resumed_after_tokens": k}
        (trace,), (first, second) = it.rows(), it.calls()
        assert (trace["status"], trace["error"], trace["tier"]) == (200, "", "large")
        assert second["id"] == first["id"] + RESUMED
        assert (first["outcome"], first["input_tokens"], first["output_tokens"]) == ("tier_failed", PROMPT, k)
        assert (second["outcome"], second["input_tokens"], second["output_tokens"]) == ("answered", PROMPT + k, len(ANSWER) - k)
        assert (first["replica"], second["replica"], second["busy_s"]) == ("", "r1", 0.5)
        assert first["cost_usd"] == pytest.approx((PROMPT + k) * USD)
        assert second["cost_usd"] == pytest.approx((PROMPT + len(ANSWER)) * USD)
        assert first["took_s"] + second["took_s"] <= trace["took_s"] + 0.01 and second["first_token_s"] is not None


def test_where_only_the_mark_of_the_end_was_lost_nobody_is_asked(ledger):
    with killing(ledger, len(ANSWER) + 2) as (it, handle):
        answer = it.ask(model="large", stream=True, **USAGE)
        assert text(answer) == TEXT and parts(answer)[-1] == "data: [DONE]" and len(handle.asked) == 1
        (call,) = it.calls()
        assert (call["outcome"], call["output_tokens"], call["estimated"]) == ("answered", len(ANSWER), False)


def test_a_key_pays_for_both_calls(ledger):
    with killing(ledger, 4, keys=Keys(ledger.engine)) as (it, _):
        key, secret = key_store.create(ledger.engine, Key("", "bob", usd_per_day=1.0), 0.0)
        it.client.headers["authorization"] = f"Bearer {secret}"
        assert text(it.ask(model="large", stream=True)) == TEXT
        calls = it.calls()
        assert len(calls) == 2 and {call["key_id"] for call in calls} == {key.id}
        assert sum(call["cost_usd"] for call in calls) == pytest.approx((PROMPT + 3 + PROMPT + len(ANSWER)) * USD)
        assert key_store.spent(ledger.engine, time.time())[key.id].day == pytest.approx(sum(call["cost_usd"] for call in calls))


def test_the_second_replica_killed_too_ends_in_an_error_and_two_rows(ledger):
    with killing(ledger, 3, 2) as (it, handle):
        answer = it.ask(model="large", stream=True)
        assert parts(answer)[-1] == "data: [DONE]" and chunks(answer)[-1]["error"]["code"] == "tier_failed"
        assert len(handle.asked) == 2
        (trace,), rows = it.rows(), it.calls()
        assert (trace["status"], trace["error"]) == (502, "tier_failed")
        assert [row["outcome"] for row in rows] == ["tier_failed", "tier_failed"]
        assert [(row["input_tokens"], row["output_tokens"]) for row in rows] == [(3, 2), (5, 2)]
        assert all(row["estimated"] for row in rows)


def test_another_answer_at_the_second_replica_ends_in_the_error_of_the_first(ledger):
    other = KeptReplica("r0")
    with killing(ledger, 3, others=[other], answer=["four", "other"]) as (it, handle):
        answer = it.ask(model="large", stream=True)
        assert text(answer) == "four five " and chunks(answer)[-1]["error"]["code"] == "tier_failed"
        assert ": stepdown resumed" not in answer.text and len(handle.asked) == 2
        (call,) = it.calls()
        assert (call["outcome"], call["output_tokens"]) == ("tier_failed", 2)


@pytest.mark.parametrize(
    "more",
    [{"n": 2}, {"response_format": {"type": "json_object"}}, {"presence_penalty": 1}, {"logprobs": True}, {"resumes": False}],
)
def test_what_cannot_go_on_ends_as_it_did(ledger, more):
    with killing(ledger, 3, resumes=more.pop("resumes", True)) as (it, handle):
        answer = it.ask(model="large", stream=True, **more)
        assert chunks(answer)[-1]["error"]["code"] == "tier_failed" and len(handle.asked) == 1
        assert handle.asked[0][0] == "chat/completions"
        (call,) = it.calls()
        assert call["outcome"] == "tier_failed"


@pytest.mark.parametrize("lost", [0, 1])
def test_one_that_is_lost_before_it_said_anything_is_asked_anew(ledger, lost):
    with killing(ledger, lost) as (it, handle):
        answer = it.ask(model="large", stream=True)
        assert text(answer) == TEXT and ": stepdown resumed" not in answer.text
        assert [asked[0] for asked in handle.asked] == ["kept:chat/completions"] * 2


def test_the_budget_of_retries_holds(ledger):
    with killing(ledger, *[3] * 40) as (it, handle):
        answers = [it.ask(model="large", stream=True) for _ in range(20)]
        whole = sum(text(answer) == TEXT for answer in answers)
        assert whole == 0 and len(handle.asked) <= 20 + Retries(random.random).most + 3


def test_a_client_that_leaves_after_the_seam_leaves_both_rows_and_no_call(ledger):
    with killing(ledger, 3, token_s=0.05) as (it, handle):
        with it.client.stream("POST", f"{it.url}/chat/completions", json={**CHAT, "model": "large", "stream": True}) as answer:
            for line in answer.iter_lines():
                if line.startswith(": stepdown resumed"):
                    break
        deadline = 200
        while (not it.rows() or handle.replicas[1].ended == 0) and (deadline := deadline - 1):
            time.sleep(0.05)
        (trace,), (first, second) = it.rows(), it.calls()
        assert trace["status"] == 499 and (first["outcome"], second["outcome"]) == ("tier_failed", "cancelled")
        assert first["output_tokens"] == 2 and [replica.ended for replica in handle.replicas] == [1, 1]


def test_a_hedged_stream_goes_on_too(ledger):
    config = ladder(replicas=2)
    config = config.model_copy(update={"tiers": [tier.model_copy(update={"hedge_after_s": 0.05}) for tier in config.tiers]})
    slow = KeptReplica("slow", token_s=5.0)
    with killing(ledger, -1, 3, others=[slow], config=config) as (it, handle):
        handle.replicas.append(KeptReplica("third"))
        answer = it.ask(model="large", stream=True, **USAGE)
        assert text(answer) == TEXT and chunks(answer)[-1]["usage"]["stepdown"] == {"resumed_after_tokens": 2}
        rows = {row["id"].partition("/")[2]: row for row in it.calls()}
        assert list(rows) == ["final", "final" + HEDGE, "final" + HEDGE + RESUMED]
        assert [row["outcome"] for row in rows.values()] == ["cancelled", "tier_failed", "answered"]
        assert [row["output_tokens"] for row in rows.values()] == [0, 2, len(ANSWER) - 2]
