"""The longest text behind one token, by which a prompt is refused without being counted: where it is not known, it is 0."""

import pytest

from deployments.tiers.token_counters import longest_token

pytestmark = pytest.mark.slow

BYTE_LEVEL = {"type": "BPE", "vocab": {"a": 0, "abcdef": 1}}
GOOD = {"model": BYTE_LEVEL, "pre_tokenizer": {"type": "ByteLevel"}}


def replaced(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


@pytest.mark.parametrize(
    "changes, longest",
    [
        ({}, 6),
        ({"normalizer": {"type": "NFC"}}, 18),
        ({"normalizer": replaced({"String": " "}, "\u2581")}, 6),
        ({"normalizer": replaced({"String": "  "}, " ")}, 0),
        ({"normalizer": replaced({"Regex": " +"}, " ")}, 0),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Strip"}]}}, 0),
        ({"normalizer": {"type": "Lowercase"}}, 0),
        ({"model": {"type": "WordPiece", "vocab": {"a": 0}}}, 0),
        ({"pre_tokenizer": {"type": "Whitespace"}}, 0),
        ({"model": {**BYTE_LEVEL, "byte_fallback": True}, "pre_tokenizer": None}, 6),
        ({"added_tokens": [{"content": "<end>", "rstrip": True}]}, 0),
    ],
)
def test_only_where_every_byte_becomes_part_of_a_token_is_the_longest_known(changes, longest):
    assert longest_token({**GOOD, **changes}, []) == longest


def test_an_added_token_may_be_the_longest():
    assert longest_token(GOOD, ["<|a long one|>"]) == len("<|a long one|>")
