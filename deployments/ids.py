"""Ids that are unique but not secret.

`uuid.uuid4` asks the kernel and releases Python's lock for that: in a process with other threads the event loop then waits
behind them to get it back. A generator that the kernel seeded once costs no such wait (docs/speed.md).
"""

import hashlib
import random
import re
import secrets
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

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


# -- tracing -----------------------------------------------------------------------------------------------------------------


class Parent(NamedTuple):
    """The client's own span, as it named it: https://www.w3.org/TR/trace-context/."""

    traceparent: str
    tracestate: str = ""


@dataclass
class Tracing:
    """Whether this process exports spans."""

    on: bool = False


TRACING = Tracing()
PARENT: ContextVar[Parent | None] = ContextVar("PARENT", default=None)
"""of the request that is being answered; None: its client sent none"""
TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")
LONGEST_STATE = 512  # characters of a tracestate that is passed on


def parent_of(traceparent: str, tracestate: str) -> Parent | None:
    """None: there is none that we could pass on."""
    if not TRACEPARENT.fullmatch(traceparent):
        return None
    sane = len(tracestate) <= LONGEST_STATE and tracestate.isascii() and tracestate.isprintable()
    return Parent(traceparent, tracestate if sane else "")


def span_id(name: str) -> int:
    """The span's id of a request or a call, 64 bits, never 0."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) or 1


def passed_on(call_id: str) -> dict[str, str]:
    """Headers by which an upstream continues the trace. call_id: of the call that is made."""
    parent = PARENT.get() or Parent(f"00-{CURRENT.get()}-{'0' * 16}-01" if TRACING.on else "")
    if TRACING.on:  # then the call's own span is what the upstream continues
        version, trace, _, flags = parent.traceparent.split("-")
        parent = parent._replace(traceparent=f"{version}-{trace}-{span_id(call_id):016x}-{flags}" if trace else "")
    return {name: value for name, value in parent._asdict().items() if value}
