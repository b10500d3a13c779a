"""What tokens cost on a tier."""

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


def of(usage: Usage, prices: tuple[float, float]) -> float:
    """USD."""
    return usage.input_tokens * prices[0] + usage.output_tokens * prices[1]
