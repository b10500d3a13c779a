"""Reads and writes JSON of a stranger's, in calls whose time is known beforehand.

One call of the JSON library holds Python's lock from its begin to its end, in a thread too, so its length is how long all other
requests wait. It grows with the number of values more than with the bytes: 8 MB of text take 10 ms, 8 MB of `[],` a second.
"""

import gc
import json
from collections.abc import Iterator, Mapping
from math import isinf
from typing import Any

from router.request import long_texts

SMALL = 32_768  # bytes; reading, checking and counting so many takes some 20 ms at most
MOST_WORK = 300_000  # of `work`; some 25 ms
PIECE = 1_000_000  # characters or bytes that one call writes or looks through; some 5 ms
WEIGHTS = {b",": 1, b":": 3, b"[": 3, b"{": 3}  # of the signs in `work`
LONGEST_NUMBER = 500  # digits; a float has at most 309 before its point, and converting takes quadratic time


class TooMuchWork(ValueError):
    """The JSON has more values than can be read without making others wait."""

    def __init__(self) -> None:
        super().__init__(f"it has too many values: more than {MOST_WORK:,}, keys, lists and objects counted fourfold; send fewer")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if isinf(value):  # 1e999 would be sent on as Infinity, which is not JSON
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _whole(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"{text[:20]}... is too large a number")
    return int(text)


# Made once: each event of a stream is read by it.
DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite, parse_int=_whole)


def read(raw: bytes) -> Any:
    """The value. Raises ValueError, which TooMuchWork is, and RecursionError."""
    if len(raw) <= SMALL:
        return parsed(raw.decode("utf-8-sig"))
    if work(raw) > MOST_WORK:
        raise TooMuchWork
    text = raw.decode("utf-8-sig")
    gc.disable()  # its searches through the new values take longer than reading them, within the same call
    try:
        return long_texts.read(text, parsed) if len(text) > long_texts.LONG else parsed(text)
    finally:
        gc.enable()


def read_all(raw: bytes) -> Any:
    """The same, however much there is to read: for what was asked for, such as log-probabilities of a long answer."""
    return parsed(raw.decode("utf-8-sig"))


def parsed(text: str) -> Any:
    """The value of a text whose length is bounded. Raises ValueError, also for a number that no float holds; RecursionError."""
    return DECODER.decode(text)


def work(raw: bytes) -> int:
    """How much there is to read: values, keys, lists and objects fourfold, and six escapes as one value.

    It goes by the signs outside of texts: text may hold as many commas and brackets as it likes.
    """
    escapes = quotes = found = 0
    for piece in pieces(raw):
        if b"\\" in piece:
            escapes += piece.count(b"\\")
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = piece.split(b'"', 2 * MOST_WORK)
        outside = b"".join(parts[quotes % 2 :: 2])
        quotes += len(parts) - 1
        if quotes >= 2 * MOST_WORK:
            return quotes
        for sign, weight in WEIGHTS.items():
            found += weight * outside.count(sign)
    return escapes // 6 + found


def pieces(raw: bytes) -> Iterator[bytes]:
    """The bytes in pieces of about PIECE, none of which ends between a backslash and what it escapes."""
    at = 0
    while at < len(raw):
        piece = raw[at : at + PIECE]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2 and len(piece) == PIECE:
            piece = piece[:-1]
        yield piece
        at += len(piece)


def has(raw: bytes, mark: bytes) -> bool:
    """Whether `mark` is in there, looked for in short calls."""
    return any(raw.find(mark, at, at + PIECE + len(mark)) >= 0 for at in range(0, len(raw), PIECE))


# -- writing ----------------------------------------------------------------------------------------------------------------


def written(value: Any, *, ascii_only: bool = True, compact: bool = False) -> str:
    """What `json.dumps` gives, by many short calls: one call would hold Python's lock for 0.15 s over 32 MB.

    ascii_only, compact: its `ensure_ascii`, and its shortest separators.
    """
    separators = (",", ":") if compact else (", ", ": ")
    return "".join(Writer(json.JSONEncoder(ensure_ascii=ascii_only, separators=separators)).parts(value))


class Writer:
    """Writes a value in parts of about PIECE characters."""

    def __init__(self, encoder: json.JSONEncoder) -> None:
        self.encode, self.comma, self.colon = encoder.encode, encoder.item_separator, encoder.key_separator
        self.sizes: dict[int, int] = {}
        """of lists and objects, by id: each is measured once"""

    def parts(self, value: Any) -> Iterator[str]:
        if self.size(value) <= PIECE:
            yield self.encode(value)
        elif isinstance(value, str):
            yield from self.of_text(value)
        elif isinstance(value, Mapping):
            yield from self.of_object(value)
        elif isinstance(value, list | tuple):
            yield from self.of_list(value)
        else:
            yield self.encode(value)

    def size(self, value: Any) -> int:
        """About how many characters it takes."""
        if isinstance(value, str):
            return len(value)
        if not isinstance(value, Mapping | list | tuple):
            return 8
        if id(value) not in self.sizes:
            inside = (*value, *value.values()) if isinstance(value, Mapping) else value
            self.sizes[id(value)] = sum(map(self.size, inside)) + 2 * len(inside)
        return self.sizes[id(value)]

    def of_text(self, text: str) -> Iterator[str]:
        """Each character is escaped by itself, so a text may be cut anywhere."""
        yield '"'
        yield from (self.encode(text[at : at + PIECE])[1:-1] for at in range(0, len(text), PIECE))
        yield '"'

    def of_object(self, value: Mapping[str, Any]) -> Iterator[str]:
        before = "{"
        for name, part in value.items():
            yield before
            yield from self.parts(name)
            yield self.colon
            yield from self.parts(part)
            before = self.comma
        yield "}"

    def of_list(self, value: "list[Any] | tuple[Any, ...]") -> Iterator[str]:
        """Small items that follow each other are written by one call."""
        before, group, size = "[", list[Any](), 0
        for part in value:
            if group and size + self.size(part) > PIECE:
                yield before
                yield self.of_group(group)
                before, group, size = self.comma, [], 0
            if self.size(part) > PIECE:
                yield before
                yield from self.parts(part)
                before = self.comma
            else:
                group.append(part)
                size += self.size(part) + 2
        if group:
            yield before
            yield self.of_group(group)
        yield "]"

    def of_group(self, group: list[Any]) -> str:
        return self.encode(group)[1:-1]


def half_character(value: Any) -> str:
    """A lone surrogate in its texts, which UTF-8 cannot write, as an escape; empty: there is none. In short calls."""
    level = [value]
    while level:
        part = level.pop()
        if isinstance(part, Mapping):
            level += (*part, *part.values())
        elif isinstance(part, list | tuple):
            level += part
        elif isinstance(part, str) and (found := half_in(part)):
            return found
    return ""


def half_in(text: str) -> str:
    for at in range(0, len(text), PIECE):
        try:
            text[at : at + PIECE].encode()
        except UnicodeEncodeError as error:
            return ascii(error.object[error.start])
    return ""
