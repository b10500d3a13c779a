"""A tier behind any OpenAI-compatible URL. Addresses come from the configuration only, never from a request."""

import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx

from deployments.gauge import cached_of, usage_of
from deployments.tier import failure
from router import config
from router.errors import NoReplica, TierFailed
from router.trace import Reading
from router.types import Path


class RemoteTier:
    def __init__(self, settings: config.RemoteTier, timeout_s: float = 600.0) -> None:
        self.name = settings.name
        self.settings = settings
        key = os.environ.get(settings.api_key_env or "", "")
        self.client = httpx.AsyncClient(
            base_url=settings.url.rstrip("/") + "/",
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout_s, connect=5.0),
        )
        # Quotes inside texts are escaped in JSON, so these bytes can only be the field itself.
        self.field = re.compile(rb'"model"\s*:\s*' + re.escape(json.dumps(settings.model).encode()))
        self.ours = b'"model":' + json.dumps(self.name).encode()

    def renamed(self, data: bytes) -> bytes:
        """The answer with this tier's name in `model`."""
        return self.field.sub(lambda _: self.ours, data, count=1)

    def request(self, path: Path, body: Mapping[str, Any]) -> httpx.Request:
        return self.client.build_request("POST", path, json={**body, "model": self.settings.model})

    async def send(self, request: httpx.Request) -> httpx.Response:
        try:
            response = await self.client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise NoReplica(self.name, type(error).__name__) from None
        if response.status_code != 200:
            raw = await response.aread()
            await response.aclose()
            raise failure(self.name, response.status_code, raw)
        return response

    async def complete(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> bytes:
        response = await self.send(self.request(path, body))
        try:
            raw = await response.aread()
            note(raw, reading)
            return self.renamed(raw)
        except httpx.HTTPError as error:
            raise TierFailed(self.name, type(error).__name__) from None
        finally:
            await response.aclose()

    async def stream(
        self, path: Path, body: Mapping[str, Any], reading: Reading | None = None, call_id: str = ""
    ) -> AsyncIterator[bytes]:
        response = await self.send(self.request(path, body))
        try:
            async for line in response.aiter_lines():
                if line:
                    note(line.removeprefix("data:").encode(), reading)
                    yield self.renamed(line.encode()) + b"\n\n"
        except httpx.HTTPError as error:
            raise TierFailed(self.name, type(error).__name__) from None
        finally:
            await response.aclose()


def note(raw: bytes, reading: Reading | None) -> None:
    """What the upstream says of its prefix cache; how busy its machines were it does not say."""
    if reading is not None and b'"cached_tokens"' in raw:
        reading.cached_tokens = cached_of(usage_of(raw.decode("utf-8", "replace")))
