"""Writes a chat's stream and its end as the client's protocol has them."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from functools import cached_property
from typing import Any, Protocol

from deployments.endpoint.openai_json import parts_of
from deployments.ids import traced
from deployments.tiers.tier import DONE, event
from deployments.tiers.tier_answer import WAITING
from router.errors import RequestFailed
from router.protocols.edge import Edge, Encoder

Keep = Callable[[Mapping[str, Any], Mapping[str, Any]], Awaitable[None]]
"""keeps an answer for requests that continue it: as an assistant's chat message, and as the protocol's document"""


class Writer(Protocol):
    """Turns what `Answering` makes, OpenAI's chat, into what the client gets."""

    heartbeats: bool
    """whether clients count on hearing something between two events"""

    def item(self, item: bytes) -> bytes:
        """Events of a stream, or a comment that keeps it open."""
        ...

    def failed(self, error: RequestFailed) -> bytes:
        """The last events of a stream that broke."""
        ...

    async def ended(self) -> bytes:
        """The last events of a stream that did not. To be called once the request is written down."""
        ...

    async def document(self, answer: Mapping[str, Any]) -> bytes:
        """A whole answer. To be called once the request is written down."""
        ...


class ChatWriter:
    """Passes everything on as it is."""

    heartbeats = False

    def item(self, item: bytes) -> bytes:
        return item

    def failed(self, error: RequestFailed) -> bytes:
        return event(traced(error.body())) + DONE

    async def ended(self) -> bytes:
        return DONE

    async def document(self, answer: Mapping[str, Any]) -> bytes:
        return json.dumps(answer).encode()


class EdgeWriter:
    """Writes another protocol. prompt_tokens: our count, for events that tell it before the tier does."""

    heartbeats = True

    def __init__(self, edge: Edge, prompt_tokens: int = 0, keep: Keep | None = None) -> None:
        self.edge, self.prompt_tokens, self.keep = edge, prompt_tokens, keep

    @cached_property
    def encoder(self) -> Encoder:
        """Of a stream; a whole answer needs none."""
        return self.edge.encoder(self.prompt_tokens)

    def item(self, item: bytes) -> bytes:
        if item.startswith(b":"):
            return b"".join(self.encoder.waiting())
        made = [written for part in parts_of(item) if part != DONE[6:-2] for written in self.encoder.fed(json.loads(part))]
        return b"".join(made)

    def failed(self, error: RequestFailed) -> bytes:
        return b"".join(self.encoder.failed(error))

    async def ended(self) -> bytes:
        made = self.encoder.ended()
        if self.keep and made:
            await self.keep(self.encoder.said(), json.loads(made[-1].partition(b"data: ")[2])["response"])
        return b"".join(made)

    async def document(self, answer: Mapping[str, Any]) -> bytes:
        written = self.edge.document(answer)
        if self.keep:
            await self.keep(self.edge.said(answer), written)
        return json.dumps(written).encode()


CHAT = ChatWriter()


async def with_heartbeats(events: AsyncGenerator[bytes], every_s: float) -> AsyncGenerator[bytes]:
    """The same events, with a comment wherever none came for so long."""
    coming: asyncio.Future[bytes] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({coming}, timeout=every_s)
            if not done:
                yield WAITING
                continue
            try:
                item = coming.result()
            except StopAsyncIteration:
                return
            finally:
                coming = None
            yield item
    finally:
        if coming:
            coming.cancel()
            await asyncio.wait({coming})
        await events.aclose()
