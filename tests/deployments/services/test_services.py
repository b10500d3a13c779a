"""The engines of services, and what is watched of them: remote ones against a scripted upstream over a real connection."""

import asyncio
import base64
import json
import logging
import math
import struct
from contextlib import asynccontextmanager, contextmanager

import pytest
from live import listening
from starlette.applications import Starlette
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from deployments import APP
from deployments.serve.start_checks import broken_promise
from deployments.services.echo_service import EchoService
from deployments.services.remote_service import RemoteService
from deployments.services.serve_service import ServeService
from deployments.services.watched_service import Watched
from deployments.tiers.check import check
from deployments.tiers.serve_tier import CallPolicy, ServeTier
from router import service_settings
from router.config import Config
from router.errors import BadConfig, NoReplica, RequestFailed, TierBusy, TierFailed, TierMisconfigured, WindowExceeded
from router.services.body import parse
from router.traffic.breaker import FAILURES, Breaker
from router.traffic.retries import Retries

COMMON = {"name": "embed", "kind": "embeddings", "context": 100, "price": {"usd_per_1m_input": 1}}
TWO = b'{"model": "embed", "input":["a","b"], "encoding_format":"base64", "seed": 1.50}'
GOOD = b'{"data":[{"index":0,"embedding":[0.25]},{"index":1,"embedding":[1e-3]}],"model":"up","usage":{"total_tokens":4}}'


def asked(kind: str = "embeddings", raw: bytes = TWO, **fields):
    return parse(kind, json.dumps({"model": "embed", **fields}).encode() if fields else raw)


class Upstream:
    """Answers with what the test puts into `answers`: (status, body, headers), the last one again and again."""

    def __init__(self) -> None:
        self.answers, self.seen = [(200, GOOD, {})], []

    async def answer(self, request):
        self.seen.append((request.url.path, await request.body(), dict(request.headers)))
        status, body, headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return RedirectResponse("http://127.0.0.1:9/x") if status == 307 else Response(body, status, headers)


@contextmanager
def upstream():
    """(upstream, its address)"""
    made = Upstream()
    with listening(Starlette(routes=[Route("/{path:path}", made.answer, methods=["POST"])])) as port:
        yield made, f"http://127.0.0.1:{port}/v1"


@pytest.fixture(scope="module")
def running():
    with upstream() as found:
        yield found


@pytest.fixture
def there(running):
    running[0].answers, running[0].seen = [(200, GOOD, {})], []
    return running[0]


@asynccontextmanager
async def remote(url: str, silence_s: float = 5.0, **changes):
    settings = service_settings.RemoteService(
        **COMMON | changes, engine="remote", url=url, model="up/model", api_key_env="UP_KEY"
    )
    service = RemoteService(settings, silence_s)
    try:
        yield Watched(service, settings, Breaker(lambda: now[0], lambda: 0.0), Retries(lambda: 0.0))
    finally:
        await service.close()


now = [0.0]


def ask(running, request=None, **changes):
    async def once():
        async with remote(running[1], **changes) as service:
            return await service.ask(request or asked(), "trace/embedding")

    return asyncio.run(once())


def test_the_bytes_go_up_and_come_back_and_only_the_model_is_another(running, there, monkeypatch):
    monkeypatch.setenv("UP_KEY", "secret")
    found = ask(running)
    assert there.seen[0][:2] == ("/v1/embeddings", TWO.replace(b'"embed"', b'"up/model"'))
    assert there.seen[0][2]["authorization"] == "Bearer secret" and there.seen[0][2]["content-type"] == "application/json"
    assert found.raw == GOOD.replace(b'"up"', b'"embed"') and found.tokens == 4


@pytest.mark.parametrize(
    ("kind", "body"), [("rerank", {"query": "q", "documents": ["a", "b"]}), ("score", {"text_1": "q", "text_2": "a"})]
)
def test_each_kind_has_its_path(running, there, kind, body):
    name = "results" if kind == "rerank" else "data"
    there.answers = [(200, json.dumps({name: [{"index": 0}]}).encode(), {})]
    assert ask(running, asked(kind, **body), kind=kind).tokens is None
    assert there.seen[0][0] == f"/v1/{kind}"


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind", "words"),
    [
        (500, b"", {}, TierFailed, "service embed: status 500"),
        (503, b"", {}, NoReplica, "service embed is not available: status 503"),
        (429, b"", {"retry-after": "7"}, TierBusy, "service embed is not available: it is full"),
        (307, b"", {}, TierMisconfigured, "service embed: it is not set up correctly"),
        (400, b'{"error": {"message": "dimensions must be 256"}}', {}, TierFailed, "dimensions must be 256"),
        (
            400,
            b'{"error": {"message": "maximum context length is 512 tokens"}}',
            {},
            WindowExceeded,
            "an input is longer than the 100",
        ),
        (200, b'{"error": {"message": "no", "code": 500}}', {}, TierFailed, "no"),
        (200, b"<html>", {}, TierFailed, "its answer cannot be used"),
        (200, b'{"data":[{}]}', {}, TierFailed, "1 entries for 2 inputs"),
        (200, b'{"data": [' + b" " * 3_000_000, {}, TierFailed, "more than"),
    ],
)
def test_what_goes_wrong_is_told_in_words_of_a_service(running, there, status, body, headers, kind, words):
    there.answers = [(status, body, headers)]
    with pytest.raises(kind) as failed:
        ask(running)
    said = json.dumps(failed.value.body()) + str(failed.value)
    assert words in said and "tier embed" not in said
    if kind is WindowExceeded:
        assert failed.value.body()["error"]["param"] == "input" and "answer" not in str(failed.value)


def test_the_log_names_the_setting_to_mend(running, there, caplog):
    there.answers = [(401, b"", {})]
    with caplog.at_level(logging.ERROR), pytest.raises(TierMisconfigured):
        ask(running)
    assert "service embed answers with status 401" in caplog.text and "services.embed.api_key_env" in caplog.text


@pytest.mark.parametrize("first", [(500, b"", {}), (200, b"{}", {})])
def test_a_lost_call_is_sent_once_more(running, there, first):
    there.answers = [first, (200, GOOD, {})]
    assert ask(running).tokens == 4 and len(there.seen) == 2


@pytest.mark.parametrize("answer", [(400, b"", {}), (429, b"", {}), (503, b"", {})])
def test_what_another_try_would_not_mend_is_sent_once(running, there, answer):
    there.answers = [answer]
    with pytest.raises(RequestFailed):
        ask(running)
    assert len(there.seen) == 1


def test_a_silent_upstream_is_given_up_and_not_asked_twice(running, there):
    async def silent(request):
        there.seen.append(request)
        await asyncio.sleep(0.1)
        return Response(GOOD)

    there.answer, before = silent, there.answer
    with listening(Starlette(routes=[Route("/{path:path}", silent, methods=["POST"])])) as port, pytest.raises(NoReplica):
        ask((there, f"http://127.0.0.1:{port}/v1"), silence_s=0.05)
    there.answer = before
    assert len(there.seen) == 1


def test_a_circuit_of_its_own_opens_and_closes(running, there):
    async def several():
        async with remote(running[1]) as service:
            there.answers = [(500, b"", {})]
            for _ in range(FAILURES):
                with pytest.raises(RequestFailed):
                    await service.ask(asked(), "")
            sent = len(there.seen)
            with pytest.raises(NoReplica, match="service embed is not available: it failed several times"):
                await service.ask(asked(), "")
            assert len(there.seen) == sent and service.breaker.left_s("embed")
            now[0] += 60
            there.answers = [(200, GOOD, {})]
            assert (await service.ask(asked(), "")).tokens == 4
            assert not service.breaker.left_s("embed")

    asyncio.run(several())


def test_nobody_there_is_no_replica():
    with pytest.raises(NoReplica, match="service embed is not available: ClientConnectorError"):
        ask((None, "http://127.0.0.1:9/v1"))


# -- echo --------------------------------------------------------------------------------------------------------------------


def echo(kind: str = "embeddings", **fields):
    service = EchoService(service_settings.EchoService(**COMMON | {"kind": kind}, engine="echo", dimensions=8))
    return json.loads(service.answer(asked(kind, **fields)))


@pytest.mark.parametrize("texts", ["a", ["a", "b", "a"], [5, 6], [[5], [5, 6], [5]]])
def test_equal_texts_have_equal_vectors_of_length_one_in_both_formats(texts):
    plain, packed = echo(input=texts), echo(input=texts, encoding_format="base64")
    vectors = [one["embedding"] for one in plain["data"]]
    unpacked = [struct.unpack("<8f", base64.b64decode(one["embedding"])) for one in packed["data"]]
    assert [list(vector) for vector in unpacked] == vectors
    assert all(math.isclose(math.hypot(*vector), 1, rel_tol=1e-6) for vector in vectors)
    if len(vectors) == 3:
        assert vectors[0] == vectors[2] != vectors[1]


def test_the_length_of_a_vector_may_be_asked_for():
    assert len(echo(input="a", dimensions=3)["data"][0]["embedding"]) == 3


def test_the_same_document_comes_first():
    found = echo("rerank", query="b", documents=["a", "b", "c"], top_n=2, return_documents=True)["results"]
    assert len(found) == 2 and found[0]["index"] == 1 and found[0]["document"] == {"text": "b"}
    assert found[0]["relevance_score"] == pytest.approx(1, abs=1e-6) and 0 <= found[1]["relevance_score"] < 0.999
    assert [one["score"] > 0.999 for one in echo("score", text_1="a", text_2=["a", "b"])["data"]] == [True, False]
    assert [one["score"] > 0.999 for one in echo("score", data_1=["a", "b"], data_2=["b", "b"])["data"]] == [False, True]


# -- vLLM's replicas, by a handle --------------------------------------------------------------------------------------------


class Items:
    def __init__(self, item):
        self.item = item

    def __aiter__(self):
        return self

    async def __anext__(self):
        if isinstance(self.item, Exception):
            raise self.item
        return self.item

    def cancel(self):
        pass


class Handle:
    deployment_name = "service-embed"

    def __init__(self, *items):
        self.items, self.sent = list(items), []

    def options(self, **_):
        return self

    def remote(self, *arguments):
        self.sent.append(arguments)
        return Items(self.items.pop(0))


async def one():
    return 1


def behind(handle):
    settings = service_settings.VllmService(**COMMON, engine="vllm", source="x")
    service = ServeService(ServeTier("embed", handle, one, CallPolicy(5.0)))
    return Watched(service, settings, Breaker(lambda: 0.0, lambda: 0.0), Retries(lambda: 0.0))


def test_a_replica_gets_the_bytes_under_the_services_name():
    handle = Handle((200, GOOD.decode(), ""))
    raw = TWO.replace(b'"embed"', b'"text-embedding-3-small"')
    found = asyncio.run(behind(handle).ask(asked(raw=raw), "trace/embedding"))
    assert handle.sent == [("embeddings", TWO.decode(), "trace/embedding", [])]
    assert found.raw == GOOD.replace(b'"up"', b'"text-embedding-3-small"')


def test_a_lost_replica_is_made_up_for_by_another():
    from ray.exceptions import RayError

    assert asyncio.run(behind(Handle(RayError("gone"), (200, GOOD.decode(), ""))).ask(asked(), "")).tokens == 4


def test_vllms_refusal_reaches_the_client():
    handle = Handle((400, '{"error": {"message": "x is odd", "code": "invalid_request"}}', ""))
    with pytest.raises(TierFailed) as refused:
        asyncio.run(behind(handle).ask(asked(), ""))
    assert refused.value.status == 400 and "x is odd" in json.dumps(refused.value.body())


# -- at the start ------------------------------------------------------------------------------------------------------------


def test_a_start_without_the_models_files_is_refused_and_names_the_service():
    tier = {"name": "large", "engine": "echo", "context": 9, "price": {"usd_per_1m_input": 1, "usd_per_1m_output": 1}}
    gone = {**COMMON, "engine": "vllm", "source": "/no/such"}
    with pytest.raises(BadConfig, match="services.embed.source: no folder /no/such"):
        check(Config.model_validate({"tiers": [tier], "services": [gone]}))


def test_a_replica_that_cannot_do_its_kind_ends_the_start():
    deployments = {"service-embed": {"message": "x\nBadConfig: services.embed.kind: embeddings, which it cannot\n"}}
    said = broken_promise({"applications": {APP: {"deployments": deployments}}})
    assert said == "services.embed.kind: embeddings, which it cannot"
