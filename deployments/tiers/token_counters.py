"""Counts the tokens of a text as a tier does: with its own tokenizer if we have it, else by an estimate that errs upwards."""

import json
from collections.abc import Mapping
from functools import lru_cache

from router.config import Config, Tier
from router.types import Counter

TEMPLATE_TOKENS = 8  # what a chat template adds around one question
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
        return len(tokenizer.encode(readable, add_special_tokens=False).ids) + TEMPLATE_TOKENS

    # Reservations rely on it (router/request/token_bounds.py). A function's own attribute has no type: see `types.Counter`.
    count.exact = True  # type: ignore[attr-defined]
    return count


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
