"""What a tier says, whole or streamed, becomes an answer or the tier's failure, whatever its engine."""

import asyncio
import json
import logging

import pytest

from deployments.tiers import reported_usage, tier_answer
from deployments.tiers.tier import DONE, Tier
from deployments.traffic.watched_tier import Watched
from router.errors import NoReplica, TierFailed, TierSilent
from router.trace import Reading
from router.traffic.breaker import Breaker

pytestmark = pytest.mark.slow

CHAT, TEXT = "chat/completions", "completions"
BODIES = {CHAT: {"messages": [{"role": "user", "content": "capital?"}]}, TEXT: {"prompt": "capital?"}}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
LOGPROBS = {"content": [{"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -2}]}]}


class Says(Tier):
    """An engine that says these bytes, waiting between them where a number stands."""

    def __init__(self, *parts, first_token_s=None) -> None:
        self.name, self.parts, self.first_token_s = "it", parts, first_token_s
        self.left = False

    async def complete(self, path, body, reading=None, call_id=""):
        return b"".join(self.parts)

    async def stream(self, path, body, reading=None, call_id=""):
        try:
            for part in self.parts:
                if isinstance(part, bytes):
                    yield part
                elif isinstance(part, Exception):
                    raise part
                else:
                    await asyncio.sleep(part)
        finally:
            self.left = True


def watched(tier, context=1000, idle_s=None) -> Watched:
    return Watched(tier, Breaker(lambda: 0.0, lambda: 0.0), context=context, idle_s=idle_s)


def whole(raw, path=CHAT, reading=None, **changes):
    """The answer to one call as callers get it."""
    it = watched(Says(raw if isinstance(raw, bytes) else json.dumps(raw).encode()))
    return json.loads(asyncio.run(it.complete(path, BODIES[path] | changes, reading)))


def streamed(*parts, path=CHAT, reading=None, first_token_s=None, idle_s=None, reads_s=0.0, **changes):
    """The items that callers get, and the error that ended them. reads_s: that callers take for each."""
    it = watched(Says(*parts, first_token_s=first_token_s), idle_s=idle_s)
    got: list[bytes] = []

    async def run():
        async for item in it.stream(path, BODIES[path] | changes, reading):
            got.append(item)
            await asyncio.sleep(reads_s)

    try:
        asyncio.run(run())
    except (TierFailed, NoReplica) as error:
        return got, error
    return got, None


def events_of(got) -> list:
    """The data of all events; each must be whole."""
    raw = b"".join(got)
    assert raw.endswith(b"\n\n")
    parts = [part for part in raw.split(b"\n\n") if part and not part.startswith(b":")]
    assert all(part.startswith(b"data: ") and b"\n" not in part for part in parts)
    return [part[6:].decode() if part == DONE[:-2] else json.loads(part[6:]) for part in parts]


def text_of(got) -> str:
    chunks = [e for e in events_of(got) if e != "[DONE]"]
    return "".join(c.get("delta", c).get("content") or c.get("text") or "" for e in chunks for c in e["choices"])


def document(path=CHAT, usage=USAGE, **changes) -> dict:
    said = {"message": {"role": "assistant", "content": "Bogota"}} if path == CHAT else {"text": "Bogota"}
    choice = {"index": 0, "finish_reason": "stop", **said, **changes}
    return {"id": "1", "object": "x", "created": 1, "model": "it", "choices": [choice], "usage": usage}


def chunk(text=None, finish=None, path=CHAT, **more) -> bytes:
    said = {"delta": {} if text is None else {"content": text}} if path == CHAT else {"text": text or ""}
    choice = {"index": 0, **said, "finish_reason": finish}
    return data({"id": "1", "object": "x", "created": 1, "model": "it", "choices": [choice], **more})


def data(value) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def last(usage=USAGE) -> bytes:
    return data({"id": "1", "model": "it", "choices": [], "usage": usage})


PATHS = pytest.mark.parametrize("path", [CHAT, TEXT])

NO_JSON = {
    "nothing": b"",
    "white space": b" \n",
    "a page": b"<html><body>502 Bad Gateway</body></html>",
    "null": b"null",
    "a number": b"5",
    "a text": b'"Bogota"',
    "a list": b'[{"choices": []}]',
    "Latin-1": json.dumps(document(), ensure_ascii=False).encode().replace(b"Bogota", b"Bogot\xe1"),
    "cut": json.dumps(document()).encode()[:-20],
    "two": json.dumps(document()).encode() * 2,
    "NaN": json.dumps(document(logprobs=None)).encode().replace(b"null", b"NaN"),
    "infinite": json.dumps(document(logprobs=None)).encode().replace(b"null", b"1e999"),
    "a surrogate as bytes": json.dumps(document()).encode().replace(b"Bogota", b"\xed\xa0\xbd"),
    "nested": json.dumps(document(logprobs=None)).encode().replace(b"null", b"[" * 500 + b"]" * 500),
    "nested beyond all": json.dumps(document(logprobs=None)).encode().replace(b"null", b"[" * 100_000 + b"]" * 100_000),
    "a huge number": json.dumps(document(logprobs=None)).encode().replace(b"null", b"9" * 5_000),
    "UTF-16": json.dumps(document()).encode("utf-16"),
}
ERRORS = {
    "an error": {"error": {"message": "out of memory", "code": None}},
    "an error as text": {"error": "out of memory"},
    "an error beside choices": document() | {"error": {"message": "out of memory"}},
    "an old error": {"object": "error", "message": "out of memory"},
    "a detail": {"detail": "out of memory"},
}
NO_CHOICES = {
    "empty object": {},
    "no choices": {"usage": USAGE},
    "null": {"choices": None},
    "empty": {"choices": [], "usage": USAGE},
    "an object": {"choices": {"0": 1}},
    "texts": {"choices": ["Bogota"]},
    "nulls": {"choices": [None]},
    "one of two": {"choices": [*document()["choices"], 5]},
}
NO_ANSWER = NO_JSON | ERRORS | NO_CHOICES
NO_CHAT = {
    "no message": {"message": None},
    "a text": {"message": "Bogota"},
    "a list": {"message": ["Bogota"]},
    "content is a number": {"message": {"content": 5}},
    "content is true": {"message": {"content": True}},
    "content is an object": {"message": {"content": {"text": "Bogota"}}},
    "content is a list of numbers": {"message": {"content": [5]}},
    "a part without text": {"message": {"content": [{"type": "text", "text": 5}]}},
    "refusal is a list": {"message": {"content": "x", "refusal": ["no"]}},
    "tool_calls is an object": {"message": {"tool_calls": {"name": "f"}}},
    "a call is a text": {"message": {"tool_calls": ["f"]}},
    "a function is a text": {"message": {"tool_calls": [{"id": "1", "function": "f"}]}},
    "a function without a name": {"message": {"tool_calls": [{"id": "1", "function": {"arguments": "{}"}}]}},
    "arguments are a number": {"message": {"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": 5}}]}},
    "an id is a number": {"message": {"tool_calls": [{"id": 1, "function": {"name": "f", "arguments": "{}"}}]}},
    "finish_reason is true": {"finish_reason": True},
    "finish_reason is a list": {"finish_reason": ["stop"]},
    "broken off": {"finish_reason": "error"},
    "index is a text": {"index": "0"},
    "logprobs is a list": {"logprobs": [-0.5]},
    "logprobs of texts": {"logprobs": {"content": ["a"]}},
    "a logprob is a text": {"logprobs": {"content": [{"token": "a", "logprob": "-0.5"}]}},
    "a logprob is missing": {"logprobs": {"content": [{"token": "a"}]}},
    "a logprob is absurd": {"logprobs": {"content": [{"token": "a", "logprob": -(10**400)}]}},
    "a logprob is positive": {"logprobs": {"content": [{"token": "a", "logprob": 5.0}]}},
    "top_logprobs is an object": {"logprobs": {"content": [{"token": "a", "logprob": -1, "top_logprobs": {"a": 1}}]}},
    "a top logprob is null": {"logprobs": {"content": [{"token": "a", "logprob": -1, "top_logprobs": [{"logprob": None}]}]}},
}


# -- documents --------------------------------------------------------------------------------------------------------------


@PATHS
def test_a_good_document_is_passed_on_byte_for_byte(path):
    raw = json.dumps(document(path), indent=1).encode()
    assert asyncio.run(watched(Says(raw)).complete(path, BODIES[path])) == raw


@PATHS
@pytest.mark.parametrize(
    "said", [*NO_JSON.values(), *ERRORS.values(), *NO_CHOICES.values()], ids=[*NO_JSON, *ERRORS, *NO_CHOICES]
)
def test_a_document_that_is_no_answer_is_the_tiers_failure(path, said):
    with pytest.raises(TierFailed, match="tier it: ") as raised:
        whole(said, path)
    assert raised.value.status == 502


@pytest.mark.parametrize("said", NO_CHAT.values(), ids=NO_CHAT)
def test_a_chat_with_other_types_is_the_tiers_failure(said):
    with pytest.raises(TierFailed, match="cannot be used"):
        whole(document(**said))


def test_a_completion_with_a_message_too_is_its_text():
    assert whole(document(TEXT, message=["x"]), TEXT)["choices"][0]["text"] == "Bogota"


@pytest.mark.parametrize("text", [None, 5, ["Bogota"], {"content": "Bogota"}, True])
def test_a_completion_without_text_is_the_tiers_failure(text):
    with pytest.raises(TierFailed, match="`text`"):
        whole(document(TEXT, text=text), TEXT)


@PATHS
def test_a_document_without_bound_is_the_tiers_failure(path, monkeypatch):
    monkeypatch.setattr(reported_usage, "DOCUMENT_BYTES", 0)
    with pytest.raises(TierFailed, match="more than 64064 bytes"):
        whole(json.dumps(document(path)).encode() + b" " * 64_064, path, max_tokens=1)
    assert whole(json.dumps(document(path)).encode() + b" " * 64_064, path, max_tokens=10, logprobs=True)


@pytest.mark.parametrize("asked", ["yes", 1.5, [], {}, -1, 10**30, True])
def test_whatever_the_client_asks_for_a_good_answer_passes(asked):
    changes = {name: asked for name in ("logprobs", "top_logprobs", "prompt_logprobs", "best_of", "echo")}
    assert whole(document(), **changes) == document()
    assert streamed(*PLAIN, **changes) == (PLAIN, None)


def test_the_reason_of_an_error_is_told():
    with pytest.raises(TierFailed, match="out of memory"):
        whole(ERRORS["an error"])


def test_an_error_with_a_status_is_judged_as_that_status():
    with pytest.raises(TierFailed) as raised:
        whole({"error": {"message": "bad schema", "code": 400, "type": "invalid_request_error"}})
    assert raised.value.status == 400
    with pytest.raises(NoReplica):
        whole({"error": {"message": "slow down", "code": 429}})
    with pytest.raises(TierFailed) as raised:
        whole({"error": {"message": "odd", "code": 200}})
    assert raised.value.status == 502


@pytest.mark.parametrize(
    "said, message",
    [
        ({"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Bog"}, {"text": "ota"}]}, "Bogota"),
        ({"content": None, "refusal": "no"}, None),
        ({"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}, None),
        ({"content": ""}, ""),
        ({}, None),
    ],
)
def test_content_is_a_text_or_nothing(said, message):
    assert whole(document(message=said))["choices"][0]["message"].get("content") == message


def test_arguments_that_are_an_object_become_their_json():
    said = {"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"x": 1}}}]}
    (call,) = whole(document(message=said))["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"x": 1}


def test_the_answer_has_the_tiers_own_name_and_every_choice_an_index():
    said = document() | {"model": "vendor/model-2026-01-01"}
    said["choices"] = [{k: v for k, v in said["choices"][0].items() if k != "index"} for _ in range(2)]
    found = whole(said, n=2)
    assert found["model"] == "it" and [c["index"] for c in found["choices"]] == [0, 1]


def test_a_mark_of_the_byte_order_and_blank_lines_before_a_document_do_not_matter():
    raw = json.dumps(document()).encode()
    assert whole(b"\n\n\n" + raw)["choices"] == whole(b"\xef\xbb\xbf" + raw)["choices"] == document()["choices"]


@pytest.mark.parametrize(
    "escaped, shown",
    [(b"half \\ud83d", "half \ufffd"), (b"\\udE00\\uD83d", "\ufffd\ufffd"), (b"\\ud83d\\ude00 \\\\ud83d", "\U0001f600 \\ud83d")],
)
def test_half_a_character_is_replaced(escaped, shown):
    raw = json.dumps(document()).encode().replace(b"Bogota", escaped)
    assert whole(raw)["choices"][0]["message"]["content"] == shown
    assert text_of(streamed(chunk("Bogota").replace(b"Bogota", escaped), chunk(finish="stop"), DONE)[0]) == shown


def test_logprobs_pass():
    assert whole(document(logprobs=LOGPROBS))["choices"][0]["logprobs"] == LOGPROBS


@PATHS
def test_a_broken_answer_counts_against_the_tier_and_opens_its_circuit(path):
    it = watched(Says(b"<html>"))
    for _ in range(3):
        with pytest.raises(TierFailed):
            asyncio.run(it.complete(path, BODIES[path]))
    with pytest.raises(NoReplica, match="failed several times"):
        asyncio.run(it.complete(path, BODIES[path]))


# -- streams ----------------------------------------------------------------------------------------------------------------


@PATHS
def test_good_events_are_passed_on_byte_for_byte(path):
    parts = [chunk("Bog", path=path), chunk("ota", path=path) + chunk(finish="stop", path=path), last(), DONE]
    got, error = streamed(*parts, path=path)
    assert (got, error) == (parts, None)


def test_what_comes_before_the_first_token_comes_with_it():
    role = data(json.loads(chunk("")[6:]) | {"x": 1})
    got, error = streamed(b": hello\n\n", role, chunk("Bog"), chunk("ota", "stop"), DONE)
    assert got[0] == role + chunk("Bog") and error is None


BEFORE = {
    "nothing": [],
    "only done": [DONE],
    "only comments": [b": OPENROUTER PROCESSING\n\n"] * 3,
    "comments and done": [b": x\n\n", DONE],
    "a page": [b"<!DOCTYPE html>\n\n<html>\n\n</html>\n\n"],
    "a text": [b"upstream connect error\n\n"],
    "only a role": [chunk(""), DONE],
    "a role, then nothing": [chunk("")],
    "only usage": [last(), DONE],
    "a role, then a page": [chunk(""), b"<html>\n\n"],
    "half an event": [b'data: {"id": "1", "choices": [{"ind'],
    "a broken event": [b'data: {"id": "1", "choices": [{"index": 0, "delta": {"content"}}]}\n\n'],
    "an error": [data({"error": {"message": "out of memory"}}), DONE],
    "an error as text": [data({"error": "out of memory"})],
    "an error after a role": [chunk(""), data({"error": {"message": "out of memory"}})],
    "an error event": [b'event: error\ndata: {"message": "out of memory"}\n\n'],
    "null": [data(None)],
    "a list": [data([1])],
    "choices null": [data({"choices": None})],
    "a document of an error": [b'{"error": {"message": "out of memory"}}'],
    "a document cut": [json.dumps(document()).encode()[:-30]],
    "a document without choices": [b'{"choices": []}'],
    "a document with a page after": [json.dumps(document()).encode(), b"<html>"],
    "one of two choices broken": [data({"choices": [*json.loads(chunk("Bog")[6:])["choices"], 5]})],
    "a failure": [TierFailed("it", "its replica failed")],
    "Latin-1": [chunk("Bogota").replace(b"ota", b"ot\xe1"), chunk(finish="stop"), DONE],
}


@pytest.mark.parametrize("parts", BEFORE.values(), ids=BEFORE)
def test_a_stream_that_says_nothing_good_is_the_tiers_failure_before_the_first_byte(parts):
    got, error = streamed(*parts)
    assert (got, type(error), error.status) == ([], TierFailed, 502)


AFTER = {
    "nothing": [],
    "only done": [DONE],
    "usage and done": [last(), DONE],
    "a page": [b"<html>\n\n"],
    "half an event": [b'data: {"id": "1", "cho'],
    "a broken event": [data(b'{"choices": [}'), DONE],
    "an error": [data({"error": {"message": "out of memory"}}), DONE],
    "broken off": [chunk(finish="error"), DONE],
    "null": [data(None)],
    "a document": [json.dumps(document()).encode()],
    "content is a number": [chunk(5), chunk(finish="stop"), DONE],
    "choices of texts": [data({"choices": ["x"]}), chunk(finish="stop"), DONE],
    "a failure": [TierFailed("it", "its replica failed")],
    "a second choice without an end": [
        data({"choices": [{"index": 1, "delta": {"role": "assistant"}}]}),
        chunk(finish="stop"),
        DONE,
    ],
}


@pytest.mark.parametrize("parts", AFTER.values(), ids=AFTER)
@pytest.mark.parametrize("together", [False, True])
def test_a_stream_that_breaks_is_a_failure_after_what_was_good(parts, together):
    """together: all bytes come at once."""
    parts = [chunk("Bog"), *parts]
    if together and all(isinstance(part, bytes) for part in parts):
        parts = [b"".join(parts)]
    got, error = streamed(*parts)
    assert isinstance(error, TierFailed)
    assert text_of(got) == "Bog" and "[DONE]" not in events_of(got)


def test_an_end_without_done_is_an_end_where_every_choice_has_its_finish_reason():
    got, error = streamed(chunk("Bogota"), chunk(finish="stop"), last())
    assert error is None and got[-1] == DONE and text_of(got) == "Bogota"


@PATHS
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("size", [7, 10_000])
def test_a_document_in_place_of_a_stream_becomes_its_chunks(path, indent, size):
    raw = json.dumps(document(path), indent=indent).encode()
    got, error = streamed(*(raw[at : at + size] for at in range(0, len(raw), size)), path=path)
    *chunks, done = events_of(got)
    assert error is None and done == "[DONE]" and text_of(got) == "Bogota"
    assert chunks[0]["choices"][0]["finish_reason"] == "stop" and "message" not in chunks[0]["choices"][0]
    assert chunks[0]["object"] == ("chat.completion.chunk" if path == CHAT else "text_completion")
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], USAGE)


def test_a_document_with_tool_calls_becomes_chunks_whose_calls_have_indexes():
    calls = [{"id": str(n), "type": "function", "function": {"name": "f", "arguments": "{}"}} for n in range(2)]
    said = document(message={"role": "assistant", "content": None, "tool_calls": calls}, finish_reason="tool_calls")
    got, _ = streamed(json.dumps(said).encode())
    choice = events_of(got)[0]["choices"][0]
    assert [c["index"] for c in choice["delta"]["tool_calls"]] == [0, 1] and choice["finish_reason"] == "tool_calls"


def test_a_document_sent_as_an_event_becomes_a_chunk():
    got, error = streamed(data(document()), DONE)
    assert error is None and text_of(got) == "Bogota"


PLAIN = [chunk("Bog"), chunk("ota"), chunk(finish="stop"), last(), DONE]
DIALECTS = {
    "no space": b"".join(PLAIN).replace(b"data: ", b"data:"),
    "CRLF": b"".join(PLAIN).replace(b"\n", b"\r\n"),
    "CR": b"".join(PLAIN).replace(b"\n", b"\r"),
    "fields": b"".join(b"event: message\nid: 7\nretry: 100\n" + part for part in PLAIN),
    "fields after": b"".join(part[:-1] + b"id: 7\n\n" for part in PLAIN),
    "a byte order mark": b"\xef\xbb\xbf" + b"".join(PLAIN),
    "comments": b"".join(b": keep-alive\n\n:\n\n" + part for part in PLAIN),
    "a comment in the event": b"".join(b": keep-alive\n" + part for part in PLAIN),
    "more blank lines": b"\n\n" + b"\n\n".join(PLAIN),
    "no blank line at the end": b"".join(PLAIN)[:-2],
    "several lines of data": b"".join(PLAIN).replace(b', "choices"', b',\ndata: "choices"'),
    "empty data": b"".join(b"data:\n\ndata\n\n" + part for part in PLAIN),
    "space after done": b"".join(PLAIN)[:-2] + b" \n\n",
}


@pytest.mark.parametrize("raw", DIALECTS.values(), ids=DIALECTS)
@pytest.mark.parametrize("size", [1, 3, 64, 10_000])
def test_every_dialect_of_events_is_read_however_it_is_cut(raw, size):
    got, error = streamed(*(raw[at : at + size] for at in range(0, len(raw), size)))
    assert error is None
    assert events_of(got) == events_of(PLAIN)


def test_chunks_without_choices_are_left_out_unless_they_have_usage():
    filtered = data({"choices": [], "prompt_filter_results": []})
    got, error = streamed(filtered, *PLAIN[:2], filtered, *PLAIN[2:])
    assert error is None and events_of(got) == events_of(PLAIN)


def test_usage_without_choices_gets_empty_ones():
    got, _ = streamed(*PLAIN[:3], data({"model": "it", "usage": USAGE}), DONE)
    assert events_of(got)[-2]["choices"] == []


@pytest.mark.parametrize("said", [{"reasoning_content": "hm"}, {"tool_calls": [{"function": {"name": "f"}}]}, {"refusal": "no"}])
def test_thoughts_calls_and_refusals_are_tokens_too(said):
    got, error = streamed(data({"model": "it", "choices": [{"index": 0, "delta": said}]}), chunk(finish="stop"), DONE)
    assert error is None and len(got) == 3


def test_an_event_without_bound_and_a_stream_without_bound_are_failures(monkeypatch):
    monkeypatch.setattr(reported_usage, "DOCUMENT_BYTES", 0)
    got, error = streamed(*[chunk("x")] * 1_000, chunk(finish="stop"), DONE, max_tokens=1)
    assert isinstance(error, TierFailed) and 0 < len(got) < 1_000
    assert streamed(*[chunk("x")] * 1_000, chunk(finish="stop"), DONE)[1] is None
    got, error = streamed(chunk("x" * 70_000), chunk(finish="stop"), DONE, max_tokens=1)
    assert isinstance(error, TierFailed) and not got
    got, error = streamed(json.dumps(document(x="y" * 70_000)).encode(), max_tokens=1)
    assert isinstance(error, TierFailed) and not got


@pytest.mark.parametrize("parts", [[5.0], [b": x\n\n", 0.03] * 100, [chunk(""), 5.0]], ids=["silence", "comments", "a role"])
def test_the_limit_of_the_first_token_holds_and_comments_are_no_token(parts):
    got, error = streamed(*parts, first_token_s=0.1)
    assert isinstance(error, NoReplica) and "no first token within 0.1 s" in str(error) and not got


def test_after_the_first_token_there_is_no_such_limit():
    got, error = streamed(chunk("Bog"), 0.2, chunk("ota", "stop"), DONE, first_token_s=0.1)
    assert error is None and text_of(got) == "Bogota"


NOTHING = [0.15, b": wait\n\n", 0.15, b'data: {"choices": []}\n\n']


@pytest.mark.parametrize("silence", [[0.4], NOTHING * 2, [0.15, chunk("")] * 3], ids=["silence", "comments", "empty chunks"])
def test_a_stream_that_falls_silent_ends_and_what_says_nothing_is_silence(silence):
    got, error = streamed(chunk("Bog"), *silence, 5.0, idle_s=0.25)
    assert isinstance(error, TierSilent) and (error.status, error.code) == (504, "tier_silent") and "0.25 s" in str(error)
    assert b"Bog" in got[0]


@pytest.mark.parametrize("said", [{"content": "o"}, {"reasoning": "hm"}, {"tool_calls": [{"index": 0, "id": "a"}]}])
def test_a_stream_that_says_something_now_and_then_goes_on(said):
    piece = data({"id": "1", "object": "x", "created": 1, "model": "it", "choices": [{"index": 0, "delta": said}]})
    got, error = streamed(chunk("Bog"), *[0.15, piece] * 4, 0.15, chunk("ta", "stop"), 0.15, DONE, idle_s=0.25)
    assert error is None and got[-1] == DONE


def test_the_time_in_which_a_client_reads_is_no_silence():
    got, error = streamed(chunk("Bog"), chunk("ota"), chunk("", "stop"), DONE, idle_s=0.1, reads_s=0.2)
    assert error is None and text_of(got) == "Bogota"


def test_comments_in_the_middle_are_passed_on_in_our_words():
    got, _ = streamed(chunk("Bog"), b': "error":{ [DONE]\n\n', chunk("ota", "stop"), DONE)
    assert got[1] == b": waiting\n\n"


def test_an_upstream_that_stays_open_after_done_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(tier_answer, "REST_S", 0.05)
    tier = Says(*PLAIN, 60.0)

    async def run():
        return [item async for item in watched(tier).stream(CHAT, BODIES[CHAT])]

    assert events_of(asyncio.run(run())) == events_of(PLAIN)
    assert tier.left


def test_a_stream_that_nobody_reads_on_is_closed():
    tier = Says(chunk("Bog"), 60.0)

    async def run():
        events = watched(tier).stream(CHAT, BODIES[CHAT])
        await anext(events)
        await events.aclose()

    asyncio.run(run())
    assert tier.left


def test_a_stream_that_breaks_before_its_first_token_opens_the_circuit():
    it = watched(Says(b"<html>\n\n"))

    async def ask():
        return [item async for item in it.stream(CHAT, BODIES[CHAT])]

    for _ in range(3):
        with pytest.raises(TierFailed):
            asyncio.run(ask())
    with pytest.raises(NoReplica, match="failed several times"):
        asyncio.run(ask())


# -- usage ------------------------------------------------------------------------------------------------------------------

TRUE = {
    "OpenAI": ({**USAGE, "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": 0}}, USAGE, 1),
    "without a total": ({"prompt_tokens": 3, "completion_tokens": 2}, USAGE, 0),
    "another total": ({**USAGE, "total_tokens": 999}, USAGE, 0),
    "a total of true": ({**USAGE, "total_tokens": True}, USAGE, 0),
    "a cheaper total": ({**USAGE, "total_tokens": -5}, USAGE, 0),
    "DeepSeek": ({**USAGE, "prompt_cache_hit_tokens": 2, "prompt_cache_miss_tokens": 1}, USAGE, 2),
    "Anthropic": ({"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 2}, USAGE, 2),
    "Anthropic, written": ({"input_tokens": 1, "output_tokens": 2, "cache_creation_input_tokens": 2}, USAGE, 0),
    "Responses": ({"input_tokens": 3, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 2}}, USAGE, 2),
    "Moonshot": ({**USAGE, "cached_tokens": 3}, USAGE, 3),
    "details null": ({**USAGE, "prompt_tokens_details": None, "completion_tokens_details": None}, USAGE, 0),
    "more cached than prompt": ({**USAGE, "prompt_tokens_details": {"cached_tokens": 4}}, USAGE, 0),
    "fewer than none cached": ({**USAGE, "prompt_tokens_details": {"cached_tokens": -4}}, USAGE, 0),
    "cached is a text": ({**USAGE, "prompt_tokens_details": {"cached_tokens": "1"}}, USAGE, 0),
    "cached is true": ({**USAGE, "prompt_tokens_details": {"cached_tokens": True}}, USAGE, 0),
    "details are a list": ({**USAGE, "prompt_tokens_details": [1]}, USAGE, 0),
    "our own report": ({**USAGE, "stepdown": {"cost_usd": -1}}, USAGE, 0),
}
UNTRUE = {
    "negative": {"prompt_tokens": -500, "completion_tokens": -700},
    "negative completion": {**USAGE, "completion_tokens": -2},
    "negative prompt": {**USAGE, "prompt_tokens": -3},
    "no prompt": {**USAGE, "prompt_tokens": 0},
    "prompt missing": {"completion_tokens": 2},
    "completion missing": {"prompt_tokens": 3},
    "only a total": {"total_tokens": 5},
    "nothing known": {"tokens": 5},
    "nulls": {"prompt_tokens": None, "completion_tokens": None},
    "prompt beyond the window": {**USAGE, "prompt_tokens": 1_001},
    "completion beyond the limit": {**USAGE, "completion_tokens": 11},
    "absurd": {**USAGE, "completion_tokens": 10**30},
    "true": {"prompt_tokens": True, "completion_tokens": True},
    "floats": {"prompt_tokens": 3.0, "completion_tokens": 2.5},
    "texts": {"prompt_tokens": "3", "completion_tokens": "2"},
    "lists": {"prompt_tokens": [3], "completion_tokens": {}},
    "no completion with text": {**USAGE, "completion_tokens": 0},
    "usage is a list": [3, 2],
    "usage is a text": "3",
    "usage is a number": 5,
    "empty": {},
}


def both_ways(usage, **changes):
    """The usage that callers get of a document and of a stream, and the cached tokens of their readings."""
    readings = [Reading(), Reading()]
    found = whole(document(usage=usage), reading=readings[0], **changes).get("usage")
    got, error = streamed(chunk("Bog"), chunk("ota", "stop"), last(usage), DONE, reading=readings[1], **changes)
    assert error is None and text_of(got) == "Bogota"
    in_stream = [e["usage"] for e in events_of(got) if e != "[DONE]" and e.get("usage")]
    return found, (in_stream[0] if in_stream else None), [reading.cached_tokens for reading in readings]


@pytest.mark.parametrize("usage, right, cached", TRUE.values(), ids=TRUE)
def test_every_dialect_of_usage_becomes_openais(usage, right, cached):
    found, in_stream, readings = both_ways(usage)
    assert found == in_stream and {name: found[name] for name in right} == right
    assert (found.get("prompt_tokens_details") or {}).get("cached_tokens", 0) == cached and readings == [cached] * 2
    assert set(found) <= {*USAGE, "prompt_tokens_details", "completion_tokens_details"}


@pytest.mark.parametrize("usage", UNTRUE.values(), ids=UNTRUE)
def test_usage_that_cannot_be_true_is_no_usage(usage):
    assert both_ways(usage, max_tokens=10) == (None, None, [0, 0])


@pytest.mark.parametrize(
    "usage, completion, reasoning",
    [
        ({**USAGE, "completion_tokens_details": {"reasoning_tokens": 1}}, 2, 1),
        ({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 25, "reasoning_tokens": 20}, 22, 20),
        ({**USAGE, "completion_tokens_details": {"reasoning_tokens": 20}}, 2, None),
        ({**USAGE, "completion_tokens_details": {"reasoning_tokens": -1}}, 2, None),
    ],
    ids=["part of it", "beside it", "too many", "negative"],
)
def test_reasoning_is_part_of_the_completion(usage, completion, reasoning):
    found, in_stream, _ = both_ways(usage)
    assert found == in_stream and found["completion_tokens"] == completion
    assert found.get("completion_tokens_details", {}).get("reasoning_tokens") == reasoning


def test_reasoning_beside_the_answer_may_exceed_its_limit():
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 25, "reasoning_tokens": 20}
    assert both_ways(usage, max_tokens=10)[0]["completion_tokens"] == 22
    assert both_ways(usage | {"total_tokens": 2005, "reasoning_tokens": 2000}, max_tokens=10)[0] is None


def test_several_answers_may_use_as_much_together():
    assert both_ways({**USAGE, "completion_tokens": 30}, max_tokens=10, n=3)[0]["completion_tokens"] == 30
    assert both_ways({**USAGE, "completion_tokens": 31}, max_tokens=10, n=3)[0] is None


def test_a_long_text_is_not_one_token():
    text = "word " * 1_000
    assert "usage" not in whole(document(message={"content": text}, usage={**USAGE, "completion_tokens": 1}))
    assert "usage" in whole(document(message={"content": text}, usage={**USAGE, "completion_tokens": 900}))


def test_usage_in_a_choice_is_read_there():
    said = document(usage=None)
    said["choices"][0]["usage"] = USAGE
    assert whole(said)["usage"] == USAGE
    end = data({"id": "1", "model": "it", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]})
    assert events_of(streamed(chunk("Bogota"), end, DONE)[0])[-2]["usage"] == USAGE


def test_usage_with_the_last_chunk_is_read_there():
    got, _ = streamed(chunk("Bog"), chunk("ota", "stop", usage={"prompt_tokens": -1}), DONE)
    assert text_of(got) == "Bogota" and not any("usage" in e for e in events_of(got)[:-1])


def test_a_measured_cache_is_bounded_by_the_prompt():
    reading = Reading(cached_tokens=50)
    whole(document(), reading=reading)
    assert reading.cached_tokens == 3


def test_untrue_figures_are_told_once(caplog):
    it = watched(Says(json.dumps(document(usage=UNTRUE["negative"])).encode()))
    with caplog.at_level(logging.WARNING, "stepdown"):
        for _ in range(3):
            asyncio.run(it.complete(CHAT, BODIES[CHAT]))
    (record,) = caplog.records
    assert "tier it" in record.getMessage() and "-500 prompt tokens" in record.getMessage()
