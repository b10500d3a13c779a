"""A slow replica: the same call goes to another one, and both are written down."""

import asyncio
from typing import Any

import pytest
from endpoint import CHAT, endpoint, in_turn, ladder, words
from scripted_tier import Said, ScriptedTier

from deployments.keys import key_store
from deployments.keys.admission import Keys
from deployments.ledger.ledger import Ledger
from deployments.traffic.watched_tier import Watched
from router.config import Ledger as Settings
from router.errors import NoReplica
from router.limits.key_limits import Key
from router.trace import Reading
from router.traffic.breaker import Breaker
from router.traffic.slow_start import Pace

SLOW = Said("slow as snails are", wait_s=20)
STREAMED = pytest.mark.parametrize("stream", [False, True])


@pytest.fixture
def ledger(tmp_path):
    return Ledger(Settings(url=f"sqlite:///{tmp_path / 'ledger.db'}"))


def hedging(after: Any = 0.1, **sections: Any) -> Any:
    config = ladder(replicas=2, **sections)
    return config.model_copy(update={"tiers": [tier.model_copy(update={"hedge_after_s": after}) for tier in config.tiers]})


@pytest.mark.slow
@STREAMED
def test_a_sibling_answers_for_a_slow_replica_and_both_calls_are_written_down(ledger, stream):
    with endpoint(hedging(), ledger, large=in_turn(SLOW, words(None))) as it:
        answer = it.ask(stream=stream)
        assert answer.status_code == 200 and "seven" in answer.text and "slow" not in answer.text
        assert (len(it.tiers["large"].bodies), it.tiers["large"].given_up) == (2, 1)
        (trace,) = it.rows()
        calls = sorted(it.calls(), key=lambda call: len(call["id"]))
        assert [call["id"] for call in calls] == [f"{trace['id']}/final", f"{trace['id']}/final-hedge"]
        assert [(c["outcome"], c["input_tokens"], c["output_tokens"], bool(c["estimated"])) for c in calls] == [
            ("cancelled", 3, 0, True),
            ("answered", 3, 4, False),
        ]
        assert trace["cost_usd"] == pytest.approx(20e-6 * (3 + 7)) == sum(call["cost_usd"] for call in calls)
        assert calls[1]["began_s"] > calls[0]["began_s"] and min(call["took_s"] for call in calls) >= 0


@pytest.mark.slow
@STREAMED
def test_a_first_that_answers_after_all_stops_the_second(ledger, stream):
    with endpoint(hedging(), ledger, large=in_turn(Said("late but fine", wait_s=0.4), SLOW)) as it:
        answer = it.ask(stream=stream)
        assert "fine" in answer.text and "snails" not in answer.text
        calls = {call["id"].partition("/")[2]: call for call in it.calls()}
        assert {name: call["outcome"] for name, call in calls.items()} == {"final": "answered", "final-hedge": "cancelled"}
        assert it.tiers["large"].given_up == 1


@pytest.mark.slow
def test_where_both_fail_the_next_tier_answers(ledger):
    died = Said(error=NoReplica("large", "its replica failed"), wait_s=0.3)
    with endpoint(hedging(), ledger, large=lambda body: died) as it:
        answer = it.ask()
        assert answer.headers["x-stepdown-tier"] == "small" and "seven" in answer.text
        assert len(it.tiers["large"].bodies) == 2 and len(it.calls()) == 3


@pytest.mark.slow
def test_a_quick_answer_is_not_sent_twice(ledger):
    with endpoint(hedging(5.0), ledger) as it:
        it.ask()
        assert len(it.tiers["large"].bodies) == len(it.calls()) == 1


@pytest.mark.slow
def test_where_nothing_is_configured_a_slow_one_is_waited_for(ledger):
    with endpoint(ladder(replicas=2), ledger, large=in_turn(Said("late", wait_s=0.3), words(None))) as it:
        assert "late" in it.ask().text


@pytest.mark.slow
def test_no_more_are_sent_twice_than_the_budget_of_tries_allows(ledger):
    with endpoint(hedging(0.01), ledger, large=lambda body: Said("late", wait_s=0.1)) as it:
        for _ in range(20):
            assert it.ask().status_code == 200
        assert len(it.tiers["large"].bodies) <= 20 + 10 + 2
        assert len(it.calls()) == len(it.tiers["large"].bodies)


@pytest.mark.slow
@pytest.mark.parametrize(("calls", "status"), [(1.5, 429), (2.5, 200)])
def test_a_hedge_cannot_overspend_a_budget(ledger, calls, status):
    """calls: what the budget of the day would pay, of a call that is sent once and has a prompt of 1,000 tokens."""
    body = {"messages": [{"role": "user", "content": "word " * 1_000}], "max_tokens": 4}
    with endpoint(hedging(), ledger, Keys(ledger.engine), large=in_turn(SLOW, words(None))) as it:
        usd = calls * 20e-6 * 1_004
        key, secret = key_store.create(ledger.engine, Key("", "bob", usd_per_day=usd), 0.0)
        it.client.headers["authorization"] = f"Bearer {secret}"
        assert it.ask(**body).status_code == status
        spent = sum(call["cost_usd"] for call in it.calls())
        assert len(it.calls()) == (2 if status == 200 else 0) and spent <= usd


@STREAMED
def test_a_client_that_leaves_stops_both(stream):
    tier = ScriptedTier("large", lambda body: SLOW)
    watched = Watched(tier, Breaker(lambda: 0.0, lambda: 0.0), replicas=2, slow=0.01)

    async def ask() -> None:
        if stream:
            await anext(watched.stream("chat/completions", CHAT, Reading(), "t/final"))
        else:
            await watched.complete("chat/completions", CHAT, Reading(), "t/final")

    async def left() -> None:
        task = asyncio.create_task(ask())
        while tier.running < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(left())
    assert (tier.given_up, tier.running, watched.running, watched.waiting) == (2, 0, 0, 0)


def test_the_pace_of_a_tier_is_known_from_twenty_calls_on():
    pace = Pace("p95")
    for n in range(1, 20):
        pace.took(n)
    assert pace.slow_s is None
    pace.took(20)
    assert pace.slow_s == 19
    assert Pace(0.5).slow_s == 0.5 and Pace().slow_s is None
