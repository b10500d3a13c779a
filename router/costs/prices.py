"""What a call costs: by its tokens, by its share of the machine, and what the top tier alone would have cost."""

from collections.abc import Sequence

from router.config import Tier
from router.types import Usage

# A tier priced by the hour only: tokens are weighed by a replica that makes so many a second. The absolute figure is a
# guess (batching moves it tenfold); ratios between tiers, which is what flows compare, are those of the hourly prices.
OUTPUT_PER_S, INPUT_PER_S = 1_000.0, 10_000.0


def per_token(tier: Tier) -> tuple[float, float]:
    """USD per input token and per output token."""
    price = tier.price
    if price.usd_per_1m_input is not None and price.usd_per_1m_output is not None:
        return price.usd_per_1m_input / 1e6, price.usd_per_1m_output / 1e6
    per_second = (price.usd_per_accelerator_hour or 0.0) * max(1, tier.accelerators) / 3600
    return per_second / INPUT_PER_S, per_second / OUTPUT_PER_S


def prices(tier: Tier) -> tuple[float, float, float]:
    """USD per input token, per output token, and per input token that was in the prefix cache."""
    given, made = per_token(tier)
    cached = tier.price.usd_per_1m_cached_input
    return given, made, given if cached is None else cached / 1e6


def token_cost_usd(usage: Usage, prices: Sequence[float], cached_tokens: int = 0) -> float:
    """USD. prices: of `prices`, or of `per_token`, which knows no cheaper price of the `cached_tokens` of the input."""
    cached = min(cached_tokens, usage.input_tokens)
    price = prices[2] if len(prices) > 2 else prices[0]
    return (usage.input_tokens - cached) * prices[0] + cached * price + usage.output_tokens * prices[1]


def gpu_usd(busy_s: float, tier: Tier) -> float | None:
    """What a share of a replica's busy time costs; None: the tier has no price by the hour."""
    price = tier.price.usd_per_accelerator_hour
    return None if price is None else busy_s * max(1, tier.accelerators) * price / 3600


# -- what the top tier alone would have cost -------------------------------------------------------------------------------


def busy_alone(usage: Usage, cached_tokens: int, busy_s: float, of_calls: Usage, of_cached: int, ratio: float) -> float | None:
    """Replica-seconds that the top tier would have been busy, by its measured rates; None: nothing was measured.

    busy_s, of_calls, of_cached: sums over calls that it really answered. ratio: input tokens that take as long as one
    output token (metering.Rates.ratio; its prior is 10).
    """
    work = weighed(of_calls, of_cached, ratio)
    return weighed(usage, cached_tokens, ratio) * busy_s / work if work > 0 else None


def weighed(usage: Usage, cached_tokens: int, ratio: float) -> float:
    """In output tokens. What was in the prefix cache was not computed again."""
    return max(0, usage.input_tokens - cached_tokens) / ratio + usage.output_tokens
