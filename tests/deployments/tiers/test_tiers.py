"""One contract for every engine: the echo tier, a remote tier in front of it, and the handle end of a Serve tier."""

import asyncio
import json
import random
import time
import uuid

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata
from live import stage
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from yarl import URL

from deployments.replicas.meter import ReplicaMeter
from deployments.replicas.replica_count import ReplicaCounts, running_replicas
from deployments.tiers.echo_tier import EchoTier
from deployments.tiers.event_stream import EventBuffer
from deployments.tiers.remote_tier import RemoteTier
from deployments.tiers.serve_tier import CallPolicy, ServeTier
from deployments.tiers.tier import DONE
from deployments.tiers.upstream import proxy_for
from deployments.traffic.watched_tier import Watched
from router import config
from router.errors import NoReplica, TierFailed
from router.trace import Reading
from router.traffic.breaker import Breaker

PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
BODY = {"model": "it", "messages": [{"role": "user", "content": "one two"}]}
STREAM = {**BODY, "stream": True, "stream_options": {"include_usage": True}}


def echo(**changes) -> EchoTier:
    return EchoTier(config.EchoTier(name="it", engine="echo", context=100, price=PRICE, **changes))


def remote(cached: int = 0, **changes) -> RemoteTier:
    """A remote tier whose upstream is an echo tier under another name, over a real connection."""
    upstream = echo(**changes)
    if cached:
        usage = upstream.usage
        upstream.usage = lambda *of: usage(*of) | {"prompt_tokens_details": {"cached_tokens": cached}}
    upstream.name = "their/model"

    async def answer(request: Request) -> Response:
        body, path = json.loads(await request.body()), request.url.path.removeprefix("/v1/")
        assert body["model"] == "their/model"
        try:
            if body.get("stream"):
                return Response(b"".join([e async for e in upstream.stream(path, body)]), media_type="text/event-stream")
            return Response(await upstream.complete(path, body), media_type="application/json")
        except TierFailed as error:
            return JSONResponse(error.body(), error.status)

    return RemoteTier(settings_of(f"{staged(answer)}/v1"))


def staged(answer) -> str:
    """The address of a server that answers every POST so."""
    name = uuid.uuid4().hex
    stage().apps[name] = Starlette(routes=[Route("/{rest:path}", answer, methods=["POST"])])
    return f"http://127.0.0.1:{stage().port}/{name}"


def settings_of(url: str) -> config.RemoteTier:
    return config.RemoteTier(name="it", engine="remote", context=100, price=PRICE, url=url, model="their/model")


class Items:
    """What a streaming Serve handle gives back: an asynchronous iterator that can be cancelled."""

    def __init__(self, source) -> None:
        self.source, self.cancelled = source, False

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await self.source.__anext__()

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """A Serve handle onto PlainServer.openai's protocol: a real meter, with an echo tier for an engine."""

    def __init__(self, tier: EchoTier) -> None:
        self.tier, self.meter = tier, ReplicaMeter("r1")

    def options(self, **_):
        return self

    def remote(self, path, raw, call_id="", missed=()):
        self.items = Items(self.openai(path, raw, call_id, missed))
        return self.items

    async def openai(self, path, raw, call_id, missed):
        metered, body = self.meter.start(call_id, raw, missed), json.loads(raw)
        try:
            if body.get("stream"):
                async for item in self.tier.stream(path, body):
                    metered.item(item.decode())
                    yield 200, item.decode(), metered.last() if item == DONE else ""
            else:
                answer = (await self.tier.complete(path, body)).decode()
                yield 200, answer, metered.last(json.loads(answer)["usage"])
        except TierFailed as error:
            yield error.status, json.dumps(error.body()), metered.last()
        except GeneratorExit:
            metered.cut_off()
            raise


def served(running: int = 1, late=None, **changes) -> ServeTier:
    async def replicas() -> int:
        return running

    return ServeTier("it", Handle(echo(**changes)), replicas, CallPolicy(5.0), late)


ENGINES = {"echo": echo, "remote": remote, "vllm": served}


@pytest.fixture(params=ENGINES)
def make(request):
    return ENGINES[request.param]


async def collected(tier, body=STREAM) -> list[bytes]:
    """Its events: an item holds one or more, each whole."""
    items = [item async for item in tier.stream("chat/completions", body)]
    assert all(item.endswith(b"\n\n") for item in items)
    return [event + b"\n\n" for item in items for event in item[:-2].split(b"\n\n")]


def test_completes_with_its_own_name_and_usage(make):
    answer = json.loads(asyncio.run(make().complete("chat/completions", BODY)))
    assert answer["model"] == "it"
    assert answer["choices"][0]["message"]["content"] == "one two"
    assert answer["usage"]["completion_tokens"] == 2


def test_streams_whole_events_that_end_in_usage_and_done(make):
    got = asyncio.run(collected(make()))
    assert got[-1] == DONE
    parsed = [json.loads(item.removeprefix(b"data: ")) for item in got[:-1]]
    assert [p["model"] for p in parsed] == ["it"] * 3
    assert parsed[-1]["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize("fail, status", [("error", 502), ("refuse", 400)])
@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_before_the_first_token_is_raised_with_its_status(make, fail, status, stream):
    tier = make(fail=fail)
    with pytest.raises(TierFailed) as raised:
        asyncio.run(collected(tier) if stream else tier.complete("chat/completions", BODY))
    assert raised.value.status == status


def test_no_running_replica_is_a_503_with_retry_after(monkeypatch):
    monkeypatch.setattr("deployments.tiers.serve_tier.LOOK_EVERY_S", 0.01)
    tier = served(running=0, delay_s=60)
    with pytest.raises(NoReplica, match="no replica is running") as raised:
        asyncio.run(tier.complete("chat/completions", BODY))
    assert raised.value.status == 503 and raised.value.retry_after_s
    assert tier.handle.items.cancelled


def test_a_client_that_goes_away_cancels_the_work():
    tier = served()

    async def leave_early():
        stream = tier.stream("chat/completions", STREAM)
        await anext(stream)
        await stream.aclose()

    asyncio.run(leave_early())
    assert tier.handle.items.cancelled


@pytest.mark.parametrize("stream", [False, True])
def test_a_reading_is_filled_when_the_answer_ends(stream):
    tier, reading = served(delay_s=0.01), Reading()

    async def ask():
        if stream:
            async for _ in tier.stream("chat/completions", STREAM, reading, "t/1"):
                assert reading.busy_s is None or _ == DONE
        else:
            await tier.complete("chat/completions", BODY, reading, "t/1")

    asyncio.run(ask())
    assert reading.replica == "r1"
    assert 0 < reading.busy_s == tier.handle.meter.meter.busy_s


def test_a_call_that_fails_has_a_reading_too():
    tier, reading = served(delay_s=0.01, fail="error"), Reading()
    with pytest.raises(TierFailed):
        asyncio.run(tier.complete("chat/completions", BODY, reading))
    assert reading.busy_s > 0


def test_the_measurement_of_a_cancelled_call_comes_with_a_later_one():
    late: dict[str, float] = {}
    tier = served(late=late.update, delay_s=0.01)

    async def leave_then_ask():
        stream = tier.stream("chat/completions", STREAM, Reading(), "t/left")
        await anext(stream)
        await tier.handle.items.source.aclose()
        assert not late
        await tier.complete("chat/completions", BODY, reading, "t/next")

    reading = Reading()
    asyncio.run(leave_then_ask())
    assert list(late) == ["t/left"] and late["t/left"] > 0
    assert late["t/left"] + reading.busy_s == pytest.approx(tier.handle.meter.meter.busy_s)


def test_a_reading_that_went_out_to_a_client_that_had_left_is_asked_for_again():
    """The replica was done before it heard that nobody listens: seen live with answers of four tokens."""
    late: dict[str, float] = {}
    tier = served(late=late.update)

    async def leave_then_ask():
        stream = tier.stream("chat/completions", STREAM, Reading(), "t/left")
        await anext(stream)
        items = tier.handle.items
        async for _ in items.source:  # all of it is on its way
            pass
        await stream.aclose()
        await tier.complete("chat/completions", BODY, reading, "t/next")

    reading = Reading()
    asyncio.run(leave_then_ask())
    assert list(late) == ["t/left"] and not tier.missed
    assert late["t/left"] + reading.busy_s == pytest.approx(tier.handle.meter.meter.busy_s)


def test_a_reading_that_no_replica_knows_is_not_asked_for_for_ever():
    tier = served()
    tier.missed["t/gone"] = 0

    async def ask():
        for _ in range(30):
            await tier.complete("chat/completions", BODY)

    asyncio.run(ask())
    assert not tier.missed


@pytest.mark.parametrize("spared", ["", "near.example", "far.example", "far.example:8000"])
def test_the_proxy_of_the_environment_is_used_where_it_is_meant(monkeypatch, tmp_path, spared):
    (tmp_path / "netrc").write_text("machine far.example login me password secret")
    heads = []

    async def proxy(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    async def run():
        async with await asyncio.start_server(proxy, "127.0.0.1", 0) as server:
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            monkeypatch.setenv("no_proxy", spared)
            monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
            tier = RemoteTier(settings_of("http://far.example:8000/v1"))
            try:
                return await tier.complete("chat/completions", BODY)
            finally:
                await tier.close()

    if spared.startswith("far"):
        with pytest.raises(NoReplica):
            asyncio.run(run())
        assert not heads
    else:
        assert asyncio.run(run()) == b"{}"
        assert heads[0].startswith(b"POST http://far.example:8000/v1/chat/completions ") and b"uthorization" not in heads[0]


def test_variables_whose_names_only_end_like_a_proxys_name_none(monkeypatch):
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    assert proxy_for(URL("http://far.example/v1")) is None and proxy_for(URL("https://far.example/v1")) is None


def test_a_remote_tier_tells_what_its_upstream_says_of_the_cache():
    tier, reading = Watched(remote(cached=1), Breaker(time.monotonic, random.random)), Reading()

    async def stream():
        async for _ in tier.stream("chat/completions", STREAM, reading):
            pass

    asyncio.run(tier.complete("chat/completions", BODY, reading))
    assert (reading.cached_tokens, reading.busy_s) == (1, None)
    reading.cached_tokens = 0
    asyncio.run(stream())
    assert reading.cached_tokens == 1


def test_an_upstream_nobody_reaches_is_a_503():
    with pytest.raises(NoReplica):
        asyncio.run(RemoteTier(settings_of("http://127.0.0.1:9/v1")).complete("chat/completions", BODY))


def test_an_upstream_that_sends_elsewhere_is_not_followed():
    elsewhere = []

    async def trap(request: Request) -> Response:
        elsewhere.append(request.url.path)
        return JSONResponse({})

    address = staged(trap)

    async def answer(request: Request) -> Response:
        return RedirectResponse(address, 307)

    with pytest.raises(TierFailed):
        asyncio.run(RemoteTier(settings_of(staged(answer))).complete("chat/completions", BODY))
    assert elsewhere == []


def test_events_are_put_together_from_whatever_parts_arrive():
    long = b'data: {"x":"' + b"y" * 300_000 + b'"}'
    whole, buffer = long + b"\r\n\r\ndata: two\n\ndata: [DONE]", EventBuffer(1_000_000)
    found = [event for at in range(0, len(whole), 70_001) for event in buffer.feed(whole[at : at + 70_001])]
    assert [*found, *buffer.rest()] == [long, b"data: two", b"data: [DONE]"]


@pytest.mark.parametrize(
    "event, shown",
    [
        (b'{"model":"their/model","a":{"model":"their/model"}}', b'{"model":"it","a":{"model":"their/model"}}'),
        (b'{"model": "their/model"}', b'{"model":"it"}'),
        (b'{"model" :  "their/model"}', b'{"model":"it"}'),
        (b'{"model": "their/model","a":{"model":"their/model"}}', b'{"model":"it","a":{"model":"their/model"}}'),
        (rb'{"model":"another","text":"\"model\":\"their/model\""}', rb'{"model":"another","text":"\"model\":\"their/model\""}'),
        (b"[DONE]", b"[DONE]"),
    ],
)
def test_a_remote_tier_gives_the_first_model_of_each_event_its_own_name(event, shown):
    tier = RemoteTier(settings_of("http://127.0.0.1:9/v1"))
    assert tier.renamed(event) == shown
    assert tier.joined([event, event]) == (shown + b"\n\n") * 2


def test_an_upstream_whose_client_left_stops():
    ended = []

    async def endless():
        try:
            while True:
                yield b'data: {"choices":[]}\n\n'
                await asyncio.sleep(0.01)
        finally:
            ended.append(True)

    async def answer(request: Request) -> Response:
        return StreamingResponse(endless())

    async def leave() -> None:
        events = RemoteTier(settings_of(staged(answer))).stream("chat/completions", STREAM)
        await anext(events)
        await events.aclose()
        for _ in range(200):
            if ended:
                return
            await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert ended


def test_tiers_with_one_tokenizer_share_a_counter_and_a_text_is_counted_once():
    from deployments.tiers.token_counters import counters
    from router.config import load_config
    from router.decide.policy import exclude
    from router.types import Facts

    ladder = load_config("pocket")
    assert len(set(counters(ladder).values())) == 1
    asked = []

    def count(text: str) -> int:
        asked.append(text)
        return 600

    excluded = exclude(Facts("", "x" * 600, "auto", 1), ladder.tiers, dict.fromkeys(ladder.names, count))
    assert list(excluded) == ladder.names and len(asked) == 1


def test_replicas_are_looked_up_in_the_application_they_belong_to():
    """`serve run` calls it `default`, `stepdown serve` calls it `stepdown`: only the handle knows."""
    replicas = [{"state": state} for state in ("RUNNING", "STARTING", "RUNNING", "STOPPING")]
    count = ReplicaCounts(lambda: {"applications": {"default": {"deployments": {"tier-it": {"replicas": replicas}}}}})
    assert asyncio.run(running_replicas("default", "tier-it", count)()) == 2
    assert asyncio.run(running_replicas("stepdown", "tier-it", count)()) == 0


def test_the_controller_is_asked_once_a_second_however_many_wait():
    asked, now = [], [0.0]

    def ask():
        asked.append(time.sleep(0.02))
        return {}

    count = ReplicaCounts(ask, lambda: now[0])
    looks = [running_replicas("stepdown", f"tier-{n % 3}", count) for n in range(30)]

    async def all_at_once():
        await asyncio.gather(*(look() for look in looks))

    asyncio.run(all_at_once())
    now[0] = 0.9
    asyncio.run(all_at_once())
    assert len(asked) == 1
    now[0] = 1.1
    asyncio.run(all_at_once())
    assert len(asked) == 2


def test_a_controller_that_does_not_answer_is_asked_again():
    answers = [OSError("away"), {}]

    def ask():
        found = answers.pop(0)
        if isinstance(found, OSError):
            raise found
        return found

    look = running_replicas("stepdown", "tier-it", ReplicaCounts(ask))
    with pytest.raises(OSError, match="away"):
        asyncio.run(look())
    assert asyncio.run(look()) == 0


class Cut:
    """A connection that ends otherwise than by gRPC's UNAVAILABLE, the one status that Ray makes an error of its own."""

    def __init__(self, items: int) -> None:
        self.items = items

    def options(self, **_):
        return self

    def remote(self, *_):
        return Items(self.said())

    async def said(self):
        for _ in range(self.items):
            yield 200, 'data: {"choices": []}\n\n', ""
        raise AioRpcError(StatusCode.UNKNOWN, Metadata(), Metadata(), "Stream removed")


async def one() -> int:
    return 1


def test_a_connection_that_breaks_in_a_way_of_its_own_is_a_lost_replica():
    with pytest.raises(NoReplica) as error:
        asyncio.run(ServeTier("it", Cut(0), one, CallPolicy(5.0)).complete("chat/completions", BODY))
    assert error.value.lost
    with pytest.raises(TierFailed):
        asyncio.run(collected(ServeTier("it", Cut(1), one, CallPolicy(5.0))))
