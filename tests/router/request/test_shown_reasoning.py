"""Reasoning under the wanted name, or hidden without a trace."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.config import Server
from router.request.shown_reasoning import ShownReasoning
from router.tier_settings import Reasoning

BODY = {"messages": [{"role": "user", "content": "6 * 7"}]}


def shown(hide: bool = False, field: Any = None, **more: Any) -> ShownReasoning:
    made = ShownReasoning.of(Server(reasoning="hide" if hide else "pass", reasoning_field=field), BODY, **more)
    assert made
    return made


def token(text: str) -> dict[str, Any]:
    return {"token": text, "logprob": -0.1}


def document(**message: Any) -> dict[str, Any]:
    return {"id": "a", "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}]}


def chunk(finish: str | None = None, index: int = 0, tokens: list[str] | None = None, **delta: Any) -> dict[str, Any]:
    logged = {"logprobs": {"content": [token(t) for t in tokens]}} if tokens else {}
    return {"id": "a", "choices": [{"index": index, "delta": delta, "finish_reason": finish, **logged}]}


def passed(how: ShownReasoning, *chunks: dict[str, Any]) -> list[dict[str, Any]]:
    return [made["choices"][0]["delta"] for data in chunks if (made := how.chunk(data))]


# -- who asks for it -------------------------------------------------------------------------------------------------------


def test_answers_pass_as_they_are_unless_somebody_wants_otherwise() -> None:
    assert ShownReasoning.of(Server(), BODY) is None
    assert ShownReasoning.of(Server(), BODY, Reasoning()) is None
    assert ShownReasoning.of(Server(reasoning="hide"), {"prompt": "a"}) is None


def test_another_protocol_reads_one_field() -> None:
    made = ShownReasoning.of(Server(reasoning_field="both"), BODY, field="reasoning")
    assert made and made.names == ("reasoning",)
    hidden = ShownReasoning.of(Server(reasoning="hide"), BODY, field="reasoning")
    assert hidden and hidden.hides


def test_a_client_may_ask_for_none() -> None:
    asked = {**BODY, "include_reasoning": False}
    made = ShownReasoning.of(Server(reasoning_field="both"), asked, Reasoning())
    assert made and made.hides
    assert ShownReasoning.of(Server(), asked) is None  # its tier is told, and hides it
    assert ShownReasoning.of(Server(), {**BODY, "include_reasoning": True}, Reasoning()) is None


# -- whole answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field, names", [("reasoning", 1), ("reasoning_content", 1), ("both", 2)])
@pytest.mark.parametrize(
    "said",
    [{"content": "42", "reasoning": "hm"}, {"content": "42", "reasoning_content": "hm"}, {"content": "<think>hm</think>42"}],
)
def test_one_name_whatever_the_tier_calls_it(field: Any, names: int, said: dict[str, Any]) -> None:
    message = shown(field=field).document(document(**said))["choices"][0]["message"]
    found = {k: v for k, v in message.items() if k.startswith("reasoning")}
    assert message["content"] == "42" and set(found.values()) == {"hm"} and len(found) == names
    assert field == "both" or field in found


@pytest.mark.parametrize("field", [None, "both"])
def test_hidden_in_a_document(field: Any) -> None:
    given = document(content="\n\n42", reasoning="hm", reasoning_content="hm", reasoning_details=[{"text": "hm"}])
    given["choices"][0] |= {"logprobs": {"content": [token(t) for t in ("hm", "</think>", "42")]}, "token_ids": [1, 2]}
    made = shown(hide=True, field=field).document(given)
    assert made["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "\n\n42"},
            "finish_reason": "stop",
            "logprobs": {"content": [token("42")]},
        }
    ]
    assert given["choices"][0]["message"]["reasoning"] == "hm"  # it is kept as it came


def test_nothing_to_hide_nothing_changed() -> None:
    for message in ({"content": "42"}, {"content": None, "tool_calls": [{}]}, {"content": "a <think>"}):
        assert shown(hide=True).document(document(**message)) == document(**message)


# -- streams ---------------------------------------------------------------------------------------------------------------

VLLM = (
    chunk(role="assistant", content=""),
    chunk(reasoning="h", tokens=["h"]),
    chunk(reasoning="m", tokens=["m"]),
    chunk(content="4", tokens=["4"]),
    chunk(content="2", tokens=["2"]),
    chunk("stop"),
)
RAW = (
    chunk(role="assistant", content=""),
    chunk(content="<think>", tokens=["<think>"]),
    chunk(content="hm", tokens=["hm"]),
    chunk(content="</think>", tokens=["</think>"]),
    chunk(content="\n\n", tokens=["\n\n"]),
    chunk(content="42", tokens=["42"]),
    chunk("stop"),
)


def test_named_in_a_stream() -> None:
    assert passed(shown(field="both"), *VLLM)[1] == {"reasoning": "h", "reasoning_content": "h"}
    assert passed(shown(field="reasoning_content"), *RAW) == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "hm"},
        {"content": "42"},
        {},
    ]


@pytest.mark.parametrize("chunks", [VLLM, RAW])
def test_hidden_in_a_stream(chunks: tuple[dict[str, Any], ...]) -> None:
    how = shown(hide=True)
    made = [one for data in chunks if (one := how.chunk(data))]
    assert "".join(one["choices"][0]["delta"].get("content") or "" for one in made) == "42"
    assert "hm" not in json.dumps(made) and '"h"' not in json.dumps(made) and "think" not in json.dumps(made)
    tokens = [t["token"] for one in made for t in (one["choices"][0].get("logprobs") or {}).get("content", [])]
    assert "".join(tokens) == "42"
    assert made[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_token_whose_piece_waited_comes_with_the_next() -> None:
    how = shown(hide=True)
    made = [one for data in (chunk(content="<", tokens=["<"]), chunk(content="b>", tokens=["b>"])) if (one := how.chunk(data))]
    assert len(made) == 1 and made[0]["choices"][0]["delta"] == {"content": "<b>"}
    assert [t["token"] for t in made[0]["choices"][0]["logprobs"]["content"]] == ["<", "b>"]


def test_what_still_waits_comes_with_the_end() -> None:
    assert passed(shown(hide=True), chunk(content="<thi"), chunk("stop")) == [{"content": "<thi"}]
    assert passed(shown(hide=True), chunk("length", content="<think>hm</thi")) == [{}]


def test_answers_side_by_side_are_read_each_for_itself() -> None:
    how = shown(hide=True)
    given = [chunk(index=i, content=text) for text in ("<think>", "hm", "</think>", "4") for i in (0, 1)]
    made = [one for data in given if (one := how.chunk(data))]
    assert [(one["choices"][0]["index"], one["choices"][0]["delta"]) for one in made] == [
        (0, {"content": "4"}),
        (1, {"content": "4"}),
    ]


def test_a_chunk_of_usage_passes() -> None:
    usage = {"id": "a", "choices": [], "usage": {"completion_tokens": 3}}
    assert shown(hide=True).chunk(usage) == usage


def test_a_silent_client_gets_a_sign_now_and_then() -> None:
    how = shown(hide=True)
    assert [how.silent(at) for at in (0.0, 1.0, 4.9, 5.0, 6.0, 10.1)] == [True, False, False, True, False, True]


PIECES = st.lists(
    st.one_of(
        st.fixed_dictionaries({"reasoning": st.sampled_from(["SECRET", "SEC"])}),
        st.fixed_dictionaries({"content": st.sampled_from(["4", " ", "<b>"])}),
        st.fixed_dictionaries({"reasoning_content": st.just("SECRET"), "content": st.just("4")}),
        st.just({"tool_calls": [{"index": 0}]}),
    ),
    max_size=8,
)


@settings(max_examples=100)
@given(PIECES)
def test_nothing_hidden_leaves_whatever_the_pieces(pieces: list[dict[str, Any]]) -> None:
    how = shown(hide=True)
    chunks = [chunk(tokens=["SECRET"] if any(k.startswith("reas") for k in p) else ["4"], **p) for p in pieces]
    made = [one for data in (*chunks, chunk("stop")) if (one := how.chunk(data))]
    assert "SEC" not in json.dumps(made)
    assert "".join(one["choices"][0]["delta"].get("content") or "" for one in made) == "".join(
        p.get("content", "") for p in pieces
    )
