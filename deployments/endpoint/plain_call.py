"""One plain call: its events go to the client as they come, from the first byte; only the last waits for the ledger."""

import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from deployments.beside_loop import by_length
from deployments.endpoint.ongoing_request import CallRecord, OngoingRequest
from deployments.endpoint.openai_json import ReplyId, parts_of, usage_of
from deployments.endpoint.received import Received, texts_of
from deployments.learning.kept.collected import Said
from deployments.tiers.tier import DONE, Tier, event
from deployments.tiers.tier_answer import WAITING
from router.errors import RequestFailed
from router.request import wire
from router.request.body import answer_count
from router.request.shown_reasoning import ShownReasoning
from router.request.thoughts import split
from router.types import Call, Usage

# Text of an answer cannot look like this: its quotes are escaped.
TELLS = re.compile(rb'"usage"\s*:\s*\{|"choices"\s*:\s*\[\s*\]|\[DONE\]')


@dataclass(slots=True)
class PlainCall:
    """Makes the one call of a request and reads its usage on the way."""

    tier: Tier
    ongoing: OngoingRequest
    record: CallRecord
    reasoning: ShownReasoning | None = None
    """changes the answer where the operator wants reasoning to be named otherwise or hidden; None: its bytes pass as they are"""

    @classmethod
    async def of(cls, tier: Tier, ongoing: OngoingRequest) -> "PlainCall":
        name = f"final-{len(ongoing.records) + 1}" if ongoing.records else "final"
        body = wire.forwarded(await ongoing.within_window(ongoing.asked.body, tier.name), tier.name)
        if ongoing.asked.stream:  # the ledger needs the usage whether or not the client wants it
            body["stream_options"] = {**body["stream_options"], "include_usage": True}
        received = Received(answer_count(body) > 1)
        said = Said() if ongoing.collecting else None
        record = CallRecord(Call(name, tier.name, "final", body), ongoing.now(), received=received, said=said)
        if ongoing.collecting:
            ongoing.collecting.call = name
        ongoing.records[name] = record
        ongoing.tier = tier.name
        reasoning = ShownReasoning.of(ongoing.server, ongoing.asked.body, ongoing.tiers[tier.name].thinking)
        return cls(tier, ongoing, record, reasoning)

    async def complete(self) -> bytes:
        """The tier's answer as one document. Raises RequestFailed."""
        record, ongoing = self.record, self.ongoing
        try:
            raw = await self.tier.complete(ongoing.asked.path, record.call.body, record.reading, ongoing.call_id(record.call.id))
        except RequestFailed as error:
            record.failed(error)
            raise
        except BaseException:
            record.ended, record.outcome = True, record.outcome or "cancelled"
            raise
        finally:
            record.took_s = ongoing.now() - record.began_s
        body = await by_length(raw, json.loads, raw)
        record.received.body(body)
        self.count_it(usage_of(body))
        ongoing.sent()
        if ongoing.accounts.keeps("all"):
            ongoing.answer += [split(text_of(choice, "message")).text for choice in body["choices"]]
        if ongoing.collecting and record.said:
            record.said.document(body["choices"][0], len(raw))
        if self.reasoning:
            body, raw = await by_length(raw, self.renamed, self.reasoning, body)
        return await by_length(raw, ReplyId(ongoing.collecting.id).document, raw, body) if ongoing.collecting else raw

    def renamed(self, reasoning: ShownReasoning, body: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        shown = reasoning.document(body)
        return shown, json.dumps(shown).encode()

    async def stream(self) -> AsyncGenerator[bytes]:
        """The tier's events without the last, [DONE]. Raises RequestFailed."""
        record, ongoing = self.record, self.ongoing
        keep = ongoing.accounts.keeps("all")
        named = ReplyId(ongoing.collecting.id) if ongoing.collecting else None
        ended = refused = False
        events = self.tier.stream(ongoing.asked.path, record.call.body, record.reading, ongoing.call_id(record.call.id))
        try:
            async with aclosing(events):  # else a client that leaves between two events would leave the tier generating
                async for item in events:
                    self.look(item, keep)
                    passed = self.reworded(self.reasoning, item) if self.reasoning else item
                    shown = self.without_end(passed) if TELLS.search(passed) else passed
                    if shown:
                        yield named.events(shown) if named else shown
            ended = True
        except RequestFailed as error:
            record.failed(error)
            refused = not record.received.size  # the tier generated nothing
            raise
        finally:
            record.took_s = ongoing.now() - record.began_s
            record.outcome = record.outcome or ("answered" if ended else "cancelled")
            record.ended = not refused

    def look(self, item: bytes, keep: bool) -> None:
        """Take the answer's pieces, in case the call is cut off, and note when the first came."""
        speaks = self.record.received.event(item)
        if speaks and self.record.first_token_s is None:
            self.record.first_token_s = self.ongoing.now() - self.record.began_s
            if not (self.reasoning and self.reasoning.hides):
                self.ongoing.sent()
        if self.record.said:
            self.record.said.event(item)
        if speaks and keep:
            chunks = [json.loads(part) for part in parts_of(item) if part != DONE[6:-2]]
            self.ongoing.answer += [text_of(choice, "delta") for chunk in chunks for choice in chunk.get("choices") or []]

    def reworded(self, reasoning: ShownReasoning, item: bytes) -> bytes:
        """Events with the reasoning as the client gets it; comments stay, and one comes where nothing else has for long."""
        made = []
        for block in item.split(b"\n\n"):
            if block.startswith(b"data:") and (data := block[5:].strip()) != DONE[6:-2]:
                chunk = reasoning.chunk(json.loads(data))
                made += [event(chunk)] if chunk else []
                if chunk and any(text for choice in chunk["choices"] for text in texts_of(choice)):
                    self.ongoing.sent()
            elif block:
                made.append(block + b"\n\n")
        return b"".join(made) or (WAITING if reasoning.silent(self.ongoing.now()) else b"")

    def without_end(self, item: bytes) -> bytes:
        """The item without [DONE], and without chunks that have no choices unless the client asked for usage; notes the usage."""
        shown = []
        for part in parts_of(item):
            if part == DONE[6:-2]:
                continue
            data = json.loads(part)
            if data.get("usage"):
                self.count_it(usage_of(data))
            if data["choices"] or (data.get("usage") and self.ongoing.wants_usage):
                shown.append(b"data: " + part + b"\n\n")
        return b"".join(shown)

    def count_it(self, usage: Usage) -> None:
        """Note the usage; what the tier did not report is counted when the request is written down."""
        self.record.usage = usage
        self.record.outcome = self.record.outcome or "answered"
        self.record.ended = True


def text_of(choice: dict[str, Any], part: str) -> str:
    """The text of a choice, or of a piece of it. part: `message` or `delta`."""
    return str((choice.get(part) or {}).get("content") or choice.get("text") or "")
