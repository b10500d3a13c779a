"""How many tokens a call of ours gets for what its tier thinks first, beside those of its answer.

A client's limit holds for thought and answer together, as with OpenAI. Where we set one (for a plan, a subtask, a verdict, a
label) it is meant for the answer, and a tier that thinks would spend it before it says anything.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from router.reasoning_settings import Reasoning
from router.request.thinking import thinks
from router.tier_settings import Tier

USUAL = 2_048  # tokens of a thought, where nothing of the tier's settings limits it
SLOW_PER_S = 25.0  # tokens a second of a tier that is slow and not yet broken
QUIET: Mapping[str, Any] = {"thinking_token_budget": 0}
"""asks every tier to answer at once, in the way in which it can be told; see `thinking.switched`"""


def room(settings: Reasoning | None, body: Mapping[str, Any]) -> int:
    """Tokens for the thought of this call; 0 for a tier that does not think, or not about this. settings: `Tier.thinking`."""
    if settings is None or not thinks(body, settings):
        return 0
    return USUAL if settings.budget is None else settings.budget


def unthinking(settings: Reasoning | None) -> Mapping[str, Any]:
    """Fields by which the tier answers at once; empty: it never thinks, cannot be kept from it, or is not known to think."""
    if settings is None or not thinks({}, settings) or thinks(QUIET, settings):
        return {}
    return QUIET


def quieter(tiers: Sequence[Tier], names: Sequence[str]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """tier -> whom to ask, and with which fields, where it was cut within its thought: a tier on the same replicas that answers
    at once, which has the prompt in its cache, or the tier itself, kept from thinking. Tiers without such a way are left out.

    names: who may be asked.
    """
    allowed = [tier for tier in tiers if tier.name in names]
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for tier in allowed:
        siblings = [other for other in allowed if other.runs_on == tier.runs_on and other is not tier]
        at_once = [other.name for other in siblings if not room(other.thinking, {})]
        if at_once and room(tier.thinking, {}):
            found[tier.name] = at_once[-1], {}
        elif fields := unthinking(tier.thinking):
            found[tier.name] = tier.name, fields
    return found


def thought_s(tokens: int) -> float:
    """Seconds that a thought of so many tokens may take, beside the answer."""
    return tokens / SLOW_PER_S


def thought_rooms(tiers: Sequence[Tier]) -> dict[str, int]:
    """tier -> tokens for the thought before a plain answer, of those that think."""
    found = {tier.name: room(tier.thinking, {}) for tier in tiers}
    return {name: tokens for name, tokens in found.items() if tokens}
