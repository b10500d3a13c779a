"""Decides which tier answers a request, and by which steps; measures, prices and learns from what came of it. Pure.

May import `classifiers`; its rooms import each other only downwards, as pyproject.toml lists them. Must never know Ray, vLLM,
an HTTP server, or anything of `deployments`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from router.config import Config, load_config
    from router.engine import Router
    from router.types import Decision, Facts, Request, Usage

__all__ = ["Config", "Decision", "Facts", "Request", "Router", "Usage", "load_config"]
HOMES = {"config": ("Config", "load_config"), "engine": ("Router",), "types": ("Decision", "Facts", "Request", "Usage")}


def __getattr__(name: str) -> Any:
    """Import on demand: the engine imports scikit-learn, which costs seconds that most commands can do without."""
    for module, names in HOMES.items():
        if name in names:
            return getattr(import_module(f"router.{module}"), name)
    raise AttributeError(f"module 'router' has no attribute {name!r}")
