"""What a call costs: by its tokens, and by its share of a replica's busy time."""

from collections.abc import Sequence

from router.tier_settings import Tier
from router.types import Usage

# Assumed speed of a replica, to price tokens of a tier that has only an hourly price. The absolute figure is a guess
# (batching changes it tenfold); ratios between tiers, which is what flows compare, are those of the hourly prices.
OUTPUT_PER_S = 1_000.0
INPUT_PER_S = 10_000.0


def per_token(tier: Tier) -> tuple[float, float]:
    """USD per input token and per output token."""
    price = tier.price
    if price.usd_per_1m_input is not None and price.usd_per_1m_output is not None:
        return price.usd_per_1m_input / 1e6, price.usd_per_1m_output / 1e6
    per_second = (price.usd_per_accelerator_hour or 0.0) * max(1, tier.accelerators) / 3600
    return per_second / INPUT_PER_S, per_second / OUTPUT_PER_S


def prices(tier: Tier) -> tuple[float, float, float]:
    """USD per input token, per output token, and per input token that was in the prefix cache."""
    usd_input, usd_output = per_token(tier)
    cached = tier.price.usd_per_1m_cached_input
    return usd_input, usd_output, usd_input if cached is None else cached / 1e6


def token_cost_usd(usage: Usage, prices: Sequence[float], cached_tokens: int = 0) -> float:
    """USD. prices: what `prices` returns, or `per_token`, which charges `cached_tokens` like other input."""
    cached = min(cached_tokens, usage.input_tokens)
    price = prices[2] if len(prices) > 2 else prices[0]
    return (usage.input_tokens - cached) * prices[0] + cached * price + usage.output_tokens * prices[1]


def gpu_usd(busy_s: float, tier: Tier) -> float | None:
    """The cost of a call's share of a replica's busy time; None: the tier has no hourly price."""
    price = tier.price.usd_per_accelerator_hour
    return None if price is None else busy_s * max(1, tier.accelerators) * price / 3600
