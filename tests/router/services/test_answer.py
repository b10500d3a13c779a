"""What a service's answer says of itself."""

import json

import pytest

from router.services.answer import Refused, read
from router.services.body import parse

TWO = {
    "embeddings": {"input": ["a", "b"]},
    "rerank": {"query": "q", "documents": ["a", "b"]},
    "score": {"text_1": "q", "text_2": ["a", "b"]},
}


def asked(kind: str):
    return parse(kind, json.dumps({"model": "it", **TWO[kind]}).encode())


def answer(kind: str, **fields):
    return read(asked(kind), json.dumps(fields).encode(), 100)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 7, "total_tokens": 9}, 7),
        ({"total_tokens": 9}, 9),
        ({"input_tokens": 8}, 8),
        ({"prompt_tokens": 200}, 200),
        ({"prompt_tokens": 201}, None),  # two inputs of 100 tokens at most
        ({"prompt_tokens": 0}, None),
        ({"prompt_tokens": True}, None),
        ({"prompt_tokens": "7"}, None),
        ({"prompt_tokens": 7.5}, None),
        ({"x": 1}, None),
        ({"x": "y" * 20_000, "prompt_tokens": 7}, None),
        (None, None),
        ([], None),
    ],
)
def test_tokens_are_those_of_the_usage_if_they_can_be_true(usage, tokens):
    assert answer("embeddings", data=[{}, {}], usage=usage).tokens == tokens


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("embeddings", {"data": [{"embedding": [0.1, -2e-5]}, {"embedding": "AAAA"}]}),
        ("rerank", {"results": [{"index": 1, "relevance_score": 0.5}]}),
        ("rerank", {"results": [{"document": {"usage": {"prompt_tokens": 1}, "model": "x"}}, {}]}),
        ("rerank", {"data": [{}, {}]}),
        ("score", {"data": [{"score": 1}, {"score": 0}]}),
    ],
)
def test_an_answer_passes_under_the_name_that_was_asked_for_and_else_as_it_is(kind, fields):
    raw = json.dumps({"model": "upstream", **fields}).encode()
    found = read(asked(kind), raw, 100)
    assert found.raw == raw.replace(b'"model": "upstream"', b'"model": "it"') and found.tokens is None


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("embeddings", {"data": [{}]}, "1 entries for 2 inputs"),
        ("embeddings", {"data": [{}, {}, {}]}, "3 entries for 2 inputs"),
        ("embeddings", {"data": [0.5, 0.5]}, "0 entries"),
        ("embeddings", {"data": {"a": {}, "b": {}}}, "no list `data`"),
        ("embeddings", {"embeddings": [[1], [2]]}, "no list `data`"),
        ("rerank", {"results": []}, "0 entries"),
        ("rerank", {"results": [{}, {}, {}]}, "3 entries"),
        ("score", {"data": [{}]}, "1 entries"),
        ("score", {}, "no list `data`"),
    ],
)
def test_what_is_no_answer(kind, fields, words):
    with pytest.raises(ValueError, match=words):
        answer(kind, **fields)


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b'{"data": [{}, {}]', b"<html>"])
def test_what_is_no_object_is_no_answer(raw):
    with pytest.raises(ValueError):
        read(asked("embeddings"), raw, 100)


def test_an_error_in_place_of_an_answer_is_told_apart():
    assert answer("embeddings", error={"message": "no"}) == Refused({"message": "no"})
    assert answer("embeddings", error=None, data=[{}, {}]).tokens is None
