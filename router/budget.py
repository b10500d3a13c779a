"""What one request may spend on delegation, and what delegations have cost so far. USD throughout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from classifiers.parts import Kind
from classifiers.text import content_text
from router.policy import Counter
from router.types import Usage

TEMPLATE_TOKENS, USUAL_TEMPLATE = 8, 4  # that a chat template adds to a message, at most and as a rule


@dataclass(frozen=True, slots=True)
class Rung:
    """What a flow needs to know of a tier."""

    name: str
    context: int
    """tokens that prompt and answer may have together"""
    price_in: float
    """USD per input token"""
    price_out: float
    """USD per output token"""
    count: Counter

    def cost(self, input_tokens: float, output_tokens: float) -> float:
        return self.price_in * input_tokens + self.price_out * output_tokens

    def paid(self, usage: Usage) -> float:
        return self.cost(usage.input_tokens, usage.output_tokens)

    def input_tokens(self, body: Mapping[str, Any]) -> int:
        """Tokens of a body's messages, at most: what is set aside for them."""
        return sum(self.count(content_text(m.get("content"))) + TEMPLATE_TOKENS for m in body["messages"])

    def expected_tokens(self, messages: Sequence[Mapping[str, Any]]) -> int:
        """Tokens of messages as a rule: what an estimate goes by."""
        return sum(self.count(content_text(m.get("content"))) + USUAL_TEMPLATE for m in messages)

    def fits(self, input_tokens: int, output_tokens: int) -> bool:
        return input_tokens + output_tokens <= self.context


class Budget:
    """A limit in USD and in calls. Every call reserves its worst case before it starts, so no mix of replies exceeds it."""

    def __init__(self, limit_usd: float, max_calls: int) -> None:
        self.limit_usd, self.max_calls = limit_usd, max_calls
        self.spent_usd, self.calls = 0.0, 0
        self.reserved: dict[str, float] = {}

    @property
    def left_usd(self) -> float:
        """What is neither spent nor promised."""
        return self.limit_usd - self.spent_usd - sum(self.reserved.values())

    def reserve(self, call: str, usd: float, kept_calls: int = 0) -> bool:
        """Set `usd` aside for a call; False if that is too much, or fewer than `kept_calls` calls would be left."""
        if usd > self.left_usd * (1 + 1e-9) or self.calls + kept_calls >= self.max_calls:
            return False
        self.reserved[call] = usd
        self.calls += 1
        return True

    def hold(self, name: str, usd: float) -> bool:
        """Set `usd` aside for later, for no call yet."""
        if usd > self.left_usd * (1 + 1e-9):
            return False
        self.reserved[name] = usd
        return True

    def commit(self, call: str, usd: float) -> None:
        """The call cost `usd`; what was set aside beyond that is free again."""
        self.reserved.pop(call, None)
        self.spent_usd += usd

    def refund(self, name: str) -> None:
        """Nothing came of it."""
        self.reserved.pop(name, None)

    def forfeit(self, call: str) -> None:
        """Nobody says what the call cost: all that was set aside counts as spent."""
        self.spent_usd += self.reserved.pop(call, 0.0)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one delegation, or their mean, was like."""

    plan_tokens: float
    """output tokens of the plan"""
    part_tokens: float
    """output tokens per job"""
    again: float
    """calls per job beyond the first, at the same tier"""
    upward: float
    """share of jobs that a larger tier did again"""
    merged: float
    """share of delegations that needed a final call"""
    join: float
    """output tokens of the final call as a share of all jobs' output"""


PRIORS: dict[Kind, Seen] = {
    "numbered": Seen(16, 60, 0.05, 0.1, 0.1, 0.5),
    "bullets": Seen(24, 60, 0.05, 0.1, 0.2, 0.5),
    "files": Seen(60, 80, 0.05, 0.1, 0.7, 0.5),
    "sections": Seen(60, 80, 0.05, 0.1, 0.7, 0.5),
    "paragraphs": Seen(60, 60, 0.05, 0.1, 0.9, 0.5),
}
WEIGHT, MOST = 4.0, 256.0  # delegations that a prior counts for; a mean forgets what is older than that many


@dataclass(slots=True)
class Memory:
    """What a router learns while it runs, shared by its requests and changed only by the methods here."""

    refused: dict[str, int] = field(default_factory=dict)
    """tier -> how many ways to ask for JSON its backend has refused, in the order of `delegation.FORMATS`"""
    means: dict[Kind, Seen] = field(default_factory=lambda: dict(PRIORS))
    weights: dict[Kind, float] = field(default_factory=dict)

    def refuse(self, tier: str, way: int) -> None:
        """The backend of the tier took no body of that way."""
        self.refused[tier] = max(self.refused.get(tier, 0), way + 1)

    def learn(self, kind: Kind, seen: Mapping[str, float | None]) -> None:
        """Take one delegation into the means; what it did not show is left out."""
        weight = min(self.weights.get(kind, WEIGHT) + 1, MOST)
        old = self.means[kind]
        shown = {name: value for name, value in seen.items() if value is not None}
        moved = {name: getattr(old, name) + (value - getattr(old, name)) / weight for name, value in shown.items()}
        self.weights[kind] = weight
        self.means[kind] = Seen(**{name: moved.get(name, getattr(old, name)) for name in Seen.__slots__})


def rung_of(ladder: Sequence[Rung], name: str) -> Rung:
    """The rung of that name; the top for a tier that may not be asked."""
    return next((rung for rung in ladder if rung.name == name), ladder[-1])
