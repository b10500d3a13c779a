"""Hard constraints first, then chances and costs: pure functions from facts to a tier."""

from collections.abc import Mapping, Sequence

from classifiers import Rule, choose
from classifiers.choose import Floats
from router.decide.abilities import Abilities
from router.errors import ContextTooLong, NoTierFits
from router.tier_settings import Tier
from router.types import Counter, Decision, Facts, byte_bound

TEMPLATE_TOKENS = 64  # bound of the tokens that a chat template adds to a prompt


def exclude(
    facts: Facts, tiers: Sequence[Tier], count: Mapping[str, Counter], abilities: Abilities | None = None
) -> dict[str, str]:
    """Tiers that cannot take the request, each with the reason. Counts tokens only where the request might not fit.

    abilities: None: what the settings say.
    """
    abilities = abilities or Abilities(tiers)
    out: dict[str, str] = {}
    counted: dict[Counter, int] = {}  # tiers of one family share a counter, and counting is the slowest step here
    most = byte_bound(facts.counted) + TEMPLATE_TOKENS + facts.answer_tokens
    for tier in tiers:
        missing = next((why for need in sorted(facts.needs) if (why := abilities.lack(tier.name, need))), "")
        if missing:
            out[tier.name] = missing
        elif most > tier.context:
            counter = count[tier.name]
            if counter not in counted:
                counted[counter] = counter(facts.counted)
            has = counted[counter]
            if has + facts.answer_tokens > tier.context:
                out[tier.name] = f"takes {tier.context} tokens, this needs {has + facts.answer_tokens}"
    return out


def refuse(
    facts: Facts,
    tiers: Sequence[Tier],
    count: Mapping[str, Counter],
    excluded: Mapping[str, str],
    abilities: Abilities | None = None,
) -> None:
    """Raise for a request that no tier can take: ContextTooLong where only its length is the reason, else NoTierFits."""
    abilities = abilities or Abilities(tiers)
    capable = [t for t in tiers if not any(abilities.lack(t.name, need) for need in facts.needs)]
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
