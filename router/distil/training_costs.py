"""What a training costs, by the prices of the tier whose model is trained."""

from router.costs.prices import per_token
from router.tier_settings import Tier

PASSES = 3  # a token is read forwards, and twice as much is computed backwards


def training_usd(tier: Tier, seconds: float, tokens: int) -> float:
    """By the price of the tier's accelerators and the time; where it has none, by what the tier asks for reading as much."""
    hourly = tier.price.usd_per_accelerator_hour
    if hourly is not None:
        return hourly * max(1, tier.accelerators) * seconds / 3600
    return PASSES * tokens * per_token(tier)[0]
