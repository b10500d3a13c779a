"""How many tokens a text has in a tier: by its own tokenizer where we have it, else an estimate that errs upwards."""

from collections.abc import Mapping
from pathlib import Path

from router.config import Config, Tier, VllmTier
from router.policy import Counter

TEMPLATE_TOKENS = 8  # what a chat template adds around one question
BYTES_PER_TOKEN = 3.0  # below what current tokenizers reach on English and code


def readable(text: str) -> str:
    """Without lone surrogates, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def estimate(text: str) -> int:
    return round(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN) + TEMPLATE_TOKENS


def counter(tier: Tier) -> Counter:
    """The tier's own tokenizer if its folder is here, else the estimate."""
    file = Path(tier.source) / "tokenizer.json" if isinstance(tier, VllmTier) else None
    if file is None or not file.exists():
        return estimate
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    return lambda text: len(tokenizer.encode(readable(text), add_special_tokens=False).ids) + TEMPLATE_TOKENS


def counters(config: Config) -> Mapping[str, Counter]:
    return {tier.name: counter(tier) for tier in config.tiers}
