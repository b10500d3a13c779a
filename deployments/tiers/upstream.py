"""The connections to one upstream: what remote tiers and services share. Addresses come from the configuration only, never from a
request.

It uses aiohttp: httpx took over half of a request's processor time here (docs/speed.md).
"""

import asyncio
import os
from collections.abc import Iterable
from contextlib import suppress
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from deployments.ids import passed_on
from deployments.tiers.faults import MOST_BYTES as MOST_ERROR_BYTES
from deployments.tiers.faults import failure
from router.engine_settings import Upstream
from router.errors import NoReplica, TierFailed

CONNECT_S = 5.0
IDLE_S = 4.0  # servers close idle connections after 5 s and more; we must not use one that is just being closed
BROKEN = (aiohttp.ClientError, TimeoutError, OSError)


class UpstreamClient:
    """name: of the tier or service, for errors. paths: those that it has, after the base address."""

    def __init__(self, name: str, upstream: Upstream, paths: Iterable[str]) -> None:
        self.name = name
        key = os.environ.get(upstream.api_key_env or "", "")
        self.headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        base = upstream.url.rstrip("/")
        self.base, self.urls = URL(base), {path: URL(f"{base}/{path}") for path in paths}
        self.opened: aiohttp.ClientSession | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

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
                proxy=proxy_for(self.base),
            )
        return self.opened

    async def close(self) -> None:
        if self.opened is not None:
            await self.opened.close()
            self.opened = None

    async def post(self, path: str, raw: bytes, silence_s: float, call_id: str) -> aiohttp.ClientResponse:
        """An answer with status 200, to be read or closed. A redirect is not followed: it could lead anywhere.

        Raises NoReplica, TierFailed.
        """
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
            raise NoReplica(self.name, type(error).__name__, lost=not isinstance(error, TimeoutError)) from None

    async def document(self, response: aiohttp.ClientResponse, most: int) -> bytes:
        """The whole answer. Raises TierFailed for one without bound, or one that breaks off."""
        raw = bytearray()
        try:
            async for part in response.content.iter_any():
                raw += part
                if len(raw) > most:
                    raise TierFailed(self.name, f"its answer has more than {most} bytes")
        except BROKEN as error:
            raise TierFailed(self.name, type(error).__name__) from None
        return bytes(raw)


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
