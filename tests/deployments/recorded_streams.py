"""Streams of an upstream with all that occurs in them, and the reads in which they may come."""

import random

from raw_upstream import DONE, USAGE, event

TEXTS = [
    "é" * 3,
    'a "quote"',
    "a\nb",
    "\u2028",
    "😀",
    "{",
    "data: x",
    "\\",
    '"usage":{"a":1}',
    "[DONE]",
    "\x7f",
    "word",
    "\u0000",
]


def usual(rng: random.Random) -> bytes:
    return event(rng.choice(TEXTS) + " ")


def raw(rng: random.Random) -> bytes:
    """As servers write it that leave characters as they are."""
    return (
        usual(rng)
        .replace(rb"\u00e9", "é".encode())
        .replace(rb"\ud83d\ude00", "😀".encode())
        .replace(rb"\u2028", "\u2028".encode())
    )


def delta(**said) -> bytes:
    return event(choices=[{"index": 0, "delta": said, "finish_reason": None}])


def another(rng: random.Random) -> bytes:
    """An event that is not usual, or looks as if it were not."""
    logprobs = {"content": [{"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": []}]}
    return rng.choice(
        [
            b": comment\n\n",
            event(""),
            event("x", usage=None),
            event("x", created=2),
            event("x", service_tier=None, system_fingerprint="f"),
            usual(rng).replace(b"\n\n", b"\r\n\r\n"),
            usual(rng).replace(b"\n\n", b"\r\r"),
            usual(rng).replace(b'"model":', b'"model" : '),
            usual(rng).replace(b'"model":', b'"model": '),
            usual(rng).replace(b"data: ", b"data:"),
            usual(rng).replace(b'"}', b'\\ud83d"}'),
            b"\n" + usual(rng),
            delta(reasoning="hm"),
            delta(content="x", role="assistant"),
            delta(content="x", reasoning_content="y"),
            delta(refusal="no"),
            delta(tool_calls=[{"index": 0, "function": {"arguments": "{"}}]),
            event(choices=[{"index": 0, "delta": {"content": "x"}, "logprobs": logprobs, "finish_reason": None}]),
            event(choices=[{"index": 1, "delta": {"content": "second"}, "finish_reason": "stop"}]),
            event(choices=[{"delta": {"content": "no index"}}]),
            event("x", a={"model": "theirs"}),
            event("x", text="x"),
            event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}),
            event("x", usage={"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}),
            b"event: message\n" + usual(rng),
            b'data: {"choices":[{"index":0,\ndata: "delta":{"content":"two lines"}}]}\n\n',
        ]
    )


def ends(rng: random.Random) -> list[bytes]:
    stop = event(finish="stop")
    return rng.choice(
        [
            [stop, USAGE, DONE],
            [stop, USAGE, DONE],
            [event("last", finish="length"), USAGE, DONE],
            [stop, USAGE, DONE, event("late"), event("later")],
            [stop, event("late"), event("later"), DONE],
            [stop, DONE],
            [stop],
            [DONE],
            [],
            [b'data: {"error":{"message":"no"}}\n\n'],
            [event("x", error={"message": "no"})],
            [b"data: {broken\n\n", usual(rng)],
            [b"<html>a page</html>\n\n"],
            [b'data: {"choices":[{"index":0,"delta":{"content":"half'],
            [event("x").replace(b'"x"', b'"\xff"'), stop, DONE],
            [event("x").replace(b'"x"', b'"\t"'), stop, DONE],
            [event("x").replace(b'"x"', b'"\\x"'), stop, DONE],
            [event("x").replace(b"}]}", b"}]"), stop, DONE],
        ]
    )


def stream(rng: random.Random) -> list[bytes]:
    """The events of one answer, from its first on; sometimes it is cut, or no answer any more."""
    odd = rng.choice([0.0, 0.1, 0.5])
    body = [event("first")]
    for _ in range(rng.randint(3, 30)):
        body.append(another(rng) if rng.random() < odd else rng.choice([usual, raw])(rng))
    return [*body, *ends(rng)]


def grouped(events: list[bytes], rng: random.Random, most: int = 3) -> list[bytes]:
    """Whole events, one or several in a part."""
    found = []
    while events:
        size = rng.randint(1, most)
        found.append(b"".join(events[:size]))
        events = events[size:]
    return found


def cut(data: bytes, rng: random.Random, most: int) -> list[bytes]:
    """Parts of 1 to `most` bytes."""
    found = []
    while data:
        size = rng.randint(1, most)
        found.append(data[:size])
        data = data[size:]
    return found
