"""How a streamed answer goes on at another replica when its own is lost: which may, what is kept of it, what is asked then.

The second replica reads the same request, and takes the tokens that came as the first of its own answer, event by event. So
text, stop strings, characters cut between tokens and parsers of thoughts and tools come to the state that the lost replica had.
The events that it makes on the way are those that were sent already: their bytes are compared, and none of them goes out again.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple
from zlib import crc32

from router.errors import SeamDiffers
from router.request.body import answer_count, wants_json
from router.types import Path

KEPT = "kept:"
"""before the path of a call whose replica tells each event's tokens"""
AGAIN = "again:"
"""before the path of the second call, whose body is a `Seam`"""
MOST_BYTES = 1_000_000  # of kept ids, some 150,000 tokens; a longer answer does not go on
# Text of an answer cannot look like these: its quotes are escaped.
IDS = re.compile(rb'"token_ids":\[([0-9,]*)\]')
PROMPT_IDS = re.compile(r'"prompt_token_ids":\[[0-9,]*\]')
BEFORE = b'"token_ids":['
NO_IDS = b'"token_ids":null'
EMPTY = b'"delta":{},"logprobs":null,"finish_reason":null'
"""in an event that vLLM sends only for its tokens"""
CALL = b'"tool_calls":[{'
THINKS = b'"reasoning":"'
LAST = b'"choices":[]'
"""in the event with the usage"""
END = b"\n\n"
HEAD = re.compile(rb'"id":("[^"]*").{0,60}?"created":([0-9]+)', re.DOTALL)

ASKS = (
    ("presence_penalty", "it counts the words of one call"),
    ("frequency_penalty", "it counts the words of one call"),
    ("logprobs", "those of the tokens that came are gone"),
    ("top_logprobs", "those of the tokens that came are gone"),
    ("prompt_logprobs", "those of the tokens that came are gone"),
    ("logprob_token_ids", "those of the tokens that came are gone"),
    ("structured_outputs", "a grammar begins with a call"),
    ("guided_json", "a grammar begins with a call"),
    ("guided_regex", "a grammar begins with a call"),
    ("guided_choice", "a grammar begins with a call"),
    ("guided_grammar", "a grammar begins with a call"),
    ("bad_words", "one may lie across the seam"),
    ("repetition_detection", "it counts the tokens of one call"),
    ("use_beam_search", "several answers are under way"),
    ("echo", "the prompt is part of the answer"),
    ("prompt_embeds", "the prompt is no tokens"),
    ("kv_transfer_params", "they belong to one call"),
    ("vllm_xargs", "what they do is not known"),
)
"""fields of a body that forbid it where they are set, and why"""


def unfit(path: Path, body: Mapping[str, Any]) -> str:
    """Why an answer to this request could not go on elsewhere; empty: it could."""
    choice, form = body.get("tool_choice"), body.get("response_format") or {}
    reasons = (
        (not body.get("stream"), "it is not streamed"),
        (answer_count(body) > 1, "several answers are asked for"),
        (wants_json(body) or form.get("type", "text") != "text", "a grammar begins with a call"),
        (choice == "required" or isinstance(choice, Mapping), "a grammar begins with a call"),
        (body.get("include_reasoning") is False, "the tokens of a hidden thought are not told"),
        (path == "completions" and body.get("logprobs") is not None, "those of the tokens that came are gone"),
    )
    found = next((why for held, why in reasons if held), "")
    return found or next((f"{name}: {why}" for name, why in ASKS if body.get(name)), "")


class End(NamedTuple):
    """How an answer ended of which only the usage is missing."""

    reason: str
    """OpenAI's finish reason"""
    stop: int | str | None = None
    """the token or the stop string that ended it, as vLLM tells it"""


class Sent:
    """What a client was sent of one stream, and the tokens behind it.

    shows_ids: the client asked for token ids itself. budget: its thought has an own limit of tokens.
    """

    def __init__(self, shows_ids: bool = False, budget: bool = False) -> None:
        self.shows_ids, self.budget = shows_ids, budget
        self.ids = bytearray()
        """of each event `[1,2],`"""
        self.events = self.tokens = 0
        """events with tokens, and their tokens"""
        self.size = self.checksum = 0
        """of what was sent"""
        self.first = self.latest = b""
        """the first bytes that came, and the latest with tokens"""
        self.calls = self.counted = False
        """a tool call has begun; the usage was sent"""

    def take(self, item: bytes) -> bytes:
        """Whole events as the client gets them: without ids, and without those that hold nothing else."""
        at = item.find(BEFORE)
        if at >= 0:
            self.latest, end = item, item.find(b"]", at)
            alone = item.find(BEFORE, end) < 0  # the usual case: two searches more are quicker than an expression
            self.keep([item[at + len(BEFORE) : end]] if alone else IDS.findall(item))
            if not self.shows_ids:
                item = item[:at] + NO_IDS + item[end + 1 :] if alone else IDS.sub(NO_IDS, item)
                if EMPTY in item:
                    item = without_empty(item)
        if not self.first:
            self.first = item[:300]
        if CALL in item:
            self.calls = True
        if LAST in item:
            self.counted = True
        self.size += len(item)
        self.checksum = crc32(item, self.checksum)
        return item

    def shown(self, event: bytes) -> bytes:
        """An event with text as the client gets it."""
        return event if self.shows_ids else IDS.sub(NO_IDS, event)

    def keep(self, found: list[bytes]) -> None:
        for ids in found:
            self.tokens += ids.count(b",") + 1 if ids else 0
            if len(self.ids) <= MOST_BYTES:
                self.ids += b"[" + ids + b"],"
        self.events += len(found)

    def stuck(self) -> str:
        """Why it cannot go on from here; empty: it can."""
        reasons = (
            (not self.tokens, "no token came"),
            (self.calls, "a tool call has begun"),
            (len(self.ids) > MOST_BYTES, "its answer is too long"),
            (self.budget and THINKS in self.latest, "a thought with a limit of its own has not ended"),
            (not HEAD.search(self.first), "its events have no id"),
        )
        return next((why for held, why in reasons if held), "")

    def end(self) -> End | None:
        """How the answer ended; None: it did not."""
        event = [part for part in self.latest.split(END) if IDS.search(part)][-1]
        choice = json.loads(event.removeprefix(b"data: "))["choices"][0]
        return End(choice["finish_reason"], choice.get("stop_reason")) if choice.get("finish_reason") else None


def without_empty(item: bytes) -> bytes:
    return b"".join(part + END for part in item.split(END) if part and EMPTY not in part)


@dataclass(frozen=True, slots=True)
class Seam:
    """Where an answer goes on: the body of the second call."""

    asked: Mapping[str, Any]
    """the body of the first"""
    said: list[list[int]]
    """the tokens of each event"""
    size: int
    """bytes of all events that were sent, and `checksum`, their CRC-32"""
    checksum: int
    id: str
    """of the answer, and `created`, its time in Unix seconds"""
    created: int
    shows_ids: bool = False
    end: tuple[str, int | str | None] | None = None
    """see `End`"""

    @classmethod
    def of(cls, asked: Mapping[str, Any], sent: Sent) -> "Seam":
        """sent: not stuck."""
        head = HEAD.search(sent.first)
        assert head
        said = json.loads(b"[" + sent.ids.rstrip(b",") + b"]")
        return cls(asked, said, sent.size, sent.checksum, json.loads(head[1]), int(head[2]), sent.shows_ids, sent.end())

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> "Seam":
        end = given.get("end")
        return cls(**{**given, "end": End(*end) if end else None})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def tokens(self) -> int:
        return sum(map(len, self.said))


class Rejoined:
    """Turns the events of the second call, which begin anew, into those that follow what was sent."""

    def __init__(self, seam: Seam) -> None:
        self.seam = seam
        self.sent = Sent(seam.shows_ids)
        self.names: tuple[tuple[str, str], ...] = ()
        """what stands in the events, and what takes its place"""
        self.joined = False

    def take(self, event: str) -> str:
        """One event; empty: it was sent already. Raises SeamDiffers where it would have to be but is another one."""
        if not self.names:
            self.learn(event)
        for own, first in self.names:
            event = event.replace(own, first)
        if self.joined:
            return event
        self.sent.take(event.encode())
        if self.sent.events == len(self.seam.said):
            if (self.sent.size, self.sent.checksum) != (self.seam.size, self.seam.checksum):
                raise SeamDiffers(self.seam.size, self.sent.size)
            self.joined = True
        return ""

    def learn(self, event: str) -> None:
        """The second call's own id and time."""
        head = HEAD.search(event.encode())
        if head is None:
            raise SeamDiffers(self.seam.size, 0)
        id, created = head[1].decode(), int(head[2])
        self.names = (
            (f'"id":{id}', f'"id":{json.dumps(self.seam.id)}'),
            (f'"created":{created}', f'"created":{self.seam.created}'),
        )


def without_prompt(event: str) -> str:
    """A first event without the ids of the prompt, which may be the most of it."""
    return PROMPT_IDS.sub('"prompt_token_ids":null', event)
