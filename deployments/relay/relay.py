"""Passes the usual events of a stream from the upstream's socket straight to the client's.

An event is usual if it equals one that went the long way, and came out of it unchanged, in all but its text: then everything that
was checked of that one holds for it too. What ends, errs, reports usage, calls a tool or differs in any other way goes the long
way again, where it is checked, metered and written down; so do all events while the client does not read.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

END = b"\n\n"
MOST = 65_536  # bytes of a read that is relayed
SAID = {True: "content", False: "text"}
"""name of the text that is passed on, whether in a chat or not; all else that is generated has a meaning beside its text"""
# Valid JSON between two quotes, without escaped surrogates, which the long way looks at.
PLAIN = re.compile(
    rb'[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u(?:[0-9abcefABCEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}))[^"\\\x00-\x1f]*)*'
)
SIMPLE = re.compile(rb'[^"\\\x00-\x1f\x80-\xff]*')
"""ASCII without escapes: each byte is a character"""
TELLS = re.compile(rb'"usage"\s*:\s*\{|"choices"\s*:\s*\[\s*\]|\[DONE\]')
"""the end or the usage is in an event, or a text has [DONE]: else a text cannot look like this, as its quotes are escaped"""


class Call(Protocol):
    """The tier's stream as it is read the long way: what it has said, and how much it may."""

    size: int
    """bytes"""
    chars: int
    most: Any


class Relay:
    """Of one call. pattern: finds whatever is generated, as `Received` does. pieces: where it keeps that, escaped as JSON."""

    __slots__ = ("call", "head", "heard", "offered", "pattern", "pieces", "relayed", "tail", "write")

    def __init__(self, pattern: "re.Pattern[bytes]", pieces: list[bytes]) -> None:
        self.pattern, self.pieces = pattern, pieces
        self.offered = False
        """somebody calls `take` with what comes in, so that it pays to learn"""
        self.write: Callable[[bytes], bool] | None = None
        """the client's end; None: something before these events is still on its way"""
        self.call: Call | None = None
        """None: nothing goes the short way, not yet or not any more"""
        self.heard: Callable[[], None] = lambda: None
        """to be called when the tier has said something"""
        self.head = self.tail = b""
        """what usual events have before and after their text; empty: not known"""
        self.relayed = 0
        """events that went the short way"""

    def follow(self, call: Call, heard: Callable[[], None]) -> None:
        """From now on events are those of this call, whose first has gone the long way."""
        self.call, self.heard = call, heard

    def learn(self, event: bytes, read: Mapping[str, Any]) -> None:
        """Take an event as usual that was not changed. read: the same, of which we know that it is as it should be."""
        self.head = b""
        if not self.offered:
            return
        found = [match for match in self.pattern.finditer(event) if match[1]]
        if len(found) != 1 or len(read["choices"]) != 1 or TELLS.search(event):
            return
        match, choice = found[0], read["choices"][0]
        name = SAID["delta" in choice]
        before = event[match.start() - 1 : match.start()]  # what may stand before a name, but not within a text
        if (
            match[0].startswith(b'"%b"' % name.encode())
            and before in (b"{", b",", b" ")
            and not choice.get("finish_reason")
            and choice.get("delta", choice).get(name) == text_of(match[1])
        ):
            self.head, self.tail = event[: match.start(1)], event[match.end(1) :]

    def stop(self) -> None:
        """Nothing more goes the short way."""
        self.call = None

    def take(
        self, part: bytes, changed: Callable[[bytes], bytes] | None = None, taken: Callable[[bytes], object] | None = None
    ) -> bool:
        """Send what has just come in on to the client, if it is whole events, all of them usual. False: nothing was done.

        Only while the call's reader waits for it and has nothing left to read. changed: what the long way makes of an event.
        taken: gets what came in, once it has been sent.
        """
        write, call, head, tail = self.write, self.call, self.head, self.tail
        if write is None or call is None or not head or len(part) > MOST or not part.endswith(END):
            return False
        came = part
        events = part[: -len(END)].split(END)
        if changed is not None:
            events = [changed(event) for event in events]
            part = END.join([*events, b""])
        texts, least, chars = [], len(head) + len(tail), 0
        for event in events:
            text = event[len(head) : len(event) - len(tail)]
            if len(event) <= least or not event.startswith(head) or not event.endswith(tail) or (size := length(text)) <= 0:
                return False
            texts.append(text)
            chars += size
        if call.size + len(part) > call.most.stream_bytes or not write(part):
            return False
        call.size += len(part)
        call.chars += chars
        self.pieces += texts
        self.relayed += len(texts)
        self.heard()
        if taken is not None:
            taken(came)
        return True


def length(escaped: bytes) -> int:
    """Characters of a text as it stands between two quotes of JSON; below 0: it cannot, or half a character may be in it."""
    if SIMPLE.fullmatch(escaped):
        return len(escaped)
    text = text_of(escaped)
    return -1 if text is None else len(text)


def text_of(escaped: bytes) -> str | None:
    """The text; None: as above."""
    if not PLAIN.fullmatch(escaped):
        return None
    try:
        return str(json.loads(f'"{escaped.decode()}"'))
    except ValueError:
        return None
