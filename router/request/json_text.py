"""Reads JSON that a stranger wrote, in a time that is known beforehand.

One call of the JSON library holds Python's lock from its begin to its end, in a thread too, so its length is how long all other
requests wait. It grows with the number of values more than with the bytes: 8 MB of text take 10 ms, 8 MB of `[],` a second.
"""

import gc
import json
from math import isinf
from typing import Any

SMALL = 32_768  # bytes; reading, checking and counting so many takes some 20 ms at most
MOST_WORK = 300_000  # of `work`; some 25 ms
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
        return parsed(text)
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
    escapes = raw.count(b"\\")
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"") if escapes else raw
    quotes = plain.count(b'"')
    if quotes > 2 * MOST_WORK:
        return quotes // 2
    outside = b"".join(plain.split(b'"')[::2])
    return escapes // 6 + outside.count(b",") + 3 * sum(map(outside.count, (b":", b"[", b"{")))
