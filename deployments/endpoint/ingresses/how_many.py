"""How many ingresses a server has where its configuration does not say."""

import os

from deployments.ledger.database import address, read_url
from router.config import Config

CORES_EACH = 4  # an ingress keeps one core busy; the others are for HAProxy, the tiers' replicas and Ray
MOST = 4  # beyond, their own messages and memory (370 MB each) cost more than they give


def ingresses(config: Config, cores: int, machines: int) -> int:
    """One for each four cores, 1 to 4. One where the ladder runs on several machines and the ledger is a file on one of them."""
    if config.server.replicas is not None:
        return config.server.replicas
    if machines > 1 and read_url(address(config.ledger)).get_backend_name() == "sqlite":
        return 1
    return max(1, min(MOST, cores // CORES_EACH))


def with_ingresses(config: Config) -> Config:
    """The configuration with a number of ingresses: what it says, or what suits this machine and the Ray that runs."""
    count = ingresses(config, usable_cores(), machines_of_ray())
    return config.model_copy(update={"server": config.server.model_copy(update={"replicas": count})})


def usable_cores() -> int:
    """Cores that this process may use, fewer where a container's share of time is smaller."""
    allowed = len(os.sched_getaffinity(0))
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))
    except (OSError, ValueError):
        return allowed


def machines_of_ray() -> int:
    """Machines of the Ray cluster; 1 where none runs yet."""
    import ray

    if not ray.is_initialized():
        return 1
    return sum(bool(node["Alive"]) for node in ray.nodes())  # type: ignore[no-untyped-call]  # Ray's function has no annotations


def told(asked: Config, count: int) -> str:
    """What the start says of them. asked: the configuration as it was given."""
    by = "server.replicas" if asked.server.replicas is not None else "one for each four cores, 1 to 4; server.replicas sets it"
    return f"{count}   ({by})"
