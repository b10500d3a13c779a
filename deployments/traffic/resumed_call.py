"""The two calls of a stream that went on at a second replica: what each of them read, made and cost."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from router.config import Tier
from router.costs import prices as costs
from router.costs.prices import token_cost_usd
from router.errors import TierFailed
from router.trace import RESUMED, CallRow, Reading, Resumed
from router.types import Usage


def measured(reading: Reading, tier: Tier) -> dict[str, Any]:
    """A row's fields for what a replica measured."""
    gpu_usd = None if reading.busy_s is None else costs.gpu_usd(reading.busy_s, tier)
    return {"replica": reading.replica, "busy_s": reading.busy_s, "cached_tokens": reading.cached_tokens, "gpu_usd": gpu_usd}


def parts(usage: Usage, resumed: Resumed) -> tuple[Usage, Usage]:
    """The tokens of the first call and of the second, which read what the first had made. usage: of the whole answer."""
    made = min(resumed.tokens, usage.output_tokens)
    return Usage(usage.input_tokens, made), Usage(usage.input_tokens + resumed.tokens, usage.output_tokens - made)


def cost_usd(usage: Usage, prices: Sequence[float], reading: Reading) -> float:
    """The token price of both. reading: the first call's."""
    assert reading.resumed
    first, second = parts(usage, reading.resumed)
    cached = reading.resumed.reading.cached_tokens
    return token_cost_usd(first, prices, reading.cached_tokens) + token_cost_usd(second, prices, cached)


def rows(row: CallRow, reading: Reading, prices: Sequence[float], tier: Tier) -> list[CallRow]:
    """row: of the whole answer. Returns it where one replica gave it, else a row for each of the two calls."""
    resumed = reading.resumed
    if resumed is None:
        return [row]
    first, second = parts(Usage(row.input_tokens, row.output_tokens), resumed)
    lost = replace(
        row,
        outcome=TierFailed.code,
        took_s=min(resumed.began_s, row.took_s),
        output_tokens=first.output_tokens,
        cost_usd=token_cost_usd(first, prices, reading.cached_tokens),
    )
    again = replace(
        row,
        id=row.id + RESUMED,
        began_s=row.began_s + resumed.began_s,
        took_s=max(0.0, row.took_s - resumed.began_s),
        first_token_s=resumed.first_token_s,
        first_answer_s=resumed.first_token_s,
        thought_tokens=0,  # within a thought no stream goes on
        input_tokens=second.input_tokens,
        output_tokens=second.output_tokens,
        cost_usd=token_cost_usd(second, prices, resumed.reading.cached_tokens),
        **measured(resumed.reading, tier),
    )
    return [lost, again]


def whole(answered: CallRow, calls: Sequence[CallRow]) -> Usage:
    """The tokens of the answer whose row, or whose second row, is `answered`."""
    first = next((call for call in calls if call.id + RESUMED == answered.id), None)
    if first is None:
        return Usage(answered.input_tokens, answered.output_tokens)
    return Usage(first.input_tokens, first.output_tokens + answered.output_tokens)


def told(reading: Reading) -> dict[str, int]:
    """What clients are told of it in `usage.stepdown`; empty: one replica gave the whole answer. reading: the record's."""
    resumed = reading.answering.resumed
    return {"resumed_after_tokens": resumed.tokens} if resumed else {}
