"""How many tokens a text has in a tier: by its own tokenizer where we have it, else an estimate that errs upwards."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from router.config import Config, Tier, VllmTier
from router.types import Counter

TEMPLATE_TOKENS = 8  # what a chat template adds around one question
BYTES_PER_TOKEN = 3.0  # below what current tokenizers reach on English and code


def readable(text: str) -> str:
    """Without lone surrogates, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def estimate(text: str) -> int:
    return round(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN) + TEMPLATE_TOKENS


def vocabulary(tier: Tier) -> bytes:
    """The tier's tokenizer.json; empty where it is not here."""
    file = Path(tier.source) / "tokenizer.json" if isinstance(tier, VllmTier) else None
    return file.read_bytes() if file and file.exists() else b""


def counter(vocabulary: bytes) -> Counter:
    """Counts as this tokenizer does; by the estimate where there is none."""
    if not vocabulary:
        return estimate
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(vocabulary)

    @lru_cache(maxsize=16)  # one decision asks about the same texts several times, and counting is its dearest step
    def count(text: str) -> int:
        return len(tokenizer.encode(readable(text), add_special_tokens=False).ids) + TEMPLATE_TOKENS

    count.exact = True  # what is set aside of a budget relies on it: router/limits/reservation.py
    return count


def counters(config: Config) -> Mapping[str, Counter]:
    """By tier; tiers with the same tokenizer share one counter, so that a text is counted once for all of them."""
    files = {tier.name: vocabulary(tier) for tier in config.tiers}
    made = {file: counter(file) for file in set(files.values())}
    return {name: made[file] for name, file in files.items()}


def special(config: Config) -> list[str]:
    """All special tokens of the tiers' tokenizers: what a text must not smuggle into a prompt."""
    found: set[str] = set()
    for file in {vocabulary(tier) for tier in config.tiers} - {b""}:
        found |= {token["content"] for token in json.loads(file).get("added_tokens", []) if token.get("special")}
    return sorted(found)
