"""The replicas of a tier or a service as Ray Serve's settings: the resources of each, their number, how one is chosen."""

from typing import Any

from router.engine_settings import VllmReplicas

PREFIX = "tier-"  # of the names of tiers' deployments
SERVICE_PREFIX = "service-"
DRAIN_LOOK_S = 0.5  # how often a replica that is to stop checks whether its last answer has ended
# Serve logs a line for each request in each of its processes, 1 % of the time of a short one; the ledger has them all.
LOGS: dict[str, Any] = {"log_level": "WARNING", "enable_access_log": False}


def bundles(tier: VllmReplicas) -> list[dict[str, float]]:
    """One placement-group bundle for each accelerator, or one for a replica on CPUs."""
    bundle = {"CPU": tier.cpus} | ({"GPU": 1.0} if tier.accelerator else {}) | tier.resources
    return [bundle] * tier.tensor_parallel


def deployment_of(tier: str) -> str:
    """The name of the tier's deployment, as Ray makes it from ours."""
    return PREFIX + tier.replace(".", "_")


def replicas_of(tier: VllmReplicas) -> dict[str, Any]:
    """How many replicas. Ray's default for LLMs aims at a billion requests for each replica, so it would never grow."""
    if tier.max_replicas is None:
        return {"num_replicas": tier.replicas}
    scaling = tier.scaling
    autoscaling = {
        "min_replicas": tier.replicas,
        "max_replicas": tier.max_replicas,
        "target_ongoing_requests": scaling.ongoing or max(1.0, tier.max_ongoing / 2),
        "look_back_period_s": scaling.look_back_s,
        "upscale_delay_s": scaling.up_delay_s,
        "downscale_delay_s": scaling.down_delay_s,
        "downscale_to_zero_delay_s": scaling.idle_s,
    }
    return {"autoscaling_config": autoscaling}


def choice_of(tier: VllmReplicas) -> dict[str, Any]:
    """How one of several is chosen. A queue longer by an eighth of `max_ongoing` is too long to come back to for a cache."""
    if tier.most_replicas < 2:
        return {}
    router = {
        "request_router_class": "deployments.replicas.replica_choice.AffineRouter",
        "request_router_kwargs": {"slack": max(1, tier.max_ongoing // 8)},
    }
    return {"request_router_config": router}
