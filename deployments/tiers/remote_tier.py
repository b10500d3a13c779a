"""A tier behind any OpenAI-compatible URL. Addresses come from the configuration only, never from a request.

It uses aiohttp: httpx took over half of a request's processor time here (docs/speed.md).
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from deployments.beside_loop import by_size
from deployments.replicas.meter import cached_of, usage_of
from deployments.tiers.tier import Tier, failure
from router import config
from router.errors import NoReplica, TierFailed
from router.trace import Reading
from router.types import Path

CONNECT_S = 5.0
IDLE_S = 4.0  # servers close idle connections after 5 s and more; we must not use one that is just being closed
BROKEN = (aiohttp.ClientError, TimeoutError, OSError)


class RemoteTier(Tier):
    """timeout_s: seconds of silence after which a call fails."""

    def __init__(self, settings: config.RemoteTier, timeout_s: float = 600.0) -> None:
        self.name, self.settings, self.timeout_s = settings.name, settings, timeout_s
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
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=self.timeout_s),
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

    async def send(self, path: Path, body: Mapping[str, Any]) -> aiohttp.ClientResponse:
        """An answer with status 200, to be read or closed. A redirect is not followed: it could lead anywhere."""
        raw = await by_size(self.encoded, body)
        try:
            response = await self.session.post(self.urls[path], data=raw, allow_redirects=False)
            if response.status == 200:
                return response
            async with response:
                raise failure(self.name, response.status, await response.read())
        except BROKEN as error:
            raise NoReplica(self.name, type(error).__name__) from None

    def encoded(self, body: Mapping[str, Any]) -> bytes:
        return json.dumps({**body, "model": self.settings.model}, ensure_ascii=False, separators=(",", ":")).encode()

    async def complete(self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = "") -> bytes:
        async with await self.send(path, body) as response:
            try:
                raw = await response.read()
            except BROKEN as error:
                raise TierFailed(self.name, type(error).__name__) from None
        note_cached(raw, reading)
        return self.renamed(raw)

    async def stream(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> AsyncGenerator[bytes]:
        async with await self.send(path, body) as response:
            try:
                async for line in lines(response.content.iter_any()):
                    note_cached(line.removeprefix(b"data:"), reading)
                    yield self.renamed(line) + b"\n\n"
            except BROKEN as error:
                raise TierFailed(self.name, type(error).__name__) from None


def proxy_for(url: URL) -> str | None:
    """The environment's proxy for that address. aiohttp's own `trust_env` looks it up for each request, in two threads one
    after the other, and would send the credentials in ~/.netrc."""
    return None if proxy_bypass(f"{url.host}:{url.port}") else getproxies().get(url.scheme)


async def lines(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines that are not empty, however long they are."""
    held = b""
    async for part in parts:
        *whole, held = (held + part).split(b"\n")
        for line in whole:
            if line := line.rstrip(b"\r"):
                yield line
    if held:
        yield held


def note_cached(raw: bytes, reading: Reading | None) -> None:
    """Note what the upstream reports of its prefix cache; it does not report how busy its machines were."""
    if reading is not None and b'"cached_tokens"' in raw:
        reading.cached_tokens = cached_of(usage_of(raw.decode("utf-8", "replace")))
