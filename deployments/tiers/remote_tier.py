"""A tier behind any OpenAI-compatible URL."""

import json
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import aiohttp

from deployments.beside_loop import written
from deployments.tiers.event_stream import END, EventBuffer
from deployments.tiers.reported_usage import Most
from deployments.tiers.tier import Tier
from deployments.tiers.upstream import BROKEN, UpstreamClient
from router import config
from router.errors import TierFailed
from router.trace import Reading
from router.types import Path

SILENCE_S = 3_600.0  # in the middle of a stream, without a byte; `server.stream_idle_s` limits how long one says nothing


class RemoteTier(UpstreamClient, Tier):
    """first_token_s: seconds to wait for a stream's first token, and of silence after which a whole answer is given up."""

    def __init__(self, settings: config.RemoteTier, first_token_s: float = SILENCE_S) -> None:
        super().__init__(settings.name, settings, ("chat/completions", "completions"))
        self.settings = settings
        self.first_token_s = self.silence_s = first_token_s
        # Quotes inside texts are escaped in JSON, so these bytes can only be the field itself.
        theirs = json.dumps(settings.model).encode()
        self.field = re.compile(rb'"model"\s*:\s*' + re.escape(theirs))
        self.usual = [b'"model":' + theirs, b'"model": ' + theirs]
        """the field as nearly all servers write it; found in a tenth of the time"""
        self.ours = b'"model":' + json.dumps(self.name).encode()

    def renamed(self, data: bytes) -> bytes:
        """An answer, or one event, with this tier's name in `model`: in its first, as others belong to what it holds."""
        near, far = (data.find(form) for form in self.usual)
        if (near < 0) != (far < 0):
            return data.replace(self.usual[near < 0], self.ours, 1)
        return self.field.sub(lambda _: self.ours, data, count=1)

    def joined(self, events: list[bytes]) -> bytes:
        """Whole events of one read, as one item: every item costs as much as several events do."""
        return b"".join([self.renamed(event) + END for event in events])

    async def send(self, path: Path, body: Mapping[str, Any], silence_s: float, call_id: str) -> aiohttp.ClientResponse:
        """An answer with status 200, to be read or closed."""
        return await self.post(path, await self.encoded(body), silence_s, call_id)

    async def encoded(self, body: Mapping[str, Any]) -> bytes:
        return (await written({**body, "model": self.settings.model}, ascii_only=False, compact=True)).encode()

    async def complete(self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = "") -> bytes:
        async with await self.send(path, body, self.silence_s, call_id) as response:
            return self.renamed(await self.document(response, self.most(body).document_bytes))

    def most(self, body: Mapping[str, Any]) -> Most:
        return Most.of(body, self.settings.context)

    async def stream(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> AsyncGenerator[bytes]:
        buffer = EventBuffer(self.most(body).document_bytes)
        async with await self.send(path, body, SILENCE_S, call_id) as response:
            try:
                async for part in response.content.iter_any():
                    if events := buffer.feed(part):
                        yield self.joined(events)
                if events := buffer.rest():
                    yield self.joined(events)
            except BROKEN as error:
                raise TierFailed(self.name, type(error).__name__) from None
