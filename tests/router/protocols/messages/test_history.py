"""Conversations as chat messages: nothing is lost that a chat can hold."""

import pytest
from messages_client import ABOUT, FakeSeals

from router.errors import BadRequest
from router.protocols.messages import read

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
SHOWN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
SEALS = FakeSeals()


def text(said, **more):
    return {"type": "text", "text": said, **more}


def user(*blocks):
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks):
    return {"role": "assistant", "content": list(blocks)}


def thinking(said, tier="small", **more):
    return {"type": "thinking", "thinking": said, "signature": SEALS.signature(said, tier), **more}


def asked(*messages):
    return read({"model": "auto", "max_tokens": 100, "messages": list(messages)}, ABOUT)


def chat(*messages):
    return asked(*messages).body["messages"]


def after(message):
    """The message as it is read where another follows it."""
    return chat(user(text("hi")), message, user(text("go on")))[1]


def test_a_tool_loop_keeps_ids_and_order():
    assert chat(
        {"role": "user", "content": "weather?"},
        assistant(
            text("Let me see."),
            {
                "type": "tool_use",
                "id": "call_sd_a_0",
                "name": "weather",
                "input": {"city": "Zürich"},
                "cache_control": {"type": "ephemeral"},
            },
            {"type": "tool_use", "id": "toolu_1", "name": "now", "input": {}},
        ),
        user(
            text("and be quick"),
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": [text("12:00"), text("UTC")]},
            {"type": "tool_result", "tool_use_id": "call_sd_a_0", "content": "no such city", "is_error": True},
        ),
    ) == [
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "call_sd_a_0", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Zürich"}'}},
                {"id": "toolu_1", "type": "function", "function": {"name": "now", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "12:00\nUTC"},
        {"role": "tool", "tool_call_id": "call_sd_a_0", "content": "error: no such city"},
        {"role": "user", "content": "and be quick"},
    ]


def test_images_of_a_result_follow_as_the_users():
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [IMAGE, text("a cat")]}
    assert chat(user(result, text("what is it?"))) == [
        {"role": "tool", "tool_call_id": "t1", "content": "a cat"},
        {"role": "user", "content": [SHOWN, {"type": "text", "text": "what is it?"}]},
    ]


@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": ""}, {"content": []}])
def test_a_result_may_be_empty(content):
    assert chat(user({"type": "tool_result", "tool_use_id": "t1", **content})) == [
        {"role": "tool", "tool_call_id": "t1", "content": ""}
    ]


def test_a_call_alone_has_no_content():
    assert after(assistant({"type": "tool_use", "id": "t", "name": "f", "input": None}))["content"] is None


def test_texts_of_one_answer_are_joined_as_they_are():
    assert after(assistant(text("a "), text("b"))) == {"role": "assistant", "content": "a b"}


def test_system_messages_stay_in_place_without_the_billing_header():
    billing = text("x-anthropic-billing-header: cc_version=1")
    assert chat(
        user(text("a")), {"role": "system", "content": [billing, text("b")]}, {"role": "system", "content": [billing]}
    ) == [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]


def test_pictures_by_address():
    assert chat(user({"type": "image", "source": {"type": "url", "url": "https://a/b.png"}}))[0]["content"] == [
        {"type": "image_url", "image_url": {"url": "https://a/b.png"}}
    ]


@pytest.mark.parametrize(
    "source, expected",
    [
        ({"type": "text", "media_type": "text/plain", "data": "words"}, "T\n\nC\n\nwords"),
        ({"type": "content", "content": "words"}, [text("T\n\nC"), text("words")]),
        ({"type": "content", "content": [text("words"), IMAGE]}, [text("T\n\nC"), text("words"), SHOWN]),
    ],
)
def test_documents_of_text(source, expected):
    assert chat(user({"type": "document", "source": source, "title": "T", "context": "C"}))[0]["content"] == expected


@pytest.mark.parametrize("kind", ["base64", "url", "file"])
def test_a_pdf_is_refused_with_the_way_out(kind):
    with pytest.raises(BadRequest, match="send the document's text"):
        chat(user({"type": "document", "source": {"type": kind, "media_type": "application/pdf", "data": "AAAA"}}))


def test_search_results_and_references_are_text():
    found = {"type": "search_result", "source": "https://a", "title": "A", "content": [text("b")]}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "tool_reference", "tool_name": "f"}]}
    assert chat(user(result, found)) == [
        {"role": "tool", "tool_call_id": "t", "content": "available tool: f"},
        {"role": "user", "content": "A\n\nhttps://a\n\nb"},
    ]


def test_blocks_that_a_chat_cannot_hold_are_told():
    used = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    got = asked(user(text("a")), assistant(used, text("b")), user(text("c"), {"type": "container_upload", "file_id": "f"}))
    assert [m["content"] for m in got.body["messages"]] == ["a", "b", "c"]
    assert set(got.ignored) == {"content.server_tool_use", "content.container_upload"}


# -- reasoning -------------------------------------------------------------------------------------------------------------


def test_our_reasoning_comes_back_with_its_tier():
    assert after(assistant(thinking("hm"), text("a"))) == {
        "role": "assistant",
        "content": "a",
        "reasoning": "hm",
        "reasoning_tier": "small",
    }


@pytest.mark.parametrize(
    "block",
    [
        thinking("hm", signature="theirs"),
        thinking("hm", signature=""),
        thinking("hm", signature=None),
        {**thinking("hm"), "thinking": "changed"},
        {**thinking("hm"), "thinking": 3},
        {**thinking("hm"), "thinking": ""},
        {"type": "thinking"},
        thinking("hm", signature="\ud83d"),
        {**thinking("hm"), "thinking": "\ud83d"},
        {"type": "redacted_thinking", "data": "theirs"},
        {"type": "redacted_thinking", "data": None},
        {"type": "redacted_thinking", "data": "\ud83d"},
    ],
)
def test_reasoning_that_is_not_ours_is_left_out(block):
    assert after(assistant(block, text("a"))) == {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    "block",
    [{"type": "redacted_thinking", "data": SEALS.sealed("hm", "large")}, thinking("", signature=SEALS.sealed("hm", "large"))],
)
def test_sealed_reasoning_is_opened(block):
    assert (after(assistant(block))["reasoning"], after(assistant(block))["reasoning_tier"]) == ("hm", "large")


def test_only_the_last_tiers_reasoning_is_kept():
    got = after(assistant(thinking("a"), thinking("b", "large"), thinking("c", "large"), text("x")))
    assert (got["reasoning"], got["reasoning_tier"]) == ("bc", "large")


@pytest.mark.parametrize(
    "block, named",
    [
        ({"type": "tool_use", "name": "f", "input": {}}, ".id"),
        ({"type": "tool_use", "id": "t", "input": {}}, ".name"),
        ({"type": "tool_use", "id": "t", "name": "f", "input": "{}"}, ".input"),
        ({"type": "tool_use", "id": "t", "name": "f", "input": {"a": float("nan")}}, ".input"),
    ],
)
def test_a_call_that_cannot_be_repeated_is_refused(block, named):
    with pytest.raises(BadRequest) as caught:
        after(assistant(block))
    assert caught.value.param == f"messages[1].content[0]{named}"


@pytest.mark.parametrize(
    "block, named",
    [
        ({"type": "tool_result", "content": "x"}, ".tool_use_id"),
        ({"type": "tool_result", "tool_use_id": "t", "content": 3}, ".content"),
        ({"type": "tool_result", "tool_use_id": "t", "is_error": "yes"}, ".is_error"),
        ({"type": "image"}, ".source"),
        ({"type": "image", "source": {"type": "file", "file_id": "f"}}, ".source.type"),
        ({"type": "image", "source": {"type": "base64", "data": "AAAA"}}, ".source.media_type"),
        ({"type": "document", "source": {"type": "content", "content": [{"type": "document"}]}}, ".source.content[0].type"),
    ],
)
def test_a_block_that_lacks_something_is_refused(block, named):
    with pytest.raises(BadRequest) as caught:
        chat(user(block))
    assert caught.value.param == f"messages[0].content[0]{named}"
