"""Hard constraints first, then chances and costs: pure functions from facts to a tier."""

from collections.abc import Mapping, Sequence

from classifiers import Rule, choose
from classifiers.choose import Floats
from router.errors import ContextTooLong, NoTierFits
from router.tier_settings import Tier
from router.types import UNKNOWN_PART, Counter, Decision, Facts, byte_bound

ABILITIES = {
    "tools": "takes no tools",
    "json": "has no JSON mode",
    "images": "takes no images",
    "audio": "takes no audio",
    "video": "takes no video",
    "files": "takes no files",
}
FIELDS = {"json": "json_mode"}
"""needs whose setting has another name"""
TEMPLATE_TOKENS = 64  # bound of the tokens that a chat template adds to a prompt


def able(tier: Tier, need: str) -> bool:
    """need: one of ABILITIES, or a type of message part that we do not know."""
    return need.removeprefix(UNKNOWN_PART) in tier.parts or bool(getattr(tier, FIELDS.get(need, need), False))


def inability(need: str) -> str:
    return ABILITIES.get(need) or f"takes no message parts of type {need.removeprefix(UNKNOWN_PART)[:40]!r}"


def exclude(facts: Facts, tiers: Sequence[Tier], count: Mapping[str, Counter]) -> dict[str, str]:
    """Tiers that cannot take the request, each with the reason. Counts tokens only where the request might not fit."""
    out: dict[str, str] = {}
    counted: dict[Counter, int] = {}  # tiers of one family share a counter, and counting is the slowest step here
    most = byte_bound(facts.counted) + TEMPLATE_TOKENS + facts.answer_tokens
    for tier in tiers:
        missing = [inability(need) for need in sorted(facts.needs) if not able(tier, need)]
        if missing:
            out[tier.name] = missing[0]
        elif most > tier.context:
            counter = count[tier.name]
            if counter not in counted:
                counted[counter] = counter(facts.counted)
            has = counted[counter]
            if has + facts.answer_tokens > tier.context:
                out[tier.name] = f"takes {tier.context} tokens, this needs {has + facts.answer_tokens}"
    return out


def refuse(facts: Facts, tiers: Sequence[Tier], count: Mapping[str, Counter], excluded: Mapping[str, str]) -> None:
    """Raise for a request that no tier can take: ContextTooLong where only its length is the reason, else NoTierFits."""
    capable = [t for t in tiers if all(able(t, need) for need in facts.needs)]
    if not capable:
        raise NoTierFits(excluded)
    widest = max(capable, key=lambda t: t.context)
    raise ContextTooLong(count[widest.name](facts.counted), facts.answer_tokens, widest.context)


def pick(names: Sequence[str], p: Floats, cost: Floats, rule: Rule, target: str, excluded: Mapping[str, str]) -> Decision:
    """Choose among the permitted tiers.

    p, cost: (n_tiers,) for this prompt, in the order of `names`, cheapest first; the top tier's mean cost = 1.
    """
    allowed = [i for i, name in enumerate(names) if name not in excluded]
    chances = {names[i]: round(float(p[i]), 6) for i in allowed}
    if len(allowed) == 1:
        return Decision(names[allowed[0]], "only one fits", target, chances, excluded)
    if rule.kind == "tier":  # the fixed tier, or the next larger one that is permitted
        wanted = next((i for i in allowed if i >= rule.value), allowed[-1])
        return Decision(names[wanted], "fixed", target, chances, excluded)
    at, reason = choose(p[allowed], cost[allowed], rule)
    return Decision(names[allowed[at]], reason, target, chances, excluded)
