"""Whichever of two ingresses a request reaches, its answer is the one that a single ingress would give."""

import asyncio
import json

import httpx
import pytest
from scripted_tier import Said
from two_ingresses import Two, chat, four

from deployments.endpoint.accounts import Accounts
from deployments.endpoint.ingresses import news
from deployments.keys import key_store
from deployments.keys.admission import Keys
from deployments.ledger.ledger import Ledger
from deployments.replicas.shared_homes import HOMES
from router.config import Ledger as Settings
from router.engine import Router
from router.errors import TierBusy
from router.limits.key_limits import Key
from router.traffic.affinity import Affinity, hint_of

pytestmark = pytest.mark.anyio  # async tests run on asyncio
TOLD_S = 3 * news.EVERY_S  # after which an ingress has told what it knows


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def tier_of(client: httpx.AsyncClient, body, **headers) -> str:
    answer = await client.post("/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-stepdown-tier"]


# -- conversations -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_conversation_keeps_its_tier_wherever_it_goes_on():
    two = Two(four)
    two.routers[0].wish, two.routers[1].wish = "medium", "small"
    async with two.served() as (first, second):
        assert await tier_of(first, chat("2 + 2?")) == "medium"
        await asyncio.sleep(TOLD_S)
        assert await tier_of(second, chat("2 + 2?", "four", "sure?")) == "medium"
        assert await tier_of(second, chat("who are you?", "me", "sure?")) == "small", "another conversation"
        named = {"x-session-id": "mine"}
        assert await tier_of(first, chat("hello"), **named) == "medium"
        await asyncio.sleep(TOLD_S)
        assert await tier_of(second, chat("something else"), **named) == "medium"


@pytest.mark.slow
async def test_the_latest_tier_of_a_conversation_counts_not_the_one_that_this_ingress_saw():
    two = Two(four)
    two.routers[0].wish = "medium"
    async with two.served() as (first, second):
        await tier_of(first, chat("2 + 2?"))
        await asyncio.sleep(TOLD_S)
        await tier_of(second, chat("2 + 2?", "four", "sure?", model="large"))  # asked for by name: its tier from now on
        await asyncio.sleep(TOLD_S)
        assert await tier_of(first, chat("2 + 2?", "four", "sure?", "yes", "really?")) == "large"


@pytest.mark.slow
async def test_what_begins_a_conversation_waits_for_no_news(monkeypatch):
    two, waited = Two(four), []
    async with two.served() as (first, second):
        for ingress in two.ingresses:
            fresh = ingress.news.fresh
            monkeypatch.setattr(ingress.news, "fresh", lambda fresh=fresh: waited.append(1) or fresh())
        await asyncio.gather(*(tier_of(first, chat(f"{n} + 2?")) for n in range(20)))
        assert not waited
        await asyncio.gather(*(tier_of(second, chat(f"{n} + 2?", "four", "sure?")) for n in range(20)))
        assert len(waited) == 20 and set(two.reached.asked) == {"visit"}


@pytest.mark.slow
async def test_while_the_exchange_is_away_each_goes_on_by_itself_and_tells_later():
    two = Two(four)
    two.routers[0].wish = "medium"
    async with two.served() as (first, second):
        two.reached.away = True
        assert await tier_of(first, chat("2 + 2?")) == "medium"
        assert await tier_of(first, chat("2 + 2?", "four", "sure?")) == "medium"
        assert await tier_of(second, chat("2 + 2?", "four", "sure?")) == "small"
        two.reached.away = False
        two.ingresses[1].answering.sessions.known.clear()
        for ingress in two.ingresses:
            ingress.news.failed_s = float("-inf")
        await asyncio.sleep(TOLD_S)
        assert await tier_of(second, chat("2 + 2?", "four", "sure?")) in ("medium", "small"), "the last to tell has the last word"


# -- hidden turns --------------------------------------------------------------------------------------------------------

PLAN = {"plan": [{"prompt": "count the cats"}, {"prompt": "count the dogs"}]}
DELEGATE = {"type": "stepdown:delegate"}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def called(name: str, arguments: object, id: str) -> dict:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def delegating(body) -> Said:
    """The large tier delegates, then calls the client's tool, then says how many hidden messages it sees."""
    messages = body["messages"]
    if not any(m["role"] == "user" and "cats and dogs" in str(m["content"]) for m in messages):
        return Said(f"done: {messages[-1]['content']}")
    hidden = sum("stepdown_delegate" in str(m.get("tool_calls")) for m in messages)
    results = [m for m in messages if m["role"] == "tool"]
    if not hidden and not results:
        return Said(finish="tool_calls", tool_calls=[called("stepdown_delegate", PLAN, "d")])
    if len(results) < 2:
        return Said(finish="tool_calls", tool_calls=[called("weather", {}, "w")])
    return Said(f"hidden calls seen: {hidden}")


async def came_back(two: Two, stream: bool) -> str:
    """What is said to a client that comes back to the other ingress at once."""
    tools = [DELEGATE, WEATHER]
    question = {"role": "user", "content": "how many cats and dogs are there"}
    body = {"model": "large", "messages": [question], "tools": tools}
    async with two.served() as (first, second):
        if stream:
            raw = (await first.post("/chat/completions", json=body | {"stream": True})).text
            events = [json.loads(line[6:]) for line in raw.split("\n") if line.startswith("data: {")]
            calls = [c for e in events for choice in e["choices"] for c in choice["delta"].get("tool_calls") or []]
            message = {"role": "assistant", "content": None, "tool_calls": [{k: v for k, v in calls[0].items() if k != "index"}]}
        else:
            message = (await first.post("/chat/completions", json=body)).json()["choices"][0]["message"]
        result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "rain"}
        again = await second.post("/chat/completions", json=body | {"messages": [question, message, result]})
        assert again.status_code == 200, again.text
        return again.json()["choices"][0]["message"]["content"]


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
async def test_a_hidden_turn_is_found_by_the_other_ingress_at_once(stream):
    tool_mode = {"mode": "tool", "max_cost_ratio": 50.0}
    two = Two(delegating, kind=Router, delegation=tool_mode)
    assert await came_back(two, stream) == "hidden calls seen: 1"


@pytest.mark.slow
async def test_without_the_exchange_the_request_goes_on_without_its_hidden_turn():
    two = Two(delegating, kind=Router, delegation={"mode": "tool", "max_cost_ratio": 50.0})
    two.reached.away = True
    assert await came_back(two, False) != "hidden calls seen: 1"


# -- answers to be continued -----------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_an_answer_in_memory_is_continued_and_deleted_by_the_other_ingress():
    two = Two(lambda body: Said(f"messages: {len(body['messages'])}"), responses={"store": "memory"})
    async with two.served() as (first, second):
        made = (await first.post("/responses", json={"model": "small", "input": "2 + 2?"})).json()
        on = await second.post("/responses", json={"model": "small", "input": "sure?", "previous_response_id": made["id"]})
        assert on.status_code == 200 and on.json()["output"][-1]["content"][0]["text"] == "messages: 3"
        assert (await second.get(f"/responses/{made['id']}")).status_code == 200
        assert (await second.delete(f"/responses/{made['id']}")).json()["deleted"]
        assert (await first.get(f"/responses/{made['id']}")).status_code == 404


# -- keys: limits and budgets ------------------------------------------------------------------------------------------------


def books_of(tmp_path, **limits) -> tuple[list[Accounts], str]:
    """Accounts of two ingresses over one ledger, and a key with these limits."""
    made, key = [], ""
    for _ in range(2):
        ledger = Ledger(Settings(journal_s=0, url=f"sqlite:///{tmp_path / 'ledger.db'}"))
        ledger.store.start()
        key = key or key_store.create(ledger.engine, Key("", "bob", **limits), 0.0)[1]
        made.append(Accounts(Keys(ledger.engine, replicas=2), ledger))
    return made, key


async def statuses(clients, key: str, requests: int, at_once: bool = False) -> list[int]:
    headers = {"authorization": f"Bearer {key}"}

    async def one(n: int) -> int:
        return (
            await clients[n % len(clients)].post("/chat/completions", json=chat("hi", max_tokens=2), headers=headers)
        ).status_code

    if at_once:
        return list(await asyncio.gather(*map(one, range(requests))))
    return [await one(n) for n in range(requests)]


@pytest.mark.slow
async def test_requests_a_minute_are_counted_once_and_wherever_they_come(tmp_path):
    accounts, key = books_of(tmp_path, requests_per_minute=10)
    async with Two(four, accounts).served() as (first, second):
        assert await statuses([first], key, 7) == [200] * 7, "more than half of the limit, all through one ingress"
        assert sorted(await statuses([first, second], key, 8, at_once=True)) == [200] * 3 + [429] * 5
        assert await statuses([first, second], key, 2) == [429] * 2


@pytest.mark.slow
async def test_while_the_exchange_is_away_each_ingress_grants_its_share(tmp_path):
    accounts, key = books_of(tmp_path, requests_per_minute=4)
    two = Two(four, accounts)
    two.reached.away = True
    async with two.served() as (first, second):
        assert await statuses([first], key, 3) == [200, 200, 429]
        assert await statuses([second], key, 3) == [200, 200, 429]


@pytest.mark.slow
async def test_tokens_a_minute_are_corrected_when_the_request_is_over(tmp_path):
    accounts, key = books_of(tmp_path, tokens_per_minute=300)
    two = Two(four, accounts)
    async with two.served() as clients:
        assert set(await statuses(clients, key, 20)) == {200}, "each sets aside what it may use, and uses little"
        used = next(iter(two.exchange.rates.tokens.values()))
        assert used.used(two.exchange.clock()) < 200


@pytest.mark.slow
async def test_a_budget_holds_over_both(tmp_path):
    accounts, key = books_of(tmp_path, usd_per_day=0.0001)
    async with Two(four, accounts).served() as clients:
        found = await statuses(clients, key, 30, at_once=True)
        assert {200, 429} <= set(found) <= {200, 429, 503}  # 503: on a crowded machine the file may be locked for too long
        with accounts[0].ledger.engine.connect() as connection:
            spent, held = connection.exec_driver_sql("select sum(spent_usd), sum(reserved_usd) from budgets").one()
        assert 0 < spent + held <= 0.0001 * 2 + 1e-9  # of its day and of its month, where both have a row


# -- tiers -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_tier_that_asks_to_be_left_alone_is_left_alone_by_both():
    def busy(body):
        return Said(error=TierBusy("small", "it is full", told_s=30))

    two = Two(busy)
    async with two.served() as (first, second):
        assert (await first.post("/chat/completions", json=chat("hi", model="small"))).status_code in (429, 503)
        await asyncio.sleep(TOLD_S)
        await second.post("/chat/completions", json=chat("a", "b", "c", model="medium"))  # hears of it
        before = len(two.tiers[1]["small"].bodies)
        assert (await second.post("/chat/completions", json=chat("hi", model="small"))).status_code in (429, 503)
        assert len(two.tiers[1]["small"].bodies) == before


@pytest.mark.slow
async def test_a_home_that_cannot_be_computed_is_told():
    """One process has one choice of replicas, so the second is played by hand."""
    two = Two(four)
    replicas, here, there = ["r1", "r2", "r3", "r4"], Affinity(), Affinity()
    HOMES.know("tier-small", here, here.remember)
    async with two.served():
        hint = hint_of(chat("hello"), "", "prefix")
        usual = here.preferred(hint, replicas, lambda name: 0.0)[0]
        here.answered(hint, usual)
        other = next(name for name in replicas if name != usual)
        two.ingresses[0].answering.meet(two.ingresses[0].meeting, two.ingresses[0].news)  # of all it is the last to meet
        here.answered(hint, other)
        HOMES.know("tier-small", there, there.remember)
        await asyncio.sleep(TOLD_S)
        await two.ingresses[1].news.visited()
        assert there.preferred(hint, replicas, lambda name: 0.0)[0] == other
    HOMES.remember.clear()
    HOMES.tell = None


@pytest.mark.slow
async def test_an_asked_reload_reaches_the_other():
    two = Two(four, server={"replicas": 2, "reload": "asked"})
    reloaded = []

    class Reloads:
        last: dict = {}

        def __init__(self, name):
            self.name, self.file = name, ""

        async def from_file(self):
            reloaded.append(self.name)
            return {}

        tried = from_file

        async def close(self):
            return None

    two.ingresses[0].reloader, two.ingresses[1].reloader = Reloads("first"), Reloads("second")
    async with two.served() as (first, second):
        assert (await first.post("/admin/reload")).status_code == 200
        await asyncio.sleep(TOLD_S)
        await two.ingresses[1].news.visited()
        await asyncio.sleep(0.05)
    assert reloaded == ["first", "second"]
