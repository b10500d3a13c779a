"""What a proof spends: every reply's price is written down at once, and nothing is asked that --usd might not cover."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from router.learn.labels.ladder_client import LadderClient, Price, Refused, Row, ServedLadder

CHARACTERS_A_TOKEN = 3.0
"""of a prompt, on the safe side; texts in English have about 4"""
USUAL_ANSWER = 0.5
"""share of the limit of tokens that an answer is expected to use, for the estimate"""
SPENT = "the budget of --usd is spent"


def tokens_of(messages: Sequence[Mapping[str, Any]]) -> float:
    """Tokens of a request, estimated from its characters."""
    return 8 + sum(len(json.dumps(message.get("content"), ensure_ascii=False)) for message in messages) / CHARACTERS_A_TOKEN


def most_usd(messages: Sequence[Mapping[str, Any]], max_tokens: int, price: Price) -> float:
    """The most that a call is expected to cost. price: USD per million input and output tokens."""
    return (tokens_of(messages) * price[0] + max_tokens * price[1]) / 1e6


def estimate(chats: Sequence[Sequence[Mapping[str, Any]]], max_tokens: int, prices: Sequence[Price]) -> tuple[float, float]:
    """USD of asking every tier every chat: as expected, and at most."""
    most = sum(most_usd(chat, max_tokens, price) for chat in chats for price in prices)
    read = sum(most_usd(chat, 0, price) for chat in chats for price in prices)
    return read + USUAL_ANSWER * (most - read), most


class Purse:
    """The money of a proof. usd: the most that all its runs together may spend; None: no limit.

    A call is held at its most before it is sent and settled by what it cost after. While others are under way a call that does
    not fit waits for them, since they may cost less.
    """

    def __init__(self, usd: float | None, file: Path) -> None:
        self.usd, self.file = usd, file
        self.held = 0.0
        self.reserved = 0.0
        """USD that are kept back for later steps"""
        self.refused = 0
        """calls that were not sent"""
        self.by_what = read_spent(file)
        self.settled = asyncio.Condition()

    @property
    def spent(self) -> float:
        return sum(self.by_what.values())

    def fits(self, most: float) -> bool:
        return self.usd is None or self.spent + self.held + self.reserved + most <= self.usd

    async def hold(self, most: float) -> bool:
        """Whether a call of that price may be sent."""
        async with self.settled:
            await self.settled.wait_for(lambda: self.fits(most) or self.held <= 1e-12)
            if not self.fits(most):
                self.refused += 1
                return False
            self.held += most
            return True

    async def settle(self, most: float, usd: float, what: str) -> None:
        async with self.settled:
            self.held = max(0.0, self.held - most)
            self.by_what[what] = self.by_what.get(what, 0.0) + usd
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"what": what, "usd": usd}) + "\n")
            self.settled.notify_all()


def read_spent(file: Path) -> dict[str, float]:
    """USD of earlier runs, by what it was spent on; a line that a kill cut short does not count."""
    found: dict[str, float] = {}
    with suppress(FileNotFoundError):
        for line in file.read_text("utf-8").splitlines():
            with suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                found[str(entry["what"])] = found.get(str(entry["what"]), 0.0) + float(entry["usd"])
    return found


class PricedClient(LadderClient):
    """Asks tiers within a budget: what it may not cover is refused, as a row's own fault would be."""

    def __init__(self, client: Any, ladder: ServedLadder, purse: Purse, what: str) -> None:
        super().__init__(client, ladder)
        self.purse, self.what = purse, what

    async def ask(self, tier: str, messages: Sequence[Row], max_tokens: int) -> Row:
        most = most_usd(messages, max_tokens, self.ladder.prices[tier])
        if not await self.purse.hold(most):
            raise Refused(SPENT)
        usd = 0.0
        try:
            reply = await super().ask(tier, messages, max_tokens)
            usd = price_of(reply, self.ladder.prices[tier])
            return reply
        finally:
            await self.purse.settle(most, usd, self.what)


def price_of(reply: Mapping[str, Any], price: Price) -> float:
    """USD of a reply by its tokens; 0 where the tier does not count them."""
    usage = reply.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return (float(counts.get("prompt_tokens") or 0) * price[0] + float(counts.get("completion_tokens") or 0) * price[1]) / 1e6
