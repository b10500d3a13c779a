"""Bodies of embeddings, rerank and score."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import BadRequest
from router.services.body import MARKS, MOST_INPUTS, READERS, parse


def body(kind: str, **fields):
    return parse(kind, json.dumps({"model": "it", **fields}).encode())


def exact(text: str) -> int:
    return len(text.split())


exact.exact = True


@pytest.mark.parametrize(
    ("kind", "fields", "inputs", "reads"),
    [
        ("embeddings", {"input": "a b"}, 1, [("a b", 1)]),
        ("embeddings", {"input": ["a", "b c"], "encoding_format": "base64", "dimensions": 3}, 2, [("a", 1), ("b c", 1)]),
        ("embeddings", {"input": [5, 6, 7], "encoding_format": None}, 1, [(3, 1)]),
        ("embeddings", {"input": [[5], [6, 7]], "of_tomorrow": {"x": 1}}, 2, [(1, 1), (2, 1)]),
        ("embeddings", {"input": "[]"}, 1, [("[]", 1)]),
        ("rerank", {"query": "q", "documents": ["a", {"text": "b"}], "top_n": 1}, 2, [("q", 2), ("a", 1), ('{"text": "b"}', 1)]),
        ("rerank", {"query": "q", "documents": "a"}, 1, [("q", 1), ("a", 1)]),
        ("score", {"text_1": "q", "text_2": ["a", "b"]}, 2, [("q", 2), ("a", 1), ("b", 1)]),
        ("score", {"queries": ["q", "r"], "documents": ["a", "b"]}, 2, [("q", 1), ("r", 1), ("a", 1), ("b", 1)]),
        ("score", {"queries": "q", "items": "a"}, 1, [("q", 1), ("a", 1)]),
        ("score", {"data_1": ["q"], "data_2": "a"}, 1, [("q", 1), ("a", 1)]),
    ],
)
def test_what_is_read(kind, fields, inputs, reads):
    asked = body(kind, **fields)
    assert (asked.inputs, list(asked.reads), asked.wanted) == (inputs, reads, "it")


@pytest.mark.parametrize(
    ("kind", "fields", "param", "words"),
    [
        ("embeddings", {}, "input", "`input` is missing"),
        ("embeddings", {"input": ""}, "input", "`input` is an empty text"),
        ("embeddings", {"input": []}, "input", "`input` is an empty list"),
        ("embeddings", {"input": ["a", ""]}, "input", "`input[1]` is an empty text"),
        ("embeddings", {"input": [[]]}, "input", "`input[0]` is an empty list"),
        ("embeddings", {"input": None}, "input", "`input` is null"),
        ("embeddings", {"input": 5}, "input", "`input` is a number"),
        ("embeddings", {"input": {"a": 1}}, "input", "`input` is an object"),
        ("embeddings", {"input": [True]}, "input", "`input[0]` is true or false"),
        ("embeddings", {"input": ["a", 1]}, "input", "`input[1]` is a number"),
        ("embeddings", {"input": [1, "a"]}, "input", "`input[0]` is a number"),
        ("embeddings", {"input": [[1], "a"]}, "input", "`input[1]` is a text"),
        ("embeddings", {"input": [1.5]}, "input", "`input[0]` is a number"),
        ("embeddings", {"input": [[1.5]]}, "input", "`input[0]` must hold token ids only"),
        ("embeddings", {"input": [-1]}, "input", "`input` must hold token ids only"),
        ("embeddings", {"input": [2**31]}, "input", "token ids"),
        ("embeddings", {"input": ["a"] * (MOST_INPUTS + 1)}, "input", "2,049 texts; send at most 2,048"),
        ("embeddings", {"input": "a", "encoding_format": "hex"}, "encoding_format", "float or base64"),
        ("embeddings", {"input": "a", "encoding_format": ["float"]}, "encoding_format", "found a list"),
        ("embeddings", {"input": "a", "dimensions": 0}, "dimensions", "from 1 to"),
        ("embeddings", {"input": "a", "dimensions": True}, "dimensions", "whole number"),
        ("rerank", {"query": "q"}, "documents", "`documents` is missing"),
        ("rerank", {"documents": ["a"]}, "query", "`query` is missing"),
        ("rerank", {"query": ["a", "b"], "documents": ["a"]}, "query", "one text"),
        ("rerank", {"query": "", "documents": ["a"]}, "query", "`query` must be a text that is not empty"),
        ("rerank", {"query": "q", "documents": ["a", 5]}, "documents", "`documents[1]` must be a text"),
        ("rerank", {"query": "q", "documents": ["a", {}]}, "documents", "found an empty object"),
        ("rerank", {"query": "q", "documents": ["a"], "top_n": 1.5}, "top_n", "whole number"),
        ("score", {}, "text_1", "`text_1` is missing"),
        ("score", {"text_1": "a", "documents": ["b"]}, "text_2", "`text_2` is missing"),
        ("score", {"text_1": ["a", "b"], "text_2": ["c"]}, "text_2", "`text_1` has 2 texts, `text_2` has 1"),
    ],
)
def test_what_is_refused_and_how(kind, fields, param, words):
    with pytest.raises(BadRequest) as refused:
        body(kind, **fields)
    assert refused.value.param == param and words in str(refused.value)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"[]", "found an empty list"),
        (b"{", "not JSON"),
        (b'{"model": 5}', "service for embeddings, found a number"),
        (b'{"input": "a"}', "found null"),
        (b'{"model": "", "input": "a"}', "found an empty text"),
        (b'{"model": "a", "input": "\\ud800"}', "lone surrogate"),
        (b'{"model": "a", "input": ' + b"[" * 200 + b"]" * 200 + b"}", "nests more than"),
    ],
)
def test_bodies_that_are_none(raw, words):
    with pytest.raises(BadRequest, match=words):
        parse("embeddings", raw)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["", "base64"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
NAMES = "model input encoding_format dimensions query documents top_n text_1 text_2 queries items data_1 data_2".split()


@given(st.sampled_from(sorted(READERS)), st.dictionaries(st.sampled_from(NAMES), ANY, max_size=5), st.booleans())
def test_any_body_is_read_or_refused(kind, fields, named):
    raw = json.dumps(fields | ({"model": "it"} if named else {})).encode()
    try:
        asked = parse(kind, raw)
    except BadRequest:
        return
    assert asked.inputs > 0 and json.loads(asked.named("other")) == json.loads(raw) | {"model": "other"}
    assert asked.usual_tokens() <= asked.most_tokens(len, 10**9)


def test_only_the_model_is_written_anew():
    raw = b'\xef\xbb\xbf { "model" : "it",  "input":["\\u00e9 \xc3\xa9", "b"] ,"model":"it", "x": 1.50}'
    assert parse("embeddings", raw).named("up/é") == (
        b' { "model" : "up/\\u00e9",  "input":["\\u00e9 \xc3\xa9", "b"] ,"model":"up/\\u00e9", "x": 1.50}'
    )


def test_tokens_are_counted_where_the_tokenizer_is_known_and_else_every_byte_is_one():
    asked = body("rerank", query="one two", documents=["three", "é"])
    assert asked.most_tokens(exact, 1_000) == 2 * 2 + 1 + 1 + 2 * MARKS
    assert asked.most_tokens(len, 1_000) == 2 * 7 + 5 + 2 + 2 * MARKS
    assert asked.most_tokens(len, 10) == 2 * 10  # nothing is read beyond the window
    assert body("embeddings", input=[[1, 2], [3]]).most_tokens(len, 1_000) == 3 + 2 * MARKS


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4))
def test_the_estimate_is_a_quarter_of_the_bytes_rounded_up(texts):
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    try:
        asked = body("embeddings", input=texts)
    except BadRequest:  # half a character
        return
    assert asked.usual_tokens() == math.ceil(size / 4)


def test_token_ids_are_counted_one_by_one():
    assert body("embeddings", input=[5, 6, 7]).usual_tokens() == 3
