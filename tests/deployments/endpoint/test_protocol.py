"""What HTTP's edges get: ids, old clients, compressed and odd bodies, other sites' pages, too large headers."""

import gzip
import json
import re
import socket
import zlib

import httpx
import openai
import pytest
from inprocess import app_of
from live import ladder, listening, serving
from scripted_tier import Said, ScriptedTier
from starlette.testclient import TestClient

from deployments.endpoint.answering import Answering
from deployments.tiers.token_counters import counters
from router.config import Config
from router.engine import Router
from router.errors import TierFailed

pytestmark = pytest.mark.slow

KEY = {"authorization": "Bearer right"}
JSON = {"content-type": "application/json"}
PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "one two"}]}
TRACE = re.compile(r"[0-9a-f]{32}")


def keyed(tier=None, **server):
    tiers = [
        {"name": "small", "engine": "echo", "context": 2000, "price": PRICE},
        {"name": "large", "engine": "echo", "context": 4000, "price": PRICE, **(tier or {})},
    ]
    config = Config.model_validate({"tiers": tiers, "server": server})
    return app_of(Router(config, None, counters(config)))


def client(tier=None, **server):
    return TestClient(keyed(tier, **server), headers=KEY, raise_server_exceptions=False)


def scripted(said, **server):
    """Without keys."""
    config = ladder(("large",), server=server)
    return serving(Router(config, None, counters(config)), {"large": ScriptedTier("large", lambda body: said)})


# -- ids ---------------------------------------------------------------------------------------------------------------------


ASKED = [
    ("GET", "/healthz", None),
    ("GET", "/nothing", None),
    ("POST", "/v1/chat/completions", CHAT),
    ("PUT", "/v1/models", None),
]


@pytest.mark.parametrize("method, path, body", [*ASKED, ("POST", "/v1/chat/completions", {}), ("GET", "/v1/models", None)])
@pytest.mark.parametrize("headers", [KEY, {"authorization": "Bearer wrong"}])
def test_every_answer_carries_an_id_and_every_error_says_it(method, path, body, headers):
    answer = client().request(method, path, json=body, headers=headers)
    trace = answer.headers["x-stepdown-trace-id"]
    assert TRACE.fullmatch(trace) and answer.headers["x-request-id"] == trace
    if answer.status_code >= 400:
        assert answer.json()["error"]["trace_id"] == trace


def test_two_requests_have_two_ids():
    made = client()
    assert len({made.get("/healthz").headers["x-request-id"] for _ in range(5)}) == 5


@pytest.mark.parametrize("own", ["req-1", "0b1c.A_/=+@:9", "x" * 128])
def test_a_clients_own_id_comes_back(own):
    answer = client().post("/v1/chat/completions", json=CHAT, headers={"x-request-id": own})
    assert answer.headers.get_list("x-request-id") == [own] and TRACE.fullmatch(answer.headers["x-stepdown-trace-id"])


@pytest.mark.parametrize("own", ["", "x" * 129, "two words", "a;b", "<script>", "a\tb"])
def test_an_id_that_is_no_id_is_replaced_by_ours(own):
    answer = client().post("/v1/chat/completions", json={}, headers={"x-request-id": own})
    assert answer.headers["x-request-id"] == answer.headers["x-stepdown-trace-id"] == answer.json()["error"]["trace_id"]


def test_the_openai_client_shows_the_id_of_an_error():
    with scripted(Said(error=TierFailed("large", "told to fail"))) as url, pytest.raises(openai.APIStatusError) as failed:
        openai.OpenAI(base_url=url, api_key="x", max_retries=0).chat.completions.create(**CHAT)
    assert TRACE.fullmatch(failed.value.request_id) and failed.value.body["trace_id"] == failed.value.request_id


def test_an_unexpected_error_carries_the_id_under_which_the_log_has_it(monkeypatch, caplog):
    async def fails(self, *_):
        raise ValueError("a fault of ours")

    monkeypatch.setattr(Answering, "answer", fails)
    answer = client(cors=["https://a.example"]).post("/v1/chat/completions", json=CHAT, headers={"origin": "https://a.example"})
    trace = answer.json()["error"]["trace_id"]
    assert answer.status_code == 500 and trace in answer.json()["error"]["message"]
    assert trace == answer.headers["x-request-id"] and trace in caplog.text and "a fault of ours" in caplog.text
    assert answer.headers["access-control-allow-origin"] == "https://a.example"


def test_an_error_within_a_stream_carries_it_too():
    with scripted(Said("a b c d", dies_after=2)) as url:
        answer = httpx.post(f"{url}/chat/completions", json={**CHAT, "stream": True})
    assert json.loads(answer.text.split("\n\n")[-3][6:])["error"]["trace_id"] == answer.headers["x-request-id"]


# -- other sites' pages ------------------------------------------------------------------------------------------------------


def preflight(made, origin="https://chat.example", headers="authorization, content-type, x-stainless-os"):
    asked = {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": headers}
    return made.options("/v1/chat/completions", headers={**asked, "authorization": ""})


def test_without_the_setting_a_preflight_is_refused_in_json():
    answer = preflight(client())
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("cors, allowed", [(["https://chat.example"], "https://chat.example"), ("*", "*")])
def test_a_page_that_is_listed_may_ask(cors, allowed):
    made = client(cors=cors)
    before = preflight(made)
    assert before.status_code == 200 and before.headers["access-control-allow-origin"] == allowed
    assert "authorization" in before.headers["access-control-allow-headers"]
    for body in (CHAT, {**CHAT, "stream": True}, {}, {**CHAT, "model": "nobody"}):
        answer = made.post("/v1/chat/completions", json=body, headers={"origin": "https://chat.example"})
        assert answer.headers["access-control-allow-origin"] == allowed
        shown = {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}
        assert {name for name in answer.headers if name.startswith("x-")} <= shown
        assert "access-control-allow-credentials" not in answer.headers


def test_another_page_may_not():
    made = client(cors=["https://chat.example"])
    assert preflight(made, "https://evil.example").status_code == 400
    answer = made.post("/v1/chat/completions", json=CHAT, headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("wrong", ["https://a.example/path", "a.example", "ftp://a.example", ""])
def test_an_origin_that_is_none_stops_the_start(wrong):
    with pytest.raises(ValueError, match="cors"):
        keyed(cors=[wrong])


FOREIGN = [
    ({"host": "evil.example"}, 403, "server.hosts"),
    ({"host": "127.0.0.1.evil.example:8000"}, 403, "server.hosts"),
    ({"host": "localhost.evil.example"}, 403, "server.hosts"),
    ({"host": "10.0.0.1:8000"}, 403, "server.hosts"),
    ({"host": "[::2]"}, 403, "server.hosts"),
    ({"host": "["}, 403, "server.hosts"),
    ({"host": ""}, 403, "server.hosts"),
    ({"origin": "https://evil.example"}, 403, "server.cors"),
    ({"origin": "null"}, 403, "server.cors"),
    ({"origin": "http://127.0.0.1:1"}, 403, "server.cors"),
    ({"content-type": "text/plain"}, 415, "application/json"),
    ({"content-type": "application/x-www-form-urlencoded"}, 415, "application/json"),
    ({"content-type": "multipart/form-data; boundary=application/json"}, 415, "application/json"),
    ({"content-type": ""}, 415, "application/json"),
]


@pytest.mark.parametrize("headers, status, mend", FOREIGN)
@pytest.mark.parametrize("server", [{}, {"cors": "*"}])
def test_without_keys_a_foreign_page_is_refused_and_told_what_to_do(headers, status, mend, server):
    with scripted(Said("yes"), **server) as url:
        sent = {**JSON, **headers}
        answer = httpx.post(f"{url}/chat/completions", content=json.dumps(CHAT), headers=sent)
    assert answer.status_code == status and mend in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["models", "status", "chat/completions", "../costs.json"])
def test_without_keys_nothing_is_read_by_another_name(path):
    with scripted(Said("yes")) as url:
        assert httpx.get(f"{url}/{path}", headers={"host": "evil.example"}).status_code == 403


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:9", "127.1.2.3", "[::1]:8000", "gpu-box:8000", "GPU-BOX"]
)
def test_this_machines_own_names_are_answered(host):
    with scripted(Said("yes"), hosts=["gpu-box"]) as url:
        sent = {"host": host, "origin": f"http://{host}", "content-type": "application/json; charset=utf-8"}
        assert httpx.post(f"{url}/chat/completions", content=json.dumps(CHAT), headers=sent).status_code == 200


def test_a_listed_page_may_use_a_server_without_keys():
    with scripted(Said("yes"), cors=["https://chat.example"]) as url:
        answer = httpx.post(f"{url}/chat/completions", json=CHAT, headers={"origin": "https://chat.example"})
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "https://chat.example"


def test_health_is_told_by_any_name_and_keys_make_names_unimportant():
    with scripted(Said("yes")) as url:
        assert httpx.get(f"{url}/../healthz", headers={"host": "10.1.2.3:8000"}).status_code == 200
    answer = client().post("/v1/chat/completions", content=json.dumps(CHAT), headers={"host": "llm.example", "origin": "null"})
    assert answer.status_code == 200


# -- bodies ------------------------------------------------------------------------------------------------------------------

RAW = json.dumps(CHAT).encode()
BARE = zlib.compressobj(wbits=-zlib.MAX_WBITS)


@pytest.mark.parametrize(
    "coding, body",
    [
        ("gzip", gzip.compress(RAW, mtime=0)),
        ("x-gzip", gzip.compress(RAW, mtime=0)),
        (" GZIP ", gzip.compress(RAW[:9]) + gzip.compress(RAW[9:])),
        ("deflate", zlib.compress(RAW)),
        ("deflate", BARE.compress(RAW) + BARE.flush()),
        ("identity", RAW),
        ("", RAW),
    ],
)
@pytest.mark.parametrize("pieces", [1, 7, 10_000])
def test_a_compressed_body_is_read(coding, body, pieces):
    def parts():
        for at in range(0, len(body), pieces):
            yield body[at : at + pieces]

    answer = client().post("/v1/chat/completions", content=parts(), headers={"content-encoding": coding})
    assert answer.status_code == 200 and answer.json()["choices"][0]["message"]["content"] == "one two"


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress", "nonsense\x7f"])
def test_an_encoding_that_is_not_read_says_which_are(coding):
    answer = client().post("/v1/chat/completions", content=RAW, headers={"content-encoding": coding})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_encoding")
    assert answer.headers["accept-encoding"] == "gzip, deflate, identity"


@pytest.mark.parametrize("body", [RAW, gzip.compress(RAW, mtime=0)[:-3], b"", b"\x1f\x8b", gzip.compress(RAW, mtime=0) + b"more"])
def test_what_is_not_gzip_is_a_clear_400(body):
    answer = client().post("/v1/chat/completions", content=body, headers={"content-encoding": "gzip"})
    assert answer.status_code == 400 and "gzip" in answer.json()["error"]["message"]


def test_a_bomb_is_not_unpacked_beyond_the_limit():
    bomb = gzip.compress(b"x" * 50_000_000)
    answer = client(max_body_bytes=100_000).post("/v1/chat/completions", content=bomb, headers={"content-encoding": "gzip"})
    assert len(bomb) < 100_000 and (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


PARTS = {
    "images": {"type": "image_url", "image_url": {"url": "data:,"}},
    "audio": {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
    "video": {"type": "video_url", "video_url": {"url": "data:,"}},
    "files": {"type": "file", "file": {"file_data": "data:,"}},
}


def with_part(part):
    return {**CHAT, "messages": [{"role": "user", "content": [{"type": "text", "text": "look"}, part]}]}


@pytest.mark.parametrize("need", PARTS)
def test_a_part_goes_to_a_tier_that_takes_it_or_nowhere(need):
    refused = client().post("/v1/chat/completions", json=with_part(PARTS[need]))
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "no_tier_fits")
    assert f"takes no {need}" in refused.json()["error"]["message"]
    decided = client({need: True}).post("/v1/decision", json=with_part(PARTS[need])).json()
    assert decided["tier"] == "large" and decided["excluded"] == {"small": f"takes no {need}"}


@pytest.mark.parametrize("kind", ["hologram", "json", "tools", "images", 7])
def test_a_part_that_we_do_not_know_needs_a_tier_that_names_it(kind):
    refused = client().post("/v1/chat/completions", json=with_part({"type": kind}))
    assert refused.status_code == 400 and str(kind) in refused.json()["error"]["message"]
    assert client({"parts": [str(kind)]}).post("/v1/decision", json=with_part({"type": kind})).json()["tier"] == "large"


@pytest.mark.parametrize("part", [{"text": "more"}, {"type": "input_text", "text": "x"}, {"type": "refusal", "refusal": "no"}])
def test_text_by_other_names_needs_nothing(part):
    assert client().post("/v1/decision", json=with_part(part)).json()["excluded"] == {}


def test_a_part_without_a_type_is_known_by_what_it_holds():
    refused = client().post("/v1/chat/completions", json=with_part({"input_audio": {"data": ""}}))
    assert "takes no audio" in refused.json()["error"]["message"]


def test_sound_that_is_asked_for_is_a_need_too():
    refused = client().post("/v1/chat/completions", json={**CHAT, "modalities": ["text", "audio"]})
    assert "takes no audio" in refused.json()["error"]["message"]


# -- bytes -------------------------------------------------------------------------------------------------------------------


def spoken(url, request: bytes) -> bytes:
    """The bytes that come back for these, until the server closes."""
    with socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0])), timeout=10) as to:
        to.sendall(request)
        got = b""
        while piece := to.recv(65_536):
            got += piece
    return got


def request(url, version="1.1", body=RAW, path=None, **headers):
    path = path or "/" + url.split("/", 3)[3] + "/chat/completions"
    lines = [f"POST {path} HTTP/{version}", "host: localhost", "connection: close", "content-type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in {"content_length": len(body), **headers}.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@pytest.mark.parametrize("stream", [False, True])
def test_http_1_0_gets_no_chunk_sizes(stream):
    with scripted(Said("four five six")) as url:
        got = spoken(url, request(url, "1.0", json.dumps({**CHAT, "stream": stream}).encode()))
    head, _, body = got.partition(b"\r\n\r\n")
    assert b" 200 " in head and b"chunked" not in head.lower()
    assert f"content-length: {len(body)}".encode() in head.lower()
    assert body.endswith(b"data: [DONE]\n\n") if stream else json.loads(body)


def test_chunks_in_and_chunks_out():
    chunked = b"".join(f"{len(p):x}\r\n".encode() + p + b"\r\n" for p in (RAW[:5], RAW[5:])) + b"0\r\n\r\n"
    with scripted(Said("four five")) as url:
        sent = request(url, body=b"", transfer_encoding="chunked").replace(b"content-length: 0\r\n", b"") + chunked
        assert b" 200 " in spoken(url, sent).split(b"\r\n")[0]


def test_a_client_that_waits_to_be_told_to_go_on_is_told():
    with scripted(Said("four")) as url:
        got = spoken(url, request(url, expect="100-continue"))
    assert b"100 Continue" in got and b"HTTP/1.1 200" in got


@pytest.mark.parametrize("size, status", [(20_000, 200), (40_000, 431)])
def test_large_headers_are_read_or_refused_in_json(size, status):
    answer = client().post("/v1/chat/completions", json=CHAT, headers={"cookie": "a" * size})
    assert answer.status_code == status
    assert status == 200 or answer.json()["error"]["code"] == "headers_too_large"


@pytest.mark.parametrize("header", ["bearer right", "BEARER right"])
def test_the_scheme_of_a_key_is_read_in_any_case(header):
    assert client().get("/v1/models", headers={"authorization": header}).status_code == 200


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("HEAD", "/healthz", 200),
        ("HEAD", "/readyz", 200),
        ("HEAD", "/v1/models", 200),
        ("OPTIONS", "/v1/models", 405),
        ("POST", "/chat/completions", 200),
        ("POST", "/v1/chat/completions/", 200),
        ("POST", "/v2/chat/completions", 404),
        ("POST", "/v1/chat%2fcompletions", 200),
        ("GET", "/v1/models/%ff", 404),
        ("DELETE", "/v1/chat/completions", 405),
        ("POST", "/v1/nothing", 404),
    ],
)
def test_other_methods_and_paths_get_their_answer(method, path, status):
    answer = client().request(method, path, json=CHAT if method == "POST" else None)
    assert answer.status_code == status
    if status >= 400 and method != "HEAD":
        assert answer.json()["error"]["code"] in ("not_found", "model_not_found", "method_not_allowed")


def test_bytes_that_are_no_utf_8_in_headers_do_no_harm():
    sent = [(b"authorization", b"Bearer right"), (b"x-session-id", b"\xff\xfe"), (b"x-request-id", b"\xff"), (b"user", b"\xc3")]
    assert client().post("/v1/chat/completions", json=CHAT, headers=sent).status_code == 200


def test_a_whole_address_in_the_request_line_is_its_path():
    app = keyed()
    with listening(app) as port:
        got = spoken(f"http://127.0.0.1:{port}", request("", path=f"http://127.0.0.1:{port}/v1/models").replace(b"POST", b"GET"))
    assert b" 401 " in got.split(b"\r\n")[0]
