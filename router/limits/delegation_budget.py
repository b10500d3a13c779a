"""The prices of a tier as flows use them, and the budget of one request's delegation. All money is in USD."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.request.body import answer_reserve
from router.request.token_bounds import IMAGE_TOKENS, Reader, expected_tokens
from router.tier_settings import ANSWER_RESERVE
from router.types import Counter, Usage


@dataclass(frozen=True, slots=True)
class Rung:
    """A tier of the ladder, with all that a flow needs to know of it."""

    name: str
    context: int
    """most tokens of prompt and answer together"""
    price_in: float
    """USD per input token"""
    price_out: float
    """USD per output token"""
    count: Counter
    image_tokens: int = IMAGE_TOKENS
    """most tokens that one image takes"""
    sent: int = 1
    """how often a call's prompt may be read: twice where a slow call is sent to a second replica too"""
    reserve: int = ANSWER_RESERVE
    """tokens that the window must have left for an answer; see `answer_reserve`"""

    def cost(self, input_tokens: float, output_tokens: float) -> float:
        return self.price_in * input_tokens + self.price_out * output_tokens

    def most(self, input_tokens: float, output_tokens: float) -> float:
        """The most that a call costs: its prompt as often as it may be read."""
        return self.cost(self.sent * input_tokens, output_tokens)

    def paid(self, usage: Usage, sent: int = 1) -> float:
        """sent: how often the prompt was read."""
        return self.cost(sent * usage.input_tokens, usage.output_tokens)

    def prompt_tokens(self, body: Mapping[str, Any]) -> int:
        """Upper bound of a prompt's tokens, for any body of a client or a flow."""
        return Reader(self.count, self.context, self.image_tokens).total(body)

    def input_tokens(self, body: Mapping[str, Any]) -> int:
        """The same of a flow's own prompt."""
        return Reader(self.count, self.context).own(body)

    def expected_tokens(self, messages: Sequence[Mapping[str, Any]]) -> int:
        """Estimate of a prompt's tokens, for choosing by price."""
        return expected_tokens(messages, self.count)

    def fits(self, input_tokens: int, output_tokens: int) -> bool:
        """output_tokens: the most that is asked for; see `answer_reserve`."""
        return input_tokens + answer_reserve(output_tokens, self.reserve, self.context) <= self.context


class Budget:
    """A limit in USD and in calls. Every call reserves its worst case before it starts, so no replies can exceed the limit."""

    def __init__(self, limit_usd: float, max_calls: int) -> None:
        self.limit_usd, self.max_calls = limit_usd, max_calls
        self.spent_usd, self.calls = 0.0, 0
        self.reserved: dict[str, float] = {}

    @property
    def left_usd(self) -> float:
        """Neither spent nor reserved."""
        return self.limit_usd - self.spent_usd - sum(self.reserved.values())

    def reserve(self, call: str, usd: float, kept_calls: int = 0) -> bool:
        """Reserve `usd` for a call. False if that is too much, or if fewer than `kept_calls` calls would be left."""
        if self.calls + kept_calls >= self.max_calls or not self.hold(call, usd):
            return False
        self.calls += 1
        return True

    def hold(self, name: str, usd: float) -> bool:
        """Reserve `usd` without counting a call."""
        if usd > self.left_usd * (1 + 1e-9):
            return False
        self.reserved[name] = usd
        return True

    def commit(self, call: str, usd: float) -> None:
        """Book that the call cost `usd`, and release the rest of its reservation."""
        self.reserved.pop(call, None)
        self.spent_usd += usd

    def refund(self, name: str) -> None:
        """Release a reservation: nothing was spent."""
        self.reserved.pop(name, None)

    def forfeit(self, call: str) -> None:
        """Book the whole reservation as spent, because the real cost is unknown."""
        self.spent_usd += self.reserved.pop(call, 0.0)


def rung_of(ladder: Sequence[Rung], name: str) -> Rung:
    """The rung of that name; the top one for a tier that is not on this ladder."""
    return next((rung for rung in ladder if rung.name == name), ladder[-1])
