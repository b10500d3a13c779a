"""What a tier can do: complete a request, or stream it. The body is OpenAI's, so is the answer."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

from router.errors import NoReplica, TierFailed
from router.trace import Reading
from router.types import Path

DONE = b"data: [DONE]\n\n"
SESSION: ContextVar[str] = ContextVar("session", default="")
"""what the client calls the conversation of the request at hand, as a digest; a matter of all its calls, whichever tier"""


class Tier(Protocol):
    """Two methods. Both raise RequestFailed before anything was answered.

    reading: filled with what was measured of the call, at the latest when the answer ends.
    call_id: under which a measurement that comes later is told.
    """

    name: str

    async def complete(self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = "") -> bytes:
        """The whole answer, as the JSON of an OpenAI response."""
        ...

    def stream(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> AsyncGenerator[bytes]:
        """Server-sent events, each of them whole, ending with usage (unless declined) and [DONE]."""
        ...


def event(data: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def failure(tier: str, status: int, raw: bytes) -> TierFailed | NoReplica:
    """The tier's own error: 503 and 429 mean try later, other 4xx are the request's fault, the rest the tier's."""
    if status in (429, 503):
        return NoReplica(tier, f"status {status}")
    try:
        body = json.loads(raw)
    except ValueError:
        body = None
    body = body if isinstance(body, dict) else {}
    error = body.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return TierFailed(tier, str(message or f"status {status}")[:500], status, body)
