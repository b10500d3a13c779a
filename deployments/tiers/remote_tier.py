"""A tier behind any OpenAI-compatible URL. Addresses come from the configuration only, never from a request.

It uses aiohttp: httpx took over half of a request's processor time here (docs/speed.md).
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from deployments.beside_loop import by_size
from deployments.ids import passed_on
from deployments.tiers.event_stream import END, EventBuffer
from deployments.tiers.faults import MOST_BYTES as MOST_ERROR_BYTES
from deployments.tiers.faults import failure
from deployments.tiers.reported_usage import Most
from deployments.tiers.tier import Tier
from router import config
from router.errors import NoReplica, TierFailed
from router.trace import Reading
from router.types import Path

CONNECT_S = 5.0
IDLE_S = 4.0  # servers close idle connections after 5 s and more; we must not use one that is just being closed
SILENCE_S = 600.0  # in the middle of a stream: some models think without a word
BROKEN = (aiohttp.ClientError, TimeoutError, OSError)


class RemoteTier(Tier):
    """first_token_s: seconds to wait for a stream's first token, and of silence after which a whole answer is given up."""

    def __init__(self, settings: config.RemoteTier, first_token_s: float = SILENCE_S) -> None:
        self.name, self.settings = settings.name, settings
        self.first_token_s = self.silence_s = first_token_s
        key = os.environ.get(settings.api_key_env or "", "")
        self.headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        base = settings.url.rstrip("/")
        self.urls = {path: URL(f"{base}/{path}") for path in ("chat/completions", "completions")}
        self.opened: aiohttp.ClientSession | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        # Quotes inside texts are escaped in JSON, so these bytes can only be the field itself.
        self.field = re.compile(rb'"model"\s*:\s*' + re.escape(json.dumps(settings.model).encode()))
        self.ours = b'"model":' + json.dumps(self.name).encode()

    @property
    def session(self) -> aiohttp.ClientSession:
        """Made on first use, as it belongs to an event loop. Connections are not limited here; the ingress limits calls."""
        loop = asyncio.get_running_loop()
        if self.opened is None or self.loop is not loop:
            self.loop = loop
            self.opened = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S),
                headers=self.headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=proxy_for(self.urls["completions"]),
            )
        return self.opened

    async def close(self) -> None:
        if self.opened is not None:
            await self.opened.close()
            self.opened = None

    def renamed(self, data: bytes) -> bytes:
        """The answer with this tier's name in `model`."""
        return self.field.sub(lambda _: self.ours, data, count=1)

    async def send(self, path: Path, body: Mapping[str, Any], silence_s: float, call_id: str) -> aiohttp.ClientResponse:
        """An answer with status 200, to be read or closed. A redirect is not followed: it could lead anywhere."""
        raw = await by_size(self.encoded, body)
        try:
            limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silence_s)
            response = await self.session.post(
                self.urls[path], data=raw, headers=passed_on(call_id), allow_redirects=False, timeout=limits
            )
            if response.status == 200:
                return response
            async with response:
                raise failure(self.name, response.status, await error_body(response), response.headers)
        except BROKEN as error:
            raise NoReplica(self.name, type(error).__name__) from None

    def encoded(self, body: Mapping[str, Any]) -> bytes:
        return json.dumps({**body, "model": self.settings.model}, ensure_ascii=False, separators=(",", ":")).encode()

    async def complete(self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = "") -> bytes:
        async with await self.send(path, body, self.silence_s, call_id) as response:
            try:
                return self.renamed(await self.document(response, self.most(body).document_bytes))
            except BROKEN as error:
                raise TierFailed(self.name, type(error).__name__) from None

    def most(self, body: Mapping[str, Any]) -> Most:
        return Most.of(body, self.settings.context)

    async def document(self, response: aiohttp.ClientResponse, most: int) -> bytes:
        """Raises TierFailed for one without bound."""
        raw = bytearray()
        async for part in response.content.iter_any():
            raw += part
            if len(raw) > most:
                raise TierFailed(self.name, f"its answer has more than {most} bytes")
        return bytes(raw)

    async def stream(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> AsyncGenerator[bytes]:
        buffer = EventBuffer(self.most(body).document_bytes)
        async with await self.send(path, body, SILENCE_S, call_id) as response:
            try:
                async for part in response.content.iter_any():
                    for event in buffer.feed(part):
                        yield self.renamed(event) + END
                for event in buffer.rest():
                    yield self.renamed(event) + END
            except BROKEN as error:
                raise TierFailed(self.name, type(error).__name__) from None


def proxy_for(url: URL) -> str | None:
    """The environment's proxy for that address. aiohttp's own `trust_env` looks it up for each request, in two threads one
    after the other, and would send the credentials in ~/.netrc."""
    return None if proxy_bypass(f"{url.host}:{url.port}") else getproxies().get(url.scheme)


async def error_body(response: aiohttp.ClientResponse) -> bytes:
    """The beginning of an error's body, as far as it comes: its status alone says much."""
    read = b""
    with suppress(*BROKEN):
        async for part in response.content.iter_any():
            read += part
            if len(read) >= MOST_ERROR_BYTES:
                break
    return read
