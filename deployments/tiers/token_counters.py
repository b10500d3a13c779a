"""Counts the tokens of a text as a tier does: with its own tokenizer if we have it, else by an estimate that errs upwards."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from router.config import Config, Tier
from router.types import Counter

TEMPLATE_TOKENS = 8  # what a chat template adds around one question
ALONE = 4_096  # characters; longer texts are counted by a call that lets other threads run, which costs a fixed time more
BYTE_LEVEL = '"ByteLevel"'
NFC_SHRINKS = 4  # most bytes that the normal form C makes one byte of
BYTES_PER_TOKEN = 3.0  # fewer than current tokenizers need for English and code


def estimate(text: str) -> int:
    return round(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN) + TEMPLATE_TOKENS


def tokenizer_file(tier: Tier) -> bytes:
    """The tier's tokenizer.json; empty where it is not on this machine."""
    folder = tier.model_source.folder
    return file.read_bytes() if folder and (file := folder / "tokenizer.json").exists() else b""


def counter(tokenizer_json: bytes) -> Counter:
    """Counts as this tokenizer does, or by the estimate if there is none."""
    if not tokenizer_json:
        return estimate
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(tokenizer_json)

    @lru_cache(maxsize=16)  # one decision asks for the same texts several times, and counting is its most expensive step
    def count(text: str) -> int:
        readable = text.encode("utf-8", "replace").decode()  # without lone surrogates, which JSON can hold and UTF-8 cannot
        if len(readable) <= ALONE:
            return len(tokenizer.encode(readable, add_special_tokens=False)) + TEMPLATE_TOKENS
        (found,) = tokenizer.encode_batch_fast([readable], add_special_tokens=False)
        return len(found) + TEMPLATE_TOKENS

    # Reservations rely on it (router/request/token_bounds.py). A function's own attribute has no type: see `types.Counter`.
    count.exact = True  # type: ignore[attr-defined]
    count.longest_bytes = longest_token(json.loads(tokenizer_json))  # type: ignore[attr-defined]
    return count


def longest_token(tokenizer: Mapping[str, Any]) -> int:
    """Upper bound of the bytes of text behind one token, of a tokenizer.json; 0 where there is no such bound.

    Only byte-level and byte-fallback BPE turn every byte into a token. Unknown words, stripped space and other normalizers would
    make text disappear without a trace.
    """
    model, normalizer = tokenizer.get("model") or {}, tokenizer.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer] if normalizer else [])
    added = tokenizer.get("added_tokens") or []
    whole = model.get("type") == "BPE" and (
        model.get("byte_fallback") or BYTE_LEVEL in json.dumps(tokenizer.get("pre_tokenizer"))
    )
    if not whole or any(step.get("type") != "NFC" for step in steps) or any(t.get("lstrip") or t.get("rstrip") for t in added):
        return 0
    longest = max(len(token.encode()) for token in [*model["vocab"], *(t["content"] for t in added)])
    return longest * (NFC_SHRINKS if steps else 1)


def counters(config: Config) -> Mapping[str, Counter]:
    """By tier. Tiers with the same tokenizer share one counter, so a text is counted once for all of them."""
    files = {tier.name: tokenizer_file(tier) for tier in config.tiers}
    made = {file: counter(file) for file in set(files.values())}
    return {name: made[file] for name, file in files.items()}


def special_tokens(config: Config) -> list[str]:
    """All special tokens of the tiers' tokenizers: a client's text must not smuggle them into a prompt."""
    found: set[str] = set()
    for file in {tokenizer_file(tier) for tier in config.tiers} - {b""}:
        found |= {token["content"] for token in json.loads(file).get("added_tokens", []) if token.get("special")}
    return sorted(found)
