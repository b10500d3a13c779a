"""Hard constraints first, then chances and costs: pure functions from facts to a tier."""

from collections.abc import Mapping, Sequence

from classifiers import Rule, choose
from classifiers.choose import Floats
from router.cheap_bound import fewest_tokens, surely_too_long
from router.errors import ContextTooLong, NoTierFits
from router.tier_settings import Tier
from router.types import Counter, Decision, Facts, byte_bound

ABILITIES = {"tools": "takes no tools", "json": "has no JSON mode", "images": "takes no images"}
TEMPLATE_TOKENS = 64  # bound of the tokens that a chat template adds to a prompt


def able(tier: Tier, need: str) -> bool:
    return bool({"tools": tier.tools, "json": tier.json_mode, "images": tier.images}[need])


def exclude(facts: Facts, tiers: Sequence[Tier], count: Mapping[str, Counter]) -> dict[str, str]:
    """Tiers that cannot take the request, each with the reason. Counts tokens only where the request might not fit."""
    out: dict[str, str] = {}
    counted: dict[Counter, int] = {}  # tiers of one family share a counter, and counting is the slowest step here
    most = byte_bound(facts.counted) + TEMPLATE_TOKENS + facts.answer_tokens
    for tier in tiers:
        missing = [ABILITIES[need] for need in sorted(facts.needs) if not able(tier, need)]
        if missing:
            out[tier.name] = missing[0]
        elif most > tier.context:
            counter = count[tier.name]
            if surely_too_long(facts.counted, tier.context, counter):
                needed = fewest_tokens(facts.counted, counter) + facts.answer_tokens
                out[tier.name] = f"takes {tier.context} tokens, this needs at least {needed}"
                continue
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
    counter = count[widest.name]
    if surely_too_long(facts.counted, widest.context, counter):
        raise ContextTooLong(fewest_tokens(facts.counted, counter), facts.answer_tokens, widest.context, at_least=True)
    raise ContextTooLong(counter(facts.counted), facts.answer_tokens, widest.context)


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
