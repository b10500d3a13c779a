"""Names of a tier's weights. The configured ones go by the tier's name alone; weights that were learned are a *variant* of it.

`small@3f2a9c41e0d2` is tier `small` on the weights whose digest begins so. Clients never see the name: to them, to keys, prices
and the classifier it is `small`. It is the name by which answers and grades of several weights of one tier are told apart.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

SHORT = 12  # hexadecimal digits of a digest in a name
MARK = "@"  # no tier's name has it


def variant(tier: str, digest: str) -> str:
    """The name of a tier on these weights. digest: 64 hexadecimal digits; empty: the configured weights."""
    return f"{tier}{MARK}{digest[:SHORT]}" if digest else tier


def tier_of(name: str) -> str:
    """The tier whose variant, or own name, it is."""
    return name.partition(MARK)[0]


def names_on(tiers: tuple[str, ...], weights: Mapping[str, str]) -> tuple[str, ...]:
    """The tiers' names on these weights. weights: tier -> digest; a tier that is missing has its configured weights."""
    return tuple(variant(tier, weights.get(tier, "")) for tier in tiers)


def in_order(tiers: Sequence[str], names: Iterable[str]) -> tuple[str, ...]:
    """Each name once: by its tier's place in the ladder, then as given. Names of other tiers are left out."""
    given = list(dict.fromkeys(names))
    return tuple(name for tier in tiers for name in given if tier_of(name) == tier)


@dataclass(frozen=True, slots=True)
class Versions:
    """Which weights gave an answer, by the fingerprint that is kept with it. Both: (tier, fingerprint) -> name."""

    configured: Mapping[tuple[str, str], str] = field(default_factory=dict)
    learned: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def of(cls, configured: Mapping[str, str], learned: Mapping[str, Mapping[str, str]] | None = None) -> "Versions":
        """configured: tier -> fingerprint. learned: tier -> digest of weights -> fingerprint."""
        own = {(tier, model): tier for tier, model in configured.items()}
        made = {(tier, model): variant(tier, digest) for tier, by in (learned or {}).items() for digest, model in by.items()}
        return cls(own, made)

    def name(self, tier: str, model: str) -> str | None:
        """The name of what answered; None: weights that nobody knows, as where the operator has changed the model.

        tier: as it is kept, the tier's name or a variant's. model: the fingerprint; empty: it was not known, and the tier's name
        has to do.
        """
        if not model:
            return tier
        at = tier_of(tier), model
        return self.configured.get(at) or self.learned.get(at)
