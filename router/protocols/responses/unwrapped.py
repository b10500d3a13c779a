"""The text inside of a custom tool's arguments, `{"input": "..."}`, while their JSON is still coming."""

import json
import re
from collections.abc import Iterator

HEAD = '{"input":"'
HEADED = re.compile(r'\s*\{\s*"input"\s*:\s*"')
SPACE = re.compile(r"\s+")
PLAIN = re.compile(r'[^"\\]+')
PAIR = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
UNIT = re.compile(r"\\u([0-9a-fA-F]{4})")
UNFINISHED = re.compile(r"\\(?:u(?:[0-9a-fA-F]{0,3}|[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?))?")
"""an escape, or the first half of a surrogate pair, of which more may come"""
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
LOST = "\ufffd"  # for half a surrogate pair, which no text may hold


class Unwrapped:
    """Reads pieces. Arguments of another form are given as they are, at the end: a tier without a grammar may write anything."""

    def __init__(self) -> None:
        self.head: list[str] | None = []
        """what came before the text; None: the text has begun"""
        self.other = False
        """the arguments have not the form asked for"""
        self.over = False
        self.rest = ""
        """an escape that is not yet whole"""

    def fed(self, piece: str) -> str:
        """The text that this piece adds."""
        if self.head is None:
            return self.inside(piece)
        self.head.append(piece)
        if self.other:
            return ""
        began = "".join(self.head)
        if found := HEADED.match(began):
            self.head = None
            return self.inside(began[found.end() :])
        self.other = not may_become_head(began)
        return ""

    def ended(self) -> str:
        """The text that is left once all pieces have come."""
        if self.head is not None:
            return whole("".join(self.head))
        lost, self.rest = LOST if UNIT.match(self.rest) else "", ""
        return lost

    def inside(self, piece: str) -> str:
        return "".join(self.pieces(self.rest + piece)) if not self.over else ""

    def pieces(self, said: str) -> Iterator[str]:
        at, self.rest = 0, ""
        while at < len(said):
            if plain := PLAIN.match(said, at):
                yield plain.group()
                at = plain.end()
            elif said[at] == '"':
                self.over = True
                return
            elif UNFINISHED.fullmatch(said, at):
                self.rest = said[at:]
                return
            else:
                character, at = unescaped(said, at)
                yield character


def unescaped(said: str, at: int) -> tuple[str, int]:
    """The character that an escape at this place stands for, and the place after it. What is no escape stays as it is."""
    if pair := PAIR.match(said, at):
        high, low = (int(half, 16) for half in pair.groups())
        return chr(0x10000 + ((high & 0x3FF) << 10) + (low & 0x3FF)), pair.end()
    if unit := UNIT.match(said, at):
        code = int(unit.group(1), 16)
        return LOST if 0xD800 <= code < 0xE000 else chr(code), unit.end()
    letter = said[at + 1]
    return "\\u" if letter == "u" else ESCAPES.get(letter, letter), at + 2


def may_become_head(began: str) -> bool:
    return HEAD.startswith(SPACE.sub("", began))


def whole(arguments: str) -> str:
    """The text in arguments that are complete, or not even begun."""
    if may_become_head(arguments):
        return ""
    try:
        read = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    texts = list(read.values()) if isinstance(read, dict) else []
    found = read.get("input") if len(texts) > 1 else (texts or [None])[0]
    return found.encode("utf-8", "replace").decode() if isinstance(found, str) else arguments
