"""The most that a request can cost, which is reserved of its key's budget before any tier is asked.

Budgets hold only because this is an upper bound: of the prompt's tokens, and of the answer of every call that the flow may make.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from router.config import Config, Tier
from router.costs.prices import per_token
from router.request import server_tools
from router.request.body import answer_count, answer_limit, wants_json
from router.request.token_bounds import PER_TOOLS, Reader
from router.trace import FlowKind
from router.types import Counter, Decision, Request

# Answer limits, in tokens, for requests without one whose key has a budget.
ANSWER_TOKENS = 4_096  # of a chat
COMPLETION_TOKENS = 16  # OpenAI's own default, and vLLM's
PER_RESULT = 100  # tokens around one subtask's result
# Tokens of the function that hands work down: its 3,500 bytes and a template's words about tools; and of each text that it names.
DELEGATE_TOKENS = 1_536
PER_HANDLE = 40
LAST_TURNS = 3  # tool mode's turns after the plans: an answer, one without tools, and one that repairs its form


@dataclass(frozen=True, slots=True)
class Size:
    """Tokens of one plain call."""

    input_tokens: int
    """upper bound"""
    answer_tokens: int | None
    """limit of all answers together; None: the request sets none"""


def max_cost(
    config: Config, count: Mapping[str, Counter], asked: Request, decided: Decision, flow: FlowKind
) -> tuple[Size, float]:
    """Size of the plain call, and the USD that the whole request costs at most. flow: the kind that was chosen."""
    named = flow == "direct" or decided.target in config.names
    allowed = [decided.tier] if named else decided.allowed(config.names)
    tiers = [tier_of(config, name) for name in allowed]
    given, limits = prompts_tokens(asked.body, tiers, count), answer_limits(asked.body, tiers, count)
    answers, limit = answer_count(asked.body), limits[decided.tier]
    size = Size(given[decided.tier], None if limit is None else answers * limit)
    return size, WorstCase(config, given, limits, answers).usd(asked, decided, allowed, flow)


def answer_limits(body: Mapping[str, Any], tiers: Sequence[Tier], count: Mapping[str, Counter]) -> dict[str, int | None]:
    """The limit of one answer that each tier is sent; None: the request sets none."""
    limit = answer_limit(body)
    if limit is None:
        return dict.fromkeys((tier.name for tier in tiers), None)
    within = cache(lambda reader: reader.limit_within(body, limit))
    return {tier.name: within(Reader.of(tier, count[tier.name])) for tier in tiers}


def prompts_tokens(body: Mapping[str, Any], tiers: Sequence[Tier], count: Mapping[str, Counter]) -> dict[str, int]:
    """Upper bound of the prompts' tokens by tier; counted once for tiers that count alike."""
    counted = cache(lambda reader: reader.total(body))
    return {tier.name: counted(Reader.of(tier, count[tier.name])) for tier in tiers}


@dataclass(frozen=True, slots=True)
class WorstCase:
    """Upper bounds of what one request's calls cost, in USD. given: tier -> tokens of the prompt."""

    config: Config
    given: Mapping[str, int]
    limits: Mapping[str, int | None]
    """of one answer by tier, in tokens"""
    answers: int

    def usd(self, asked: Request, decided: Decision, allowed: Sequence[str], flow: FlowKind) -> float:
        if flow == "direct" or asked.path != "chat/completions":
            return self.call(decided.tier)
        top, offered = allowed[-1], server_tools.offered(asked.body)
        if flow == "delegation":
            return self.delegation(top, decided)
        if flow == "race":
            first, second = allowed[allowed.index(decided.tier) :][:2]
            return self.call(first) + max(self.call(name) for name in {second, *decided.wider[:1]})
        below = sum(map(self.attempt, allowed[:-1])) if decided.judge or offered.escalate or asked.tests else 0.0
        if flow == "tools" or offered.delegate:
            return below + self.tools(top)
        return below + (self.attempt(top) if wants_json(asked.body) or offered.escalate else self.call(top))

    def output(self, tier: Tier) -> int:
        """Tokens of one answer."""
        limit = self.limits[tier.name]
        return tier.context if limit is None else limit

    def call(self, name: str, more: int = 0) -> float:
        """One call. more: tokens that are added to the client's prompt."""
        tier = tier_of(self.config, name)
        price_in, price_out = per_token(tier)
        prompts = 1 if tier.hedge_after_s is None else 2  # a hedged call is sent to a second replica, which reads the prompt too
        return prompts * price_in * (self.given[name] + more) + price_out * self.output(tier) * self.answers

    def attempt(self, name: str) -> float:
        """An attempt with one of our tools in its prompt, repeated once in case its answer has the wrong form."""
        return 2 * self.call(name, PER_TOOLS)

    def results(self) -> int:
        """Tokens of one plan's results in the prompt of the final call."""
        settings = self.config.delegation
        return settings.max_subtasks * (settings.digest_over_tokens + PER_RESULT)

    def parts(self, direct_usd: float) -> float:
        """The budget of plan and parts. It ignores hedged duplicates, so it is doubled if any tier hedges."""
        copies = 1 if all(tier.hedge_after_s is None for tier in self.config.tiers) else 2
        return copies * self.config.delegation.max_cost_ratio * direct_usd

    def delegation(self, top: str, decided: Decision) -> float:
        """Plan and parts within their budget, then one final or plain answer."""
        direct = decided.considered.direct_usd if decided.considered else self.call(top)
        return self.parts(float(direct)) + self.call(top, self.results())

    def tools(self, top: str) -> float:
        """Turns of the top tier, each with all earlier turns in its prompt, and the parts within their budget."""
        settings, tier = self.config.delegation, tier_of(self.config, top)
        price_in, price_out = per_token(tier)
        per_turn = self.output(tier) + self.results()
        function = DELEGATE_TOKENS + PER_HANDLE * (self.given[top] // settings.offload_min_tokens)
        turns = sum(self.call(top, function + k * per_turn) for k in range(settings.max_plans + LAST_TURNS))
        direct = price_in * self.given[top] + price_out * (self.limits[top] or settings.min_answer_tokens)
        return turns + self.parts(direct)


def tier_of(config: Config, name: str) -> Tier:
    return next(tier for tier in config.tiers if tier.name == name)


def with_limit(body: Mapping[str, Any], tier: Tier, count: Counter) -> Mapping[str, Any]:
    """The body with an answer limit, for keys with a budget: without one a whole window would have to be reserved.

    If the window leaves room for less, no limit is set.
    """
    if answer_limit(body) is not None:
        return body
    cap = ANSWER_TOKENS if "messages" in body else COMPLETION_TOKENS
    return {**body, "max_tokens": cap} if tier.context - Reader.of(tier, count).total(body) >= cap else body
