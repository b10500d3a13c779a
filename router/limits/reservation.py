"""What a request may cost at most: what is set aside of a key's budget before anything is asked. Pure.

A reservation is an upper bound or no budget is kept: tokens of the prompt as a tier counts them at most, and for each call
that a flow may make the longest answer that it may get.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.config import Config, Tier
from router.costs.prices import per_token
from router.request import server_tools
from router.request.body import answer_count, answer_limit, wants_json
from router.request.token_bounds import PER_TOOLS, prompt_tokens
from router.trace import FlowKind
from router.types import Counter, Decision, Request

# Tokens that an answer gets where the request sets no limit and the key has a budget: of a chat, and of a completion, which is
# OpenAI's own default and vLLM's.
ANSWER_TOKENS = 4_096
COMPLETION_TOKENS = 16
PER_RESULT = 100  # tokens around one subtask's result
LAST_TURNS = 3  # of tool mode, beside one for each plan: the answer, one that can only answer, and that one mended


@dataclass(frozen=True, slots=True)
class Size:
    """Tokens of one plain call."""

    input_tokens: int
    """at most"""
    answer_tokens: int | None
    """asked for, of all answers together; None: the request sets no limit"""


def most(
    config: Config, count: Mapping[str, Counter], asked: Request, decided: Decision, flow: FlowKind, answer_cap: int | None = None
) -> tuple[Size, float]:
    """Size of the plain call, and USD that the whole request may cost.

    flow: the kind that was chosen. answer_cap: what `capped` adds to every call without a limit of its
    own, if it does; None: nothing is added, so that an answer may fill the window.
    """
    named = flow == "direct" or decided.target in config.names
    allowed = [decided.tier] if named else decided.allowed(config.names)
    given = prompts_tokens(asked.body, [tier_of(config, name) for name in allowed], count)
    answers, limit = answer_count(asked.body), answer_limit(asked.body)
    spend = Spend(config, given, limit, answers, answer_cap)
    size = Size(given[decided.tier], None if limit is None else answers * limit)
    return size, spend.usd(asked, decided, allowed, flow)


def prompts_tokens(body: Mapping[str, Any], tiers: Sequence[Tier], count: Mapping[str, Counter]) -> dict[str, int]:
    """`prompt_tokens` by tier; tiers that share a counter and a window are counted once."""
    counted: dict[tuple[Counter, int], int] = {}
    for tier in tiers:
        same = (count[tier.name], tier.context)
        if same not in counted:
            counted[same] = prompt_tokens(body, tier.context, count[tier.name])
    return {tier.name: counted[count[tier.name], tier.context] for tier in tiers}


@dataclass(frozen=True, slots=True)
class Spend:
    """Prices of one request's calls, each at most. given: tier -> tokens of the prompt."""

    config: Config
    given: Mapping[str, int]
    limit: int | None
    """tokens asked for one answer"""
    answers: int
    answer_cap: int | None = None

    def usd(self, asked: Request, decided: Decision, allowed: Sequence[str], flow: FlowKind) -> float:
        if flow == "direct" or asked.path != "chat/completions":
            return self.call(decided.tier)
        top, offered = allowed[-1], server_tools.read(asked.body)
        if flow == "delegation":
            return self.delegation(top, decided)
        if flow == "race":
            return sum(map(self.call, allowed[allowed.index(decided.tier) :][:2]))
        below = sum(map(self.tried, allowed[:-1])) if decided.judge or offered.escalate or asked.tests else 0.0
        if flow == "tools" or offered.delegate:
            return below + self.tools(top)
        return below + (self.tried(top) if wants_json(asked.body) or offered.escalate else self.call(top))

    def output(self, tier: Tier, given: int) -> int:
        """Tokens of one answer."""
        if self.limit is not None:
            return min(self.limit, tier.context)
        caps = self.answer_cap is not None and tier.context - given >= self.answer_cap
        return self.answer_cap if caps and self.answer_cap else tier.context

    def call(self, name: str, more: int = 0) -> float:
        """One call. more: tokens of the prompt that are added to the client's.

        Where a slow one is sent to another replica too, the one that is stopped has cost its prompt.
        """
        tier = tier_of(self.config, name)
        price_in, price_out = per_token(tier)
        given = self.given[name] + more
        read = 1 if tier.hedge_after_s is None else 2
        return read * price_in * given + price_out * self.output(tier, given) * self.answers

    def tried(self, name: str) -> float:
        """An attempt: asked once more where its answer has the wrong form, and shown a function of ours."""
        return 2 * self.call(name, PER_TOOLS)

    def results(self) -> int:
        """Tokens of the results of one plan, as the merging tier sees them."""
        settings = self.config.delegation
        return settings.max_subtasks * (settings.digest_over_tokens + PER_RESULT)

    def parts(self, direct_usd: float) -> float:
        """What plan and parts may spend: their own budget, which knows nothing of calls that are sent twice."""
        sent = 1 if all(tier.hedge_after_s is None for tier in self.config.tiers) else 2
        return sent * self.config.delegation.max_cost_ratio * direct_usd

    def delegation(self, top: str, decided: Decision) -> float:
        """Plan and parts within their own budget, then one final or plain answer."""
        seen = decided.considered
        direct = seen.direct_usd if seen else self.call(top)
        return self.parts(float(direct)) + self.call(top, self.results())

    def tools(self, top: str) -> float:
        """Turns of the top tier, each with what was said before it, and the parts within their own budget."""
        settings, tier = self.config.delegation, tier_of(self.config, top)
        price_in, price_out = per_token(tier)
        said = self.output(tier, self.given[top]) + self.results()
        turns = sum(self.call(top, PER_TOOLS + k * said) for k in range(settings.max_plans + LAST_TURNS))
        direct = price_in * self.given[top] + price_out * (self.limit or settings.min_answer_tokens)
        return turns + self.parts(direct)


def tier_of(config: Config, name: str) -> Tier:
    return next(tier for tier in config.tiers if tier.name == name)


def capped(body: Mapping[str, Any], tier: Tier, count: Counter) -> Mapping[str, Any]:
    """The body with a limit of its answer, for keys with a budget: without one a whole window would have to be set aside.

    Where the window leaves less than that, it is the limit itself.
    """
    if answer_limit(body) is not None:
        return body
    cap = ANSWER_TOKENS if "messages" in body else COMPLETION_TOKENS
    return {**body, "max_tokens": cap} if tier.context - prompt_tokens(body, tier.context, count) >= cap else body
