"""Ids that are unique but not secret.

`uuid.uuid4` asks the kernel and releases Python's lock for that: in a process with other threads the event loop then waits
behind them to get it back. A generator that the kernel seeded once costs no such wait (docs/speed.md).
"""

import random
import secrets
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

GENERATOR = random.Random(secrets.randbits(256))
"""this process's own; other code may seed the random module's"""
REPLY = "chatcmpl-"
"""before a request's id: the id of its chat completion, as OpenAI begins them"""
CURRENT: ContextVar[str] = ContextVar("CURRENT", default="")
"""the id of the request that is being answered; empty outside of requests"""


def fresh() -> str:
    """32 hexadecimal digits."""
    return f"{GENERATOR.getrandbits(128):032x}"


def current() -> str:
    """The id of the request that is being answered: in its headers, its errors, the log and the ledger."""
    return CURRENT.get() or fresh()


def traced(body: Mapping[str, Any]) -> dict[str, Any]:
    """An error's body with the id of its request, so that whoever reads it can find the request in the log."""
    error = body.get("error")
    return {**body, "error": {**error, "trace_id": CURRENT.get()}} if isinstance(error, dict) and CURRENT.get() else dict(body)
