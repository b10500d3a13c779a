"""A lower bound of tokens is one, for every tokenizer that is said to have it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from deployments.tiers.token_counters import counter, longest_token
from router.cheap_bound import fewest_tokens, surely_too_long
from router.config import SHIPPED

RAW = (SHIPPED.parent / "pocket/models/large/tokenizer.json").read_bytes()
COUNT = counter(RAW)
TOKENIZER = Tokenizer.from_buffer(RAW)


@given(st.text(max_size=200) | st.sampled_from(["Calculate " * 50, " " * 500, "<|user|>" * 40, "é" * 300, "e\u0301" * 300]))
def test_no_text_has_fewer_tokens(text):
    readable = text.encode("utf-8", "replace").decode()
    assert fewest_tokens(text, COUNT) <= len(TOKENIZER.encode(readable, add_special_tokens=False))


def test_long_and_short_texts_are_counted_alike():
    text = "Calculate 17 + 4, then name the capital of Norway. " * 200
    assert COUNT(text) - 8 == len(TOKENIZER.encode(text, add_special_tokens=False))


def test_only_what_surely_exceeds_the_window_is_refused_uncounted():
    assert surely_too_long("a" * 100_000, 512, COUNT)
    assert not surely_too_long("a" * 600, 512, COUNT)
    assert not surely_too_long("a" * 100_000, 512, len)  # nothing is known of its tokens


@pytest.mark.parametrize(
    "change, bounded",
    [
        ({}, True),
        ({"normalizer": {"type": "NFC"}}, True),
        ({"normalizer": {"type": "Strip"}}, False),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Replace"}]}}, False),
        ({"pre_tokenizer": {"type": "Whitespace"}}, False),
        ({"model": {"type": "Unigram", "vocab": []}}, False),
        ({"added_tokens": [{"content": "<x>", "rstrip": True}]}, False),
    ],
)
def test_tokenizers_that_make_text_disappear_have_no_bound(change, bounded):
    assert (longest_token({**json.loads(RAW), **change}) > 0) is bounded
