"""Hard constraints first, then chances and costs: pure functions from facts to a tier."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

from classifiers import Rule, choose
from classifiers.choose import Floats
from router.decide.abilities import Abilities
from router.errors import ContextTooLong, NoTierFits
from router.request.body import answer_reserve
from router.request.token_bounds import Reader
from router.tier_settings import ANSWER_RESERVE, Tier
from router.types import Counter, Decision, Facts, Prompt


class Needs:
    """Tokens of prompt and answer that a request needs at each tier. Counters count once, and only where it might not fit."""

    def __init__(self, facts: Facts, count: Mapping[str, Counter], reserve: int = ANSWER_RESERVE) -> None:
        self.prompts, self.wanted, self.count = facts.prompts or (Prompt(facts.counted),), facts.answer_tokens, count
        self.reserve = reserve
        self.length = max(len(prompt.text) + prompt.ids for prompt in self.prompts)
        self.media = any(prompt.images or prompt.unbounded for prompt in self.prompts)
        self.bound = cache(lambda reader: max(map(reader.most, self.prompts)))
        self.expected = cache(lambda reader: max(map(reader.expected, self.prompts)))

    def answer(self, tier: Tier) -> int:
        """Tokens of the window that the answer needs at least."""
        return answer_reserve(self.wanted, self.reserve, tier.context)

    def reader(self, tier: Tier) -> Reader:
        """Equal for tiers that count alike."""
        reader = Reader.of(tier, self.count[tier.name])
        return reader if self.media else replace(reader, context=0, image_tokens=1)

    def least(self, tier: Tier) -> int:
        """A lower bound, for which nothing is counted, where it is beyond the window; else 0."""
        least = self.reader(tier).least(self.length)
        return self.answer(tier) + least if least > tier.context else 0

    def most(self, tier: Tier) -> int:
        """An upper bound, or enough to tell that the window is too small."""
        reader = self.reader(tier)
        if least := self.least(tier):
            return least
        answer = self.answer(tier)
        quick = answer + max(map(reader.at_most, self.prompts))
        if quick <= tier.context:
            return quick
        return answer + int(self.bound(reader) if reader.says else self.expected(reader))

    def likely(self, tier: Tier) -> int:
        """The number expected, not more than the bound; or enough to tell that the window is too small."""
        if least := self.least(tier):
            return least
        return min(self.most(tier), self.answer(tier) + int(self.expected(self.reader(tier))))

    def prompt(self, tier: Tier) -> int:
        """The same of the prompt alone."""
        return self.likely(tier) - self.answer(tier)


def exclude(
    facts: Facts,
    tiers: Sequence[Tier],
    count: Mapping[str, Counter],
    abilities: Abilities | None = None,
    reserve: int = ANSWER_RESERVE,
) -> dict[str, str]:
    """Tiers that cannot take the request, each with the reason.

    A window must hold the upper bound of the prompt, and room for an answer (`answer_reserve`). Where no window does, the tiers
    stay whose windows hold what is expected: without their tokenizer the bound is far from exact, and they can still say no.
    Where none does that either, those stay that hold the prompt. abilities: None: what the settings say.
    """
    known = abilities or Abilities(tiers)
    out = {tier.name: missing for tier in tiers if (missing := lacks(tier, facts, known))}
    fitting, needs = [tier for tier in tiers if tier.name not in out], Needs(facts, count, reserve)
    over = {tier.name: n for tier in fitting if (n := needs.most(tier)) > tier.context}
    if len(over) == len(fitting):
        over = {tier.name: n for tier in fitting if (n := needs.likely(tier)) > tier.context}
    if len(over) == len(fitting):
        over = {tier.name: n for tier in fitting if (n := needs.prompt(tier) + 1) > tier.context}
    out |= {tier.name: f"takes {tier.context} tokens, this needs {over[tier.name]}" for tier in fitting if tier.name in over}
    return {tier.name: out[tier.name] for tier in tiers if tier.name in out}


def lacks(tier: Tier, facts: Facts, abilities: Abilities) -> str:
    """The first ability that the tier lacks; empty: none."""
    return next((why for need in sorted(facts.needs) if (why := abilities.lack(tier.name, need))), "")


def refuse(
    facts: Facts,
    tiers: Sequence[Tier],
    count: Mapping[str, Counter],
    excluded: Mapping[str, str],
    abilities: Abilities | None = None,
) -> None:
    """Raise for a request that no tier can take: ContextTooLong where only its length is the reason, else NoTierFits."""
    known = abilities or Abilities(tiers)
    capable = [tier for tier in tiers if not lacks(tier, facts, known)]
    if not capable:
        raise NoTierFits(excluded)
    widest = max(capable, key=lambda t: t.context)
    raise ContextTooLong(Needs(facts, count).prompt(widest), widest.context)


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
