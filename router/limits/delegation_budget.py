"""What one request may spend on delegation, and what delegations have cost so far. USD throughout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.request.token_bounds import message_tokens, prompt_tokens
from router.types import Counter, Usage

USUAL_TEMPLATE = 4  # tokens that a chat template adds to a message, as a rule; at most: `token_bounds.PER_MESSAGE`


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
        """Tokens of a body's messages where there are no tools or pictures: what a flow sets aside for prompts of its own."""
        return message_tokens(body["messages"], self.count)

    def prompt_tokens(self, body: Mapping[str, Any]) -> int:
        """Tokens of whatever a body holds, at most: what a client's limit allows for."""
        return prompt_tokens(body, self.context, self.count)

    def expected_tokens(self, messages: Sequence[Mapping[str, Any]]) -> int:
        """Tokens of messages as a rule: what an estimate goes by."""
        return message_tokens(messages, self.count, USUAL_TEMPLATE)

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


def rung_of(ladder: Sequence[Rung], name: str) -> Rung:
    """The rung of that name; the top for a tier that may not be asked."""
    return next((rung for rung in ladder if rung.name == name), ladder[-1])
