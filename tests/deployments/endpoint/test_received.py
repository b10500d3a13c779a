"""What a client received is what it pays for, whenever it leaves and whatever its tier reports."""

import asyncio
import json
import time

import pytest
from live import ladder
from sqlalchemy import select
from starlette.testclient import TestClient

from deployments.endpoint.accounts import Accounts, without_books
from deployments.endpoint.flow_driver import FlowDriver
from deployments.endpoint.ingress import Ingress
from deployments.endpoint.ongoing_request import OngoingRequest
from deployments.endpoint.plain_call import PlainCall
from deployments.endpoint.received import LONG, Received
from deployments.keys import key_store
from deployments.keys.admission import Keys
from deployments.ledger import schema
from deployments.ledger.database import migrate
from deployments.ledger.ledger import Ledger
from deployments.tiers.tier import DONE, Tier, event
from router.choose_flow import one_call
from router.config import Ledger as Settings
from router.costs.prices import prices
from router.engine import Router
from router.limits.key_limits import Key
from router.types import Decision, Request

pytestmark = pytest.mark.slow

CONFIG = ladder(("large",))
WORDS = "one two three four five"
CHAT = {
    "model": "large",
    "stream": True,
    "stream_options": {"include_usage": True},
    "messages": [{"role": "user", "content": "count to five"}],
}


def words(text: str) -> int:
    return len(text.split())


words.exact = True


class Raw(Tier):
    """Sends these events, or this document, as they are."""

    name = "large"

    def __init__(self, *events, document=None) -> None:
        self.events, self.document = events, document

    async def complete(self, path, body, reading=None, call_id=""):
        return json.dumps(self.document).encode()

    async def stream(self, path, body, reading=None, call_id=""):
        for each in self.events:
            yield each


def piece(delta, index=0, finish=None) -> bytes:
    return event({"id": "x", "model": "m", "choices": [{"index": index, "delta": delta, "finish_reason": finish}]})


def spoken(field, text=WORDS) -> list[bytes]:
    return [piece({field: word + " "}) for word in text.split()]


def argument(text) -> dict:
    return {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}


def logged(word) -> bytes:
    told = {"content": [{"token": word, "logprob": -0.1, "top_logprobs": [{"token": "other", "logprob": -2}]}]}
    return event({"choices": [{"index": 0, "delta": {"content": word}, "logprobs": told, "finish_reason": None}]})


STREAMS = {
    "text": spoken("content"),
    "reasoning": spoken("reasoning"),
    "reasoning_content": spoken("reasoning_content"),
    "refusal": spoken("refusal"),
    "arguments": [piece(argument(text)) for text in ('{"a": "', "b ", "c ", "d ", 'e"}')],
    "a tool's name": [piece({"tool_calls": [{"index": 0, "function": {"name": f"n{i} ", "arguments": ""}}]}) for i in range(5)],
    "log-probabilities": [logged(word + " ") for word in WORDS.split()],
    "escaped text": [piece({"content": text}) for text in ('"one" ', "two\n", "dr\u00e9i ", "\U0001f642 ", "\\five")],
    "one large piece": [piece({"content": WORDS})],
    "several events at once": [b"".join(spoken("content"))],
    "texts of a completion": [event({"choices": [{"index": 0, "text": word + " "}]}) for word in WORDS.split()],
}


def ongoing_of(tier, body=CHAT, path="chat/completions", count=words) -> OngoingRequest:
    settings = {t.name: t for t in CONFIG.tiers}
    decided = Decision("large", "asked for", "large")
    costs = {name: prices(t) for name, t in settings.items()}
    return OngoingRequest(without_books(), Key("k", "k"), Request(path, body), decided, settings, costs, {"large": count})


async def plainly(tier, ongoing, events):
    answer = (await PlainCall.of(tier, ongoing)).stream()
    for _ in range(events):
        await anext(answer)
    await answer.aclose()


async def in_a_flow(tier, ongoing, events):
    driver = FlowDriver({"large": tier}, ongoing)
    answer = driver.streamed(await driver.run(one_call("large", ongoing.asked.body, {})))
    for _ in range(events):
        await anext(answer)
    await answer.aclose()


WAYS = {"plain call": plainly, "flow": in_a_flow}
BY_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def left(way, events, read, body=CHAT, count=words):
    """The record of the call of a client that left after so many events."""
    ongoing = ongoing_of(None, body, count=count)

    async def both():
        await way(Raw(*events, piece({}, finish="stop"), DONE), ongoing, read)
        await ongoing.count()

    asyncio.run(both())
    (record,) = ongoing.records.values()
    return record


@BY_WAY
@pytest.mark.parametrize("events", [STREAMS[name] for name in STREAMS if "completion" not in name])
def test_whoever_leaves_before_the_usage_pays_for_what_came(way, events):
    record = left(way, events, len(events) if way is plainly else b"".join(events).count(b"\n\n"))
    assert (record.usage.output_tokens, record.estimated) == (5, True)
    assert record.usage.input_tokens == 3
    assert record.outcome in ("cancelled", "accepted")


def test_a_completion_is_counted_too():
    body = {"model": "large", "stream": True, "prompt": "count to five"}
    ongoing = ongoing_of(None, body, "completions")
    events = STREAMS["texts of a completion"]
    asyncio.run(plainly(Raw(*events, event({"choices": []})), ongoing, 3))
    asyncio.run(ongoing.count())
    assert ongoing.records["final"].usage.output_tokens == 3 and ongoing.records["final"].usage.input_tokens == 3


@BY_WAY
def test_only_what_came_is_paid_for(way):
    assert left(way, STREAMS["text"], 2).usage.output_tokens == 2


def test_each_of_several_answers_is_counted_by_itself():
    """Mixed together their pieces would make other words."""
    pairs = (("o", "t"), ("ne ", "wo "), ("tw", "th"), ("o", "ree"))
    events = [piece({"content": part}, i) for pair in pairs for i, part in enumerate(pair)]
    assert left(plainly, events, 8, {**CHAT, "n": 2}).usage.output_tokens == 4


def test_a_tokenizer_counts_not_the_pieces():
    letters = [piece({"content": letter}) for letter in "unbelievable"]
    assert left(plainly, letters, 12).usage.output_tokens == 1


@BY_WAY
@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0, "completion_tokens": 0}])
def test_a_whole_stream_without_usage_is_counted(way, usage):
    events = [*STREAMS["text"], piece({}, finish="stop"), event({"choices": [], "usage": usage}), DONE]
    ongoing = ongoing_of(None)

    async def all_of_it():
        driver = FlowDriver({"large": Raw(*events)}, ongoing)
        if way is plainly:
            shown = [item async for item in (await PlainCall.of(Raw(*events), ongoing)).stream()]
        else:
            shown = [item async for item in driver.streamed(await driver.run(one_call("large", CHAT, {})))]
        await ongoing.count()
        return shown

    shown = asyncio.run(all_of_it())
    (record,) = ongoing.records.values()
    assert (record.usage.output_tokens, record.estimated) == (5, True)
    assert record.usage.input_tokens == 3
    if way is in_a_flow:
        told = json.loads(shown[-1].removeprefix(b"data: "))["usage"]
        assert told["completion_tokens"] == 5 and told["stepdown"]["calls"][0]["estimated"]


DOCUMENTS = {
    "text": {"content": WORDS},
    "reasoning": {"content": None, "reasoning_content": WORDS},
    "arguments": {"tool_calls": [{"id": "c", "function": {"name": "one", "arguments": '{"a": "b c d "}'}}]},
    "an older call": {"function_call": {"name": "one", "arguments": '{"a": "b c d "}'}},
}


@pytest.mark.parametrize("message", DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_document_without_usage_is_counted(message):
    body = {**CHAT, "stream": False}
    tier = Raw(document={"choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}]})

    async def both_ways():
        found = []
        for flow in (False, True):
            ongoing = ongoing_of(tier, body)
            if flow:
                driver = FlowDriver({"large": tier}, ongoing)
                driver.whole(await driver.run(one_call("large", body, {})))
            else:
                await (await PlainCall.of(tier, ongoing)).complete()
            await ongoing.count()
            found += ongoing.records.values()
        return found

    for record in asyncio.run(both_ways()):
        assert record.estimated and record.usage.output_tokens in (5, 6) and record.usage.input_tokens == 3


def test_a_flow_books_what_it_counted():
    """Else a tier that reports nothing could be asked for ever within a limit."""
    tier = Raw(document={"choices": [{"index": 0, "message": {"content": WORDS}, "finish_reason": "stop"}]})
    ongoing = ongoing_of(tier, {**CHAT, "stream": False})
    seen = []

    def flow():
        step = one_call("large", CHAT, {})
        seen.extend((yield next(step)))
        return step.send(seen) if False else (yield from ended(step, seen))

    def ended(step, replies):
        try:
            yield step.send(replies)
        except StopIteration as done:
            return done.value

    asyncio.run(FlowDriver({"large": tier}, ongoing).run(flow()))
    assert (seen[0].usage.input_tokens, seen[0].usage.output_tokens) == (3, 5)


def test_much_is_counted_beside_the_event_loop(monkeypatch):
    import threading

    where = []

    def slow(text):
        where.append(threading.current_thread() is threading.main_thread())
        return words(text)

    slow.exact = True
    long = [piece({"content": "word " * 1_000})] * (LONG // 5_000 + 1)
    assert left(plainly, long, len(long), count=slow).usage.output_tokens == 5_000
    assert where and not any(where)
    where.clear()
    left(plainly, STREAMS["text"], 5, count=slow)
    assert all(where)


def test_what_is_no_json_is_counted_as_it_is():
    took = Received()
    assert took.event(b'data: {"choices": [{"delta": {"content": "a \\q b"}}]}\n\n') and took.tokens(words) == 3
    assert Received(several=True).event(b'data: {"content": "a b" broken\n\n')
    assert not Received().event(b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n')


def test_text_that_looks_like_an_event_is_text():
    said = '{"content": "x y z", "name": "n"}'
    took = Received()
    took.event(piece({"content": said}))
    assert took.tokens(words) == words(said)


# -- budgets ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def endpoint(tmp_path):
    """(client, ledger, key's id, headers) over a tier that reports no usage."""
    ledger = Ledger(Settings(journal_s=0, url=f"sqlite:///{tmp_path / 'ledger.db'}"))
    migrate(ledger.engine)
    key, secret = key_store.create(ledger.engine, Key("", "team", usd_per_day=1.0), time.time())
    accounts = Accounts(Keys(ledger.engine), ledger, tiers={t.name: t for t in CONFIG.tiers})
    document = {"choices": [{"index": 0, "message": {"content": "word " * 1_000}, "finish_reason": "stop", "text": ""}]}
    tier = Raw(*[piece({"content": "word "}) for _ in range(1_000)], piece({}, finish="stop"), DONE, document=document)
    app = Ingress(Router(CONFIG, None, {"large": words}), {"large": tier}, accounts, 1_000_000).app()
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client, ledger, key.id, {"authorization": f"Bearer {secret}"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_thousand_words_without_usage_cost_a_thousand_tokens(endpoint, stream):
    client, ledger, key, headers = endpoint
    assert client.post("/v1/chat/completions", json={**CHAT, "stream": stream}, headers=headers).status_code == 200
    with ledger.engine.connect() as connection:
        (row,) = connection.execute(select(schema.calls))
    assert (row.output_tokens, row.input_tokens, row.estimated) == (1_000, 3, True)
    assert key_store.spent(ledger.engine, time.time())[key].day == pytest.approx(1_003 * 20e-6)


@pytest.mark.parametrize(
    "path, more",
    [
        ("chat/completions", {"prompt": 5}),
        ("chat/completions", {"prompt": [[True]], "suffix": {}}),
        ("completions", {"prompt": "hi", "tools": 5, "functions": 7, "documents": "x"}),
        ("completions", {"prompt": "hi", "tools": [{"type": "stepdown:delegate"}], "chat_template_kwargs": 3}),
    ],
)
def test_fields_of_the_other_path_are_overlooked(endpoint, path, more):
    client, ledger, _, headers = endpoint
    body = {**({} if path == "completions" else CHAT), "model": "large", "stream": False, **more}
    answer = client.post(f"/v1/{path}", json=body, headers=headers)
    assert answer.status_code == 200
    with ledger.engine.connect() as connection:
        assert len(connection.execute(select(schema.traces)).all()) == 1
