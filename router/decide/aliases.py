"""Other names for models: `claude-*` may stand for `auto`, since clients insist on the names that they know."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache


@lru_cache(maxsize=256)
def pattern_of(alias: str) -> re.Pattern[str]:
    """`*` stands for any characters, everything else for itself."""
    return re.compile(".*".join(map(re.escape, alias.split("*"))), re.DOTALL)


def resolved(name: str, aliases: Mapping[str, str], tiers: Sequence[str]) -> str:
    """What a model's name stands for: the first alias that fits. Tiers and `auto` always stand for themselves."""
    if name in tiers or name.partition(":")[0] == "auto":
        return name
    return next((stands_for for alias, stands_for in aliases.items() if pattern_of(alias).fullmatch(name)), name)


def listed(aliases: Mapping[str, str]) -> list[str]:
    """The aliases that are whole names."""
    return [alias for alias in aliases if "*" not in alias]
