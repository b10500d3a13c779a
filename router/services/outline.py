"""Finds the fields of a JSON object in its bytes, without making values of them: an answer may hold millions of numbers.

What lies between brackets is skipped, not checked, so this says nothing about whether it is JSON.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SPACE = re.compile(rb"[ \t\r\n]*")
SCALAR = re.compile(rb"[^,\]}\s]+")
MARK = re.compile(rb'["\[\]{}]')
NUMBERS = re.compile(rb"[-+.,eE0-9 \t\r\n]*")
"""skipped at once: the search for the next mark takes several times as long"""
BACKSLASH = 0x5C
MOST_BRACKETS = 2_000_000  # a second's work; vectors and documents have far fewer


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the outermost object. Of a name that is given twice there are two."""

    name: str
    start: int
    """of its value, in bytes"""
    end: int
    parts: int = 0
    """objects and lists directly within its value, where that is an object or a list"""

    def text(self, raw: bytes) -> bytes:
        """The value's bytes."""
        return raw[self.start : self.end]

    def value(self, raw: bytes) -> Any:
        """Raises ValueError where the value is not JSON."""
        return json.loads(self.text(raw))


def fields(raw: bytes) -> list[Field]:
    """The fields of the object that `raw` is. Raises ValueError for anything else."""
    if raw.count(b"[") + raw.count(b"{") > MOST_BRACKETS:
        raise ValueError(f"it has more than {MOST_BRACKETS:,} lists and objects")
    return list(walked(raw))


def walked(raw: bytes) -> Iterator[Field]:
    at = after(raw, 0, b"{")
    if raw[at : at + 1] == b"}":
        return ended(raw, at)
    while True:
        if raw[at : at + 1] != b'"':
            raise ValueError(f"a name is missing at byte {at}")
        named = quoted(raw, at)
        start = after(raw, named, b":")
        end, parts = skipped(raw, start)
        yield Field(json.loads(raw[at:named]), start, end, parts)
        at = spaced(raw, end)
        if raw[at : at + 1] == b"}":
            return ended(raw, at)
        at = after(raw, at, b",")


def spaced(raw: bytes, at: int) -> int:
    """The next place without white space."""
    found = SPACE.match(raw, at)
    return found.end() if found else at


def after(raw: bytes, at: int, sign: bytes) -> int:
    """The place after this sign and the white space around it. Raises ValueError."""
    at = spaced(raw, at)
    if raw[at : at + 1] != sign:
        raise ValueError(f"{sign.decode()} is missing at byte {at}")
    return spaced(raw, at + 1)


def ended(raw: bytes, at: int) -> None:
    """Raises ValueError where more than white space follows the object's end."""
    if spaced(raw, at + 1) != len(raw):
        raise ValueError(f"something follows the object at byte {at + 1}")


def skipped(raw: bytes, at: int) -> tuple[int, int]:
    """Where the value ends that begins here, and its parts. Raises ValueError."""
    if raw[at : at + 1] in (b"{", b"["):
        return bracketed(raw, at)
    if raw[at : at + 1] == b'"':
        return quoted(raw, at), 0
    plain = SCALAR.match(raw, at)
    if plain is None:
        raise ValueError(f"a value is missing at byte {at}")
    return plain.end(), 0


def bracketed(raw: bytes, at: int) -> tuple[int, int]:
    """The same of an object or a list."""
    depth = parts = 0
    while mark := MARK.search(raw, at):
        sign, at = mark[0], mark.end()
        if sign == b'"':
            at = quoted(raw, mark.start())
        elif sign in b"[{":
            parts += depth == 1
            depth += 1
            if numbers := NUMBERS.match(raw, at):
                at = numbers.end()
        else:
            depth -= 1
        if depth == 0:
            return at, parts
    raise ValueError("a bracket is not closed")


def quoted(raw: bytes, at: int) -> int:
    """Where the string ends that begins here. Raises ValueError."""
    end = raw.find(b'"', at + 1)
    while end >= 0:
        before = end
        while raw[before - 1] == BACKSLASH:
            before -= 1
        if (end - before) % 2 == 0:
            return end + 1
        end = raw.find(b'"', end + 1)
    raise ValueError("a text does not end")


def with_value(raw: bytes, name: str, value: Any, found: list[Field]) -> bytes:
    """The same bytes with another value of this field, wherever it is given. found: their `fields`."""
    new = json.dumps(value).encode()
    parts: list[bytes] = []
    at = 0
    for field in (field for field in found if field.name == name):
        parts += raw[at : field.start], new
        at = field.end
    return b"".join([*parts, raw[at:]])
