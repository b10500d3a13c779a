"""Decides which tier answers a request. Knows no Ray, no HTTP server and no vLLM."""

from router.config import Config, load_config
from router.engine import Router
from router.types import Decision, Facts, Request, Usage

__all__ = ["Config", "Decision", "Facts", "Request", "Router", "Usage", "load_config"]
