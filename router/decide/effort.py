"""How much a client lets its request think: a ceiling on the tiers that `auto` may choose, by their labels (`effort`).

Only what the operator wrote counts. What an effort does to a model is its own affair: some think fully at `low`, some refuse
`high`, so no effort is turned into another.
"""

from collections.abc import Iterable, Sequence

from router.reasoning_settings import EFFORTS
from router.tier_settings import Tier


def above(tiers: Sequence[Tier], most: str, out: Iterable[str] = ()) -> dict[str, str]:
    """Tiers that think more than `most`, each with the reason; where nothing else is left the ones that think least stay.

    out: tiers that cannot take the request anyway.
    """
    if not most:
        return {}
    left, limit = [tier for tier in tiers if tier.name not in set(out)], EFFORTS.index(most)
    levels = {tier.name: EFFORTS.index(tier.effort) for tier in left if tier.effort is not None}
    if left and len(levels) == len(left):
        limit = max(limit, min(levels.values()))
    return {
        tier.name: f"thinks more (effort {tier.effort}) than the request asks for ({most})"
        for tier in left
        if levels.get(tier.name, 0) > limit
    }
