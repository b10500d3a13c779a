"""One plain call: its events go to the client as they come, from the first byte; only the last waits for the ledger."""

import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from deployments.beside_loop import by_length
from deployments.endpoint.ongoing_request import CallRecord, OngoingRequest
from deployments.endpoint.openai_json import parts_of, usage_of
from deployments.tiers.tier import DONE, Tier
from router.errors import RequestFailed
from router.request import wire
from router.types import Call, Usage

SPEAKS = re.compile(rb'"(?:content|text|arguments)"\s*:\s*"[^"]')
# Text of an answer cannot look like this: its quotes are escaped.
TELLS = re.compile(rb'"(?:usage|error)"\s*:\s*\{|\[DONE\]')


@dataclass(slots=True)
class PlainCall:
    """Makes the one call of a request and reads its usage on the way."""

    tier: Tier
    ongoing: OngoingRequest
    record: CallRecord
    chunks: int = 0

    @classmethod
    def of(cls, tier: Tier, ongoing: OngoingRequest) -> "PlainCall":
        name = f"final-{len(ongoing.records) + 1}" if ongoing.records else "final"
        body = wire.forwarded(ongoing.asked.body, tier.name)
        if ongoing.asked.stream:  # the ledger needs the usage whether or not the client wants it
            body["stream_options"] = {**body["stream_options"], "include_usage": True}
        record = CallRecord(Call(name, tier.name, "final", body), ongoing.now())
        ongoing.records[name] = record
        ongoing.tier = tier.name
        return cls(tier, ongoing, record)

    @property
    def wants_usage(self) -> bool:
        return bool((self.ongoing.asked.body.get("stream_options") or {}).get("include_usage", True))

    async def complete(self) -> bytes:
        """The tier's answer as one document. Raises RequestFailed."""
        record, ongoing = self.record, self.ongoing
        try:
            raw = await self.tier.complete(ongoing.asked.path, record.call.body, record.reading, ongoing.call_id(record.call.id))
        except RequestFailed as error:
            record.outcome = error.code
            raise
        except BaseException:
            self.cut_off()
            raise
        finally:
            record.took_s = ongoing.now() - record.began_s
        body = await by_length(raw, json.loads, raw)
        self.count_it(usage_of(body))
        ongoing.sent()
        if ongoing.accounts.keeps("all"):
            ongoing.answer += [text_of(choice, "message") for choice in body["choices"]]
        return raw

    async def stream(self) -> AsyncGenerator[bytes]:
        """The tier's events without the last, [DONE]. Raises RequestFailed."""
        record, ongoing = self.record, self.ongoing
        keep = ongoing.accounts.keeps("all")
        ended = refused = False
        events = self.tier.stream(ongoing.asked.path, record.call.body, record.reading, ongoing.call_id(record.call.id))
        try:
            async with aclosing(events):  # else a client that leaves between two events would leave the tier generating
                async for item in events:
                    self.look(item, keep)
                    shown = self.without_end(item) if TELLS.search(item) else item
                    if shown:
                        yield shown
            ended = True
        except RequestFailed as error:
            record.outcome = error.code
            refused = not self.chunks  # the tier generated nothing
            raise
        finally:
            record.took_s = ongoing.now() - record.began_s
            if not ended and not refused or ended and record.usage == Usage():
                self.cut_off()

    def look(self, item: bytes, keep: bool) -> None:
        """Count the answer's pieces, in case the call is cut off, and note when the first came."""
        speaks = len(SPEAKS.findall(item))  # an item may hold several events
        self.chunks += speaks
        if speaks and self.record.first_token_s is None:
            self.record.first_token_s = self.ongoing.now() - self.record.began_s
            self.ongoing.sent()
        if speaks and keep:
            chunks = [json.loads(part) for part in parts_of(item) if part != DONE[6:-2]]
            self.ongoing.answer += [text_of(choice, "delta") for chunk in chunks for choice in chunk.get("choices") or []]

    def without_end(self, item: bytes) -> bytes:
        """The item without [DONE], and without the usage where the client declined it; notes the usage."""
        shown = []
        for part in parts_of(item):
            if part == DONE[6:-2]:
                continue
            data = json.loads(part)
            if data.get("usage"):
                self.count_it(usage_of(data))
            if data.get("error"):
                self.record.outcome = "tier_failed"
            if data.get("choices") or data.get("error") or self.wants_usage:
                shown.append(b"data: " + part + b"\n\n")
        return b"".join(shown)

    def count_it(self, usage: Usage) -> None:
        self.record.usage = usage
        self.record.outcome = self.record.outcome or "answered"
        if usage == Usage():
            self.cut_off()

    def cut_off(self) -> None:
        """Where the tier reported no usage, count the tokens that it was sent and that came back."""
        if self.record.usage == Usage():
            self.record.usage = Usage(self.ongoing.counts[self.tier.name](wire.facts(self.ongoing.asked).counted), self.chunks)
            self.record.estimated = True
        self.record.outcome = self.record.outcome or "cancelled"


def text_of(choice: dict[str, Any], part: str) -> str:
    """The text of a choice, or of a piece of it. part: `message` or `delta`."""
    return str((choice.get(part) or {}).get("content") or choice.get("text") or "")
