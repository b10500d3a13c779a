"""Reads JSON with texts of many megabytes in short calls: such texts are cut out, read in pieces, and put in their places."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any

LONG = 2_000_000  # characters of a text that is read apart
PIECE = 1_000_000  # characters that one call reads
PAIR = 12  # characters of the longest escape, two halves of one character
Read = Callable[[str], Any]


def read(text: str, parsed: Read) -> Any:
    """The value. parsed: reads a text in one call. Raises what it raises."""
    mark, found = secrets.token_hex(16), dict[str, str]()
    outline, at = list[str](), 0
    for begin, end in long_texts(text):
        name = f"{mark}{len(found)}"
        found[name] = "".join(parsed(f'"{piece}"') for piece in pieces(text, begin + 1, end))
        outline += (text[at : begin + 1], name)
        at = end
    if not found:
        return parsed(text)
    return put_back(parsed("".join((*outline, text[at:]))), found)


def long_texts(text: str) -> Iterator[tuple[int, int]]:
    """The places of the quotes around each text that is longer than LONG. JSON's other texts are passed over."""
    begin = text.find('"')
    while begin >= 0:
        end = closing(text, begin)
        if end < 0:
            return
        if end - begin > LONG:
            yield begin, end
        begin = text.find('"', end + 1)


def closing(text: str, begin: int) -> int:
    """The place of the quote that ends the text which begins at `begin`; -1: there is none."""
    end = text.find('"', begin + 1)
    while end > 0 and text[end - 1] == "\\" and escaped(text, end):
        end = text.find('"', end + 1)
    return end


def escaped(text: str, place: int) -> bool:
    before = place
    while before and text[before - 1] == "\\":
        before -= 1
    return (place - before) % 2 == 1


def pieces(text: str, begin: int, end: int) -> Iterator[str]:
    """What stands between two places, in pieces of about PIECE; none ends where an escape could go on."""
    while begin < end:
        cut = min(begin + PIECE, end)
        while cut < end and "\\" in text[cut - PAIR : cut]:
            cut += 1
        yield text[begin:cut]
        begin = cut


def put_back(value: Any, found: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return found.get(value, value)
    if isinstance(value, dict):
        return {found.get(name, name): put_back(part, found) for name, part in value.items()}
    return [put_back(part, found) for part in value] if isinstance(value, list) else value
