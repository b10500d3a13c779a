"""Names of a tier's weights. The configured ones go by the tier's name alone; weights that were learned are a *variant* of it.

`small@3f2a9c41e0d2` is tier `small` on the weights whose digest begins so. Clients never see the name: to them, to keys, prices
and the classifier it is `small`. It is the name by which answers and grades of several weights of one tier are told apart.
"""

from collections.abc import Mapping

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
