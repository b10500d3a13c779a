"""The one place where what a tier says, a document or a stream, becomes an answer; all else is the tier's failure.

Callers get OpenAI's JSON with the types that it documents, under the tier's own name, and whole events. `usage` is OpenAI's too,
and is left out where it cannot be true, so that the ingress counts the tokens itself.
"""

import asyncio
import json
import logging
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, closing, suppress
from typing import Any

from deployments.tiers.answer_shape import ThoughtsInText, fit_choice, length, need
from deployments.tiers.event_stream import END, EventBuffer, data_of
from deployments.tiers.faults import of_error_event
from deployments.tiers.patience import Patience
from deployments.tiers.reported_usage import Most, reported
from deployments.tiers.tier import DONE, event
from router.errors import BadRequest, NoReplica, RequestFailed, TierFailed
from router.reasoning_settings import Reasoning
from router.request import json_text, wire
from router.trace import Reading
from router.types import Path

log = logging.getLogger("stepdown")

WAITING = b": waiting\n\n"  # in place of an upstream's comments, which keep connections open
REST_S = 1.0  # to wait for the end of a stream after [DONE]
OBJECTS: dict[Path, str] = {"chat/completions": "chat.completion.chunk", "completions": "text_completion"}


class TierAnswers:
    """What one tier says. context: its window in tokens. reasoning: `Tier.thinking` of its settings. idle_s: see `stream`."""

    def __init__(self, tier: str, context: int, reasoning: Reasoning | None = None, idle_s: float | None = None) -> None:
        self.tier, self.context, self.reasoning, self.idle_s = tier, context, reasoning, idle_s
        self.told = False
        """the log has it that this tier reports untrue figures"""

    def whole(self, raw: bytes, path: Path, body: Mapping[str, Any], reading: Reading | None = None) -> bytes:
        """One document as a whole answer. Raises RequestFailed."""
        call = TierCall(self, path, body, "message")
        try:
            data, changed = call.read(raw)
            if not data["choices"]:
                raise ValueError("`choices` is empty")
        except ValueError as error:
            raise self.unusable(error) from None
        call.note(reading)
        return json.dumps(data).encode() if changed else raw

    async def stream(
        self,
        events: AsyncGenerator[bytes],
        path: Path,
        body: Mapping[str, Any],
        reading: Reading | None = None,
        first_s: float | None = None,
    ) -> AsyncGenerator[bytes]:
        """The events from the first token on; those before it come with it. Raises RequestFailed, also in the middle.

        first_s: seconds to wait for that token; None: the tier limits them itself. The next ones are waited for `idle_s` each.
        """
        call, patience = TierStream(self, path, body), Patience(self.tier, self.idle_s)
        async with aclosing(events):
            try:
                async with asyncio.timeout(first_s):
                    first = await call.begin(events)
            except TimeoutError:
                raise NoReplica(self.tier, f"no first token within {first_s} s") from None
            yield first
            with closing(patience):
                while not call.ended:
                    call.check()
                    item = await patience.wait(events, call.said)
                    shown = call.end() if item is None else call.take(item)
                    if shown:
                        yield shown
            with suppress(TimeoutError, RequestFailed):
                async with asyncio.timeout(REST_S):
                    async for _ in events:
                        pass
        call.note(reading)

    def unusable(self, error: Exception) -> TierFailed:
        return TierFailed(self.tier, f"its answer cannot be used: {str(error)[:200]}")

    def untrue(self, what: str) -> None:
        if not self.told:
            self.told = True
            log.warning(
                "tier %s reports figures that cannot be true: %s. They are left out, and tokens are counted here (`estimated` in "
                "the ledger); correct the tier's server, or its `context` in the configuration. This is said once.",
                self.tier,
                what,
            )


class TierCall:
    """One call's answer as it is read. key: see `fit_choice`."""

    def __init__(self, answers: TierAnswers, path: Path, body: Mapping[str, Any], key: str) -> None:
        self.answers, self.path, self.body, self.key = answers, path, body, key
        self.most = Most.of(body, answers.context)
        self.thoughts = ThoughtsInText.of(answers.reasoning, path, body)
        self.chars = 0
        self.usage: dict[str, Any] | None = None

    def read(self, raw: bytes) -> tuple[dict[str, Any], bool]:
        """A document, or the data of an event, and whether it differs from `raw` now. Raises ValueError, RequestFailed."""
        if len(raw) > self.most.document_bytes:
            raise ValueError(f"it has more than {self.most.document_bytes} bytes")
        try:
            data = wire.strict_json(raw, json_text.read_all)
        except BadRequest as error:
            raise ValueError(error) from None
        need(data, (dict,), "it")
        if data.get("error") or data.get("object") == "error":
            raise self.error(data)
        changed = raw.startswith(BOM_UTF8)
        if wire.may_have_half(raw):
            whole = with_whole_characters(data)
            data, changed = whole, changed or whole != data
        choices = data.get("choices")
        if choices is None and data.get("usage") and self.key == "delta":
            choices, changed = data.setdefault("choices", []), True
        need(choices, (list,), "choices")
        for place, choice in enumerate(choices):
            changed = fit_choice(choice, place, self.path, self.key) or changed
        self.chars += sum(length(choice, self.path, self.key) for choice in choices)
        if self.thoughts:
            changed = any([self.thoughts.take_out(choice, self.key) for choice in choices]) or changed
        if choices and "usage" in choices[0]:  # Moonshot has it there
            data["usage"], changed = choices[0].pop("usage") or data.get("usage"), True
        if data.get("model") != self.answers.tier:
            data["model"], changed = self.answers.tier, True
        if data.get("usage") is not None:
            changed = self.read_usage(data) or changed
        return data, changed

    def read_usage(self, data: dict[str, Any]) -> bool:
        """Make the document's usage OpenAI's, or leave it out. Returns whether it changed."""
        given = data["usage"]
        if not given:
            del data["usage"]
            return True
        told = reported(given, self.most, 0 if self.body.get("echo") else self.chars)
        if told.untrue:
            self.answers.untrue(told.untrue)
        self.usage = told.usage
        if told.usage is None:
            del data["usage"]
            return True
        data["usage"] = told.usage
        return bool({k: v for k, v in given.items() if v is not None} != told.usage)

    def note(self, reading: Reading | None) -> None:
        """Bound what was measured of the prefix cache by the prompt, or take it from the usage."""
        if reading is None:
            return
        usage = self.usage or {}
        if usage.get("prompt_tokens_details"):
            reading.cached_tokens = usage["prompt_tokens_details"].get("cached_tokens", 0)
        reading.cached_tokens = max(0, min(reading.cached_tokens, usage.get("prompt_tokens", 0)))

    def error(self, data: Mapping[str, Any]) -> RequestFailed:
        """An error in place of an answer."""
        return of_error_event(self.answers.tier, data.get("error") or data)


def with_whole_characters(data: dict[str, Any]) -> dict[str, Any]:
    """U+FFFD in place of each half of a character: a server that counts UTF-16 may cut an answer there, which is no failure."""
    units = json.dumps(data, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
    whole: dict[str, Any] = json.loads(units.decode("utf-16-le", "replace"))
    return whole


class TierStream(TierCall):
    """One stream as it is read."""

    def __init__(self, answers: TierAnswers, path: Path, body: Mapping[str, Any]) -> None:
        super().__init__(answers, path, body, "delta")
        self.buffer = EventBuffer(self.most.document_bytes)
        self.document: list[bytes] = []
        """parts of what is no stream but, we hope, one document"""
        self.broken: RequestFailed | None = None
        self.open: set[int] = set()
        """choices without a finish reason"""
        self.finished: set[int] = set()
        self.size = 0
        self.ended = False

    @property
    def said(self) -> int:
        """Grows with all that the answer says."""
        return self.chars + len(self.finished) + (self.usage is not None)

    async def begin(self, events: AsyncGenerator[bytes]) -> bytes:
        """The events up to the first token. Raises RequestFailed."""
        shown = []
        while not self.chars and not self.finished:
            item = await anext(events, None)
            shown.append(self.end() if item is None else self.take(item))
            if not self.chars and not self.finished:
                self.check()
        return b"".join(shown)

    def check(self) -> None:
        """Raises what was wrong with the last item."""
        if self.broken is not None:
            raise self.broken

    def take(self, item: bytes) -> bytes:
        """What callers get of an item; empty: nothing yet. What is wrong with it is kept in `broken`."""
        self.size += len(item)
        shown = []
        try:
            if self.size > self.most.stream_bytes:
                raise ValueError(f"its stream has more than {self.most.stream_bytes} bytes")
            for part in self.buffer.feed(item):
                if part and not self.ended:
                    shown.append(self.event(part))
        except ValueError as error:
            self.broken = self.answers.unusable(error)
        except RequestFailed as error:
            self.broken = error
        return b"".join(shown)

    def event(self, part: bytes) -> bytes:
        """Raises ValueError, RequestFailed."""
        data = None if self.document else data_of(part.removeprefix(BOM_UTF8))
        if data is None:
            return self.other(part)
        if not data:
            return WAITING if self.chars else b""
        if data.startswith(b"[DONE]"):
            return self.done()
        read, changed = self.read(data)
        if not read["choices"] and not read.get("usage"):
            return b""  # clients read `choices[0]`
        for choice in read["choices"]:
            index = choice["index"]
            if choice.get("finish_reason"):
                self.finished.add(index)
                self.open.discard(index)
            elif index not in self.finished:
                self.open.add(index)
        if changed:
            return event(read)
        return part + END if part.startswith(b"data: ") and b"\n" not in part else b"data: " + data.replace(b"\n", b" ") + END

    def other(self, part: bytes) -> bytes:
        """Keep what is no event: the upstream may ignore `stream`. Raises ValueError where it cannot be a document."""
        if (
            self.chars
            or self.finished
            or self.open
            or not (self.document or part.removeprefix(BOM_UTF8).lstrip().startswith(b"{"))
        ):
            raise ValueError(f"it is no event of a stream: {ascii(part[:40].decode(errors='replace'))}")
        if self.size > self.most.document_bytes:
            raise ValueError(f"it has more than {self.most.document_bytes} bytes")
        self.document.append(part)
        return b""

    def end(self) -> bytes:
        """What callers get when nothing more comes."""
        shown = []
        try:
            shown += [self.event(part) for part in self.buffer.rest()]
            if not self.ended:
                shown.append(self.as_chunks() if self.document else self.done())
        except ValueError as error:
            self.broken = self.answers.unusable(error)
        except RequestFailed as error:
            self.broken = error
        return b"".join(shown)

    def done(self) -> bytes:
        """Raises ValueError where no choice, or not each of them, has a finish reason: then the stream was cut."""
        if not self.finished and not self.open:
            raise ValueError("it said nothing")
        if self.open:
            raise ValueError("it ended without `finish_reason`, so it was cut")
        self.ended = True
        return DONE

    def as_chunks(self) -> bytes:
        """A document as the events of a stream. Raises ValueError, RequestFailed."""
        whole = TierCall(self.answers, self.path, self.body, "message")
        data, _ = whole.read(END.join(self.document))
        if not data["choices"]:
            raise ValueError("`choices` is empty")
        head = {**{k: v for k, v in data.items() if k not in ("choices", "usage")}, "object": OBJECTS[self.path]}
        for choice in data["choices"]:
            choice["finish_reason"] = choice.get("finish_reason") or "stop"
            fit_choice(choice, choice["index"], self.path, "delta")
            self.finished.add(choice["index"])
        self.chars, self.usage, self.ended = whole.chars, whole.usage, True
        last = event({**head, "choices": [], "usage": whole.usage}) if whole.usage else b""
        return event({**head, "choices": data["choices"]}) + last + DONE
