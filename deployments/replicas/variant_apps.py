"""A tier on other weights than the main application's: a Ray Serve application of its own beside it, without a route.

Its name says which weights it has: `stepdown-small-3f2a9c41e0d2`. So it is found again after the process that deployed it has
died, by any other. Its replicas are the tier's own (vllm_tier.py) but for the weights.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

import ray

from deployments import APP
from deployments.replicas.replica_count import COUNTS, Details, ReplicaCounts, details, states
from router.flywheel.variants import Version

BIND = "deployments.replicas.vllm_tier:bind"
NAME = re.compile(rf"{APP}-(?P<tier>[a-z0-9][a-z0-9._-]{{0,62}})-(?P<short>[0-9a-f]{{12}}|configured)", re.ASCII)
DEPLOY_S = 300.0  # for a process that imports vLLM and hands the application to Serve


@dataclass(frozen=True, slots=True)
class AppState:
    """What Serve says of one such application."""

    status: str
    """Serve's: DEPLOYING, RUNNING, UNHEALTHY, DEPLOY_FAILED, DELETING"""
    replicas: int = 0
    """that run"""
    message: str = ""


def app_of(version: Version) -> str:
    """The application's name."""
    return f"{APP}-{version.tier}-{version.short}"


def deployment_of(version: Version) -> str:
    """The name of its one deployment, which no other application has: processes know replicas' health by it."""
    return prefix_of(version) + version.tier.replace(".", "_")


def prefix_of(version: Version) -> str:
    return f"variant-{version.short}-"


def tier_of_app(app: str) -> str | None:
    """The tier that an application runs beside the main one; None: it is no such application."""
    found = NAME.fullmatch(app)
    return found["tier"] if found else None


def deploy(version: Version, settings: Any, drain_s: float, bind: str = BIND) -> None:
    """Hand the application to Serve, and return without waiting for its replicas. Blocks; for a thread. Raises Ray's errors.

    settings: the tier's, with the weights as `source`. bind: names what makes the application of these, see vllm_tier.bind; it
    runs in a process of its own, since to import vLLM takes seconds in which no request of this one would go on.
    """
    task = ray.remote(num_cpus=0, max_calls=1, max_retries=0)(handed_over)
    ray.get(task.remote(app_of(version), prefix_of(version), settings, drain_s, bind), timeout=DEPLOY_S)


def handed_over(app: str, prefix: str, settings: Any, drain_s: float, bind: str) -> None:
    """Runs in a process of Ray's own."""
    from ray import serve

    serve._run(resolve_name(bind)(settings, drain_s, prefix=prefix), name=app, route_prefix=None, _blocking=False)


def delete(app: str) -> None:
    """Stop an application once its running answers have ended; returns at once. Blocks shortly; for a thread."""
    from ray import serve

    serve.delete(app, _blocking=False)


def delete_all() -> None:
    """Stop all of them, and wait for it, a minute at most. For whoever stops the main application. Raises TimeoutError."""
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    if client and (found := list(apps())):
        client.delete_apps(found)


def apps(ask: Callable[[], Details] = details) -> dict[str, AppState]:
    """By name: all that Serve knows. Blocks; for a thread. Raises RayError, RayServeException."""
    if ask is details and not ray.is_initialized():  # Serve would start a cluster to be able to say
        return {}
    known = ask()
    running = states(known)
    return {
        app: AppState(text(its.get("status")), sum(n["RUNNING"] for (of, _), n in running.items() if of == app), message(its))
        for app, its in known.get("applications", {}).items()
        if tier_of_app(app)
    }


def text(status: Any) -> str:
    return str(getattr(status, "value", status))


def message(its: Mapping[str, Any]) -> str:
    """The last words of what is wrong; empty: nothing is said."""
    said = [str(its.get("message") or ""), *(str(one.get("message") or "") for one in its.get("deployments", {}).values())]
    return next((words for words in said[::-1] if words), "")[-500:]


async def replicas_beside(tier: str, counts: ReplicaCounts = COUNTS) -> int:
    """How many replicas of a tier run besides the main application's: their machines' time is the tier's too."""
    return sum(n for (app, _), n in (await counts.all()).items() if tier_of_app(app) == tier)
