"""What a tier can do: complete a request, or stream it. The body is OpenAI's, so is the answer."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from router.types import Path

DONE = b"data: [DONE]\n\n"


class Tier(Protocol):
    """Two methods. Both raise RequestFailed before anything was answered."""

    name: str

    async def complete(self, path: Path, body: Mapping[str, Any]) -> bytes:
        """The whole answer, as the JSON of an OpenAI response."""
        ...

    def stream(self, path: Path, body: Mapping[str, Any]) -> AsyncIterator[bytes]:
        """Server-sent events, each of them whole, ending with usage (unless declined) and [DONE]."""
        ...


def event(data: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"
