"""A tier behind any OpenAI-compatible URL."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from deployments.beside_loop import written
from deployments.ids import passed_on
from deployments.relay.client_socket import switched_off
from deployments.relay.http_answer import Answer
from deployments.relay.http_client import Client
from deployments.tiers.event_stream import END, EventBuffer
from deployments.tiers.reported_usage import Most
from deployments.tiers.tier import Tier
from deployments.tiers.upstream import BROKEN, Response, UpstreamClient, proxy_for
from router import config
from router.errors import TierFailed
from router.request.body import whole_answer_s
from router.trace import Reading
from router.types import Path

SILENCE_S = 3_600.0  # in the middle of a stream, without a byte; `server.stream_idle_s` limits how long one says nothing


class RemoteTier(UpstreamClient, Tier):
    """first_token_s: seconds to wait for a stream's first token; a whole answer may be silent so long and while it is made."""

    def __init__(self, settings: config.RemoteTier, first_token_s: float = SILENCE_S) -> None:
        super().__init__(settings.name, settings, ("chat/completions", "completions"))
        self.settings = settings
        self.first_token_s = self.silence_s = first_token_s
        self.client: Client | None = None
        self.client_loop: asyncio.AbstractEventLoop | None = None
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

    async def send(self, path: Path, body: Mapping[str, Any], silence_s: float, call_id: str) -> Response:
        """An answer with status 200, to be read or closed."""
        return await self.post(path, await self.encoded(body), silence_s, call_id)

    async def asked(self, path: str, raw: bytes, silence_s: float, call_id: str) -> Response:
        if (client := self.small_client()) is None:
            return await super().asked(path, raw, silence_s, call_id)
        answer = await client.post(self.urls[path], raw, passed_on(call_id), silence_s)
        if not answer.packed:
            return answer
        answer.close()
        self.client = None  # from now on aiohttp asks, which can read it
        return await super().asked(path, raw, silence_s, call_id)

    def small_client(self) -> Client | None:
        """For plain HTTP and no proxy between. Like `session`, it belongs to an event loop."""
        loop = asyncio.get_running_loop()
        if self.client_loop is not loop:
            plain = self.base.scheme == "http" and self.base.host and not self.base.user and proxy_for(self.base) is None
            self.client_loop, self.client = loop, Client(self.base, self.headers) if plain and not switched_off() else None
        return self.client

    async def close(self) -> None:
        await super().close()
        if self.client is not None:
            self.client.close()
        self.client = self.client_loop = None

    async def encoded(self, body: Mapping[str, Any]) -> bytes:
        return (await written({**body, "model": self.settings.model}, ascii_only=False, compact=True)).encode()

    async def complete(self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = "") -> bytes:
        async with await self.send(path, body, min(SILENCE_S, whole_answer_s(self.silence_s, body)), call_id) as response:
            return self.renamed(await self.document(response, self.most(body).document_bytes))

    def most(self, body: Mapping[str, Any]) -> Most:
        return Most.of(body, self.settings.context)

    async def stream(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> AsyncGenerator[bytes]:
        buffer = EventBuffer(self.most(body).document_bytes)
        relay = reading.relay if reading else None
        async with await self.send(path, body, SILENCE_S, call_id) as response:
            if relay and isinstance(response, Answer):
                relay.offered = True
                response.sink = lambda part: buffer.empty and relay.take(part, self.renamed)
            try:
                async for part in response.content.iter_any():
                    if events := buffer.feed(part):
                        yield self.joined(events)
                if events := buffer.rest():
                    yield self.joined(events)
            except BROKEN as error:
                raise TierFailed(self.name, type(error).__name__) from None
