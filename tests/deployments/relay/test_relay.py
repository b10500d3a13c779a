"""The short way beside the long one, without a socket: whatever comes, in whatever reads, leads to the same bytes and figures."""

import asyncio
import gzip
import random
import re
from contextlib import aclosing

import pytest
from raw_upstream import END, HEAD, chunked, event, upstream
from recorded_streams import cut, grouped, stream

from deployments.endpoint.received import TEXT, Received
from deployments.relay.client_socket import SWITCH
from deployments.relay.http_client import Client, Connection
from deployments.relay.relay import Relay, length
from deployments.tiers.remote_tier import RemoteTier
from deployments.tiers.tier_answer import TierAnswers
from router import config
from router.errors import RequestFailed
from router.trace import Reading

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
CHAT = {"messages": [{"role": "user", "content": "one"}], "stream": True}
ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
COMMENT = re.compile(rb"(?:: waiting\n\n)+")


class Wire(asyncio.Transport):
    """Nobody's connection."""

    def __init__(self, protocol) -> None:
        self.protocol, self.closed, self.paused = protocol, False, False

    def is_closing(self) -> bool:
        return self.closed

    def writelines(self, parts) -> None:
        pass

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            self.protocol.connection_lost(None)


class Played:
    """One stream through a remote tier. out: what the client got; relayed: events that went the short way."""

    def __init__(self, short: bool) -> None:
        self.short = short
        self.out, self.received, self.reading = bytearray(), Received(), Reading()
        self.relay = Relay(TEXT, self.received.raw)
        self.error = ""
        self.reads = True
        """the client does"""
        tier = config.RemoteTier(
            name="large", engine="remote", context=1000, price=PRICE, url="http://127.0.0.1:9", model="theirs"
        )
        self.tier, self.answers = RemoteTier(tier), TierAnswers("large", 1000, idle_s=60.0)

    async def play(self, reads: list[bytes]) -> "Played":
        client = self.tier.small_client() or Client(self.tier.base, {})
        connection = Connection(client)
        connection.connection_made(Wire(connection))

        async def given():
            return connection

        client.connection = given
        self.reading.relay = self.relay if self.short else None
        listening = asyncio.create_task(self.listen())
        await settled(connection, listening)
        for read in [HEAD, *reads]:
            if listening.done() or connection.transport.is_closing():
                break
            connection.data_received(read)
            await settled(connection, listening)
        connection.transport.abort()
        await listening
        return self

    async def listen(self) -> None:
        events = self.tier.stream("chat/completions", CHAT, self.reading, "")
        try:
            async with aclosing(self.answers.stream(events, "chat/completions", CHAT, self.reading)) as items:
                async for item in items:
                    self.received.event(item)
                    self.out += item
                    self.relay.write = self.write
        except RequestFailed as error:
            self.error = str(error)

    def write(self, events: bytes) -> bool:
        if self.reads:
            self.out += events
        return self.reads


async def settled(connection: Connection, task) -> None:
    """Until whoever reads waits again."""
    for _ in range(100):
        await asyncio.sleep(0)
        answer = connection.answer
        if task.done() or (answer and answer.waiter and not answer.waiter.done() and not answer.parts):
            return


def play(reads: list[bytes], short: bool = True) -> Played:
    async def played() -> Played:
        return await Played(short).play(reads)

    return asyncio.run(played())


def split(events: list[bytes], rng: random.Random) -> list[bytes]:
    """The reads in which a body comes: by events, by chunks, or by chance."""
    parts = rng.choice([lambda: grouped(events, rng), lambda: cut(b"".join(events), rng, rng.choice([40, 200, 1_000]))])()
    whole = [*map(chunked, parts), END]
    return whole if rng.random() < 0.6 else cut(b"".join(whole), rng, rng.choice([7, 60, 400]))


@pytest.mark.slow
def test_a_corpus_in_random_splits_comes_out_byte_for_byte_as_on_the_long_way():
    relayed = 0
    for seed in range(150):
        rng = random.Random(seed)
        reads = split(stream(rng), rng)
        short, long = play(reads), play(reads, short=False)
        assert bytes(short.out) == bytes(long.out), seed
        assert short.error == long.error, seed
        assert b"".join(short.received.raw) == b"".join(long.received.raw), seed
        relayed += short.relay.relayed
    assert relayed > 100


@pytest.mark.slow
def test_splits_change_nothing_but_comments():
    for seed in range(60):
        rng = random.Random(seed)
        events = stream(rng)
        whole = play([chunked(b"".join(events)), END], short=False)
        played = play(split(events, rng))
        assert COMMENT.sub(b"", played.out) == COMMENT.sub(b"", whole.out), seed
        assert (played.error, played.received.raw) == (whole.error, whole.received.raw), seed


def test_one_that_nobody_offers_anything_learns_nothing():
    relay = Relay(TEXT, [])
    relay.learn(event("word")[:-2], {"choices": [{"index": 0, "delta": {"content": "word"}, "finish_reason": None}]})
    assert relay.head == b""


def settings_of(url: str) -> config.RemoteTier:
    return config.RemoteTier(name="large", engine="remote", context=1000, price=PRICE, url=url, model="theirs")


@pytest.mark.parametrize(
    "url, variables, small",
    [
        ("http://127.0.0.1:9/v1", {}, True),
        ("https://127.0.0.1:9/v1", {}, False),
        ("http://user:word@127.0.0.1:9/v1", {}, False),
        ("http://upstream:9/v1", {"http_proxy": "http://127.0.0.1:8"}, False),
        ("http://upstream:9/v1", {"http_proxy": "http://127.0.0.1:8", "no_proxy": "upstream"}, True),
        ("http://127.0.0.1:9/v1", {SWITCH: "off"}, False),
    ],
)
def test_only_plain_http_has_the_small_client(monkeypatch, url, variables, small):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    async def made():
        tier = RemoteTier(settings_of(url))
        client = tier.small_client()
        assert tier.small_client() is client
        await tier.close()
        return client is not None

    assert asyncio.run(made()) == small


def test_an_upstream_that_packs_its_answers_is_asked_by_aiohttp():
    packed = gzip.compress(b'{"model":"theirs"}')
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)

    async def asked(url):
        tier = RemoteTier(settings_of(url))
        answers = [await tier.complete("chat/completions", CHAT) for _ in range(2)]
        await tier.close()
        return answers

    with upstream() as raw:
        raw.script = [head + packed]
        assert asyncio.run(asked(raw.url)) == [b'{"model":"large"}'] * 2
        assert [b"identity" in request for request in raw.asked] == [True, False, False]


def usual(count: int) -> list[bytes]:
    return [chunked(event(f"word{i} ")) for i in range(count)]


def test_all_but_the_first_events_go_the_short_way():
    played = play([*usual(20), chunked(event(finish="stop")), chunked(b"data: [DONE]\n\n"), END])
    assert played.relay.relayed == 18 and played.error == ""  # the first is awaited, the second shows what is usual
    assert played.out.count(b'"model":"large"') == 21 and b"theirs" not in played.out
    assert b"".join(played.received.raw) == b"".join(b"word%d " % i for i in range(20))


def test_several_events_of_a_read_go_together():
    several = chunked(event("a") + event("b") + event("c"))
    assert play([*usual(2), several, several, END]).relay.relayed == 6


@pytest.mark.parametrize("field", [{"usage": None}, {"system_fingerprint": 'a "usage"'}, {"error": None}])
def test_what_each_event_has_keeps_none_from_the_short_way(field):
    played = play([chunked(event(f"word{i}", **field)) for i in range(10)] + [END])
    assert played.relay.relayed == 8


def test_a_usage_in_each_event_is_read_each_time():
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    assert play([chunked(event(f"word{i}", usage=usage)) for i in range(10)] + [END]).relay.relayed == 0


def test_a_field_that_changes_goes_the_long_way_once():
    events = [event(f"word{i}", created=1 if i < 5 else 2) for i in range(10)]
    assert play([*map(chunked, events), END]).relay.relayed == 3 + 4


def test_while_the_client_does_not_read_everything_goes_the_long_way():
    async def played() -> Played:
        made = Played(True)
        made.reads = False
        return await made.play([*usual(10), END])

    made = asyncio.run(played())
    assert made.relay.relayed == 0 and made.out.count(b"word") == 10


def test_the_limit_of_a_stream_holds_on_the_short_way():
    block = chunked(event("x" * 20_000) * 3)
    played = play([*usual(2), *[block] * 200, END])
    assert played.relay.relayed > 10 and "bytes" in played.error
    assert len(played.out) < played.answers.context * 2_000 + 2_000_000


def test_a_bit_more_than_the_usual_is_no_usual_event():
    relay = Relay(TEXT, [])
    relay.offered = True
    written = []
    relay.write = lambda events: not written.append(events)

    class Call:
        size = chars = 0
        most = type("Most", (), {"stream_bytes": 10_000})

    relay.follow(Call(), lambda: None)
    known = event("word")[:-2]
    relay.learn(known, {"choices": [{"index": 0, "delta": {"content": "word"}, "finish_reason": None}]})
    assert relay.take(event("other"))
    for text in (b'a","b":"c', b'a"},"finish_reason":"stop', b"\\", b"\x01", b"\\ud800", b"\xff", b"", b'"'):
        assert not relay.take(known.replace(b"word", text) + b"\n\n"), text
    for odd in (b"", b"\n\n", known, known + b"\n", known + b"\n\n: comment\n\n", b"data: [DONE]\n\n", known[:-1] + b" }\n\n"):
        assert not relay.take(odd), odd
    assert written == [event("other")] and relay.call.chars == 5
    relay.stop()
    assert not relay.take(event("other"))


@pytest.mark.parametrize(
    "escaped, size",
    [(b"word", 4), ("é😀".encode(), 2), (rb"\u00e9", 1), (rb"a\nb", 3), (rb"\ud83d\ude00", -1), (b"\xff", -1), (b"\n", -1)],
)
def test_a_text_is_as_long_as_its_characters(escaped, size):
    assert length(escaped) == size
