"""What only a started ladder shows: a promise that a tier's model cannot keep, and what the tiers cannot do."""

import re
from collections.abc import Mapping
from typing import Any

from deployments import APP
from deployments.replicas.placement import deployment_of
from router.config import Config
from router.decide.abilities import Abilities, as_configured
from router.errors import BadInput

ASK_S = 30.0  # for a ready tier to say what it can do
BROKEN = re.compile(r"BadConfig: ((?:tiers|services)\..+)")


def broken_promise(details: Mapping[str, Any]) -> str:
    """What a replica said that cannot do what its settings promise; empty: none did. Serve would start it twice more in vain.

    details: of Serve, see `replica_count.details`.
    """
    deployments = details.get("applications", {}).get(APP, {}).get("deployments", {})
    found = (BROKEN.search(str(its.get("message"))) for its in deployments.values())
    return next((match[1].strip() for match in found if match), "")


def asked_abilities(config: Config) -> Abilities:
    """What the tiers of a started ladder can do. Tiers that sleep are not woken for it. Raises BadInput if none answers chats."""
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    known = Abilities(config.tiers)
    for tier in config.tiers:
        if tier.local and not tier.sleeps and tier.runs_on == tier.name:
            handle = serve.get_deployment_handle(deployment_of(tier.name), APP)
            try:
                known.report(tier.name, handle.abilities.remote().result(timeout_s=ASK_S))
            except (
                TimeoutError,
                RayError,
                RayServeException,
            ):  # its replica has just died, or is too busy; the ingress goes on asking
                continue
    if none := known.no_chat():
        raise BadInput(none)
    return known


def limits(known: Abilities) -> str:
    """A line for each thing that a tier was found unable to do."""
    whys = [
        (name, known.lack(name, need))
        for name, report in known.found.items()
        for need, why in report.items()
        if why and not as_configured(known.tiers[name], need)
    ]
    return "".join(f"\n  limit      {name} {why}" for name, why in whys)
