"""Decides which tier answers a request. Knows no Ray, no HTTP server and no vLLM."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from router.config import Config, load_config
    from router.engine import Router
    from router.types import Decision, Facts, Request, Usage

__all__ = ["Config", "Decision", "Facts", "Request", "Router", "Usage", "load_config"]
PLACES = {"config": ("Config", "load_config"), "engine": ("Router",), "types": ("Decision", "Facts", "Request", "Usage")}


def __getattr__(name: str) -> Any:
    """On demand: the engine brings scikit-learn, seven processor seconds that most commands do without."""
    for module, names in PLACES.items():
        if name in names:
            return getattr(import_module(f"router.{module}"), name)
    raise AttributeError(f"module 'router' has no attribute {name!r}")
