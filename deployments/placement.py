"""What one replica of a tier reserves: CPUs, accelerators, and the marks of the nodes that it may run on."""

from router.config import VllmTier

DRAIN_LOOK_S = 0.5  # how often a replica that is to stop looks whether its last answer has ended


def bundles(tier: VllmTier) -> list[dict[str, float]]:
    """One placement-group bundle for each accelerator, or one for a replica on CPUs."""
    bundle = {"CPU": tier.cpus} | ({"GPU": 1.0} if tier.accelerator else {}) | tier.resources
    return [bundle] * tier.tensor_parallel
