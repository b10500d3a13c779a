"""A provider that says what it likes, over real connections: generated answers, and the server that gives them."""

import asyncio
import json
import threading
from dataclasses import dataclass, field
from typing import Any

from fuzzing import ANY, HARD_TEXTS, NUMBERS, rarely
from hypothesis import strategies as st

WORDS = ("The", " answer", " is", " 5", ".")


@dataclass(frozen=True)
class Behaviour:
    """What one request is answered with."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    parts: tuple[bytes, ...] = ()
    """written one after the other, each in a packet of its own"""
    cut: bool = False
    """the connection ends before as many bytes as were promised"""


FIGURE = rarely(st.integers(0, 50), NUMBERS | ANY)
DETAILS = st.fixed_dictionaries({}, optional={"cached_tokens": FIGURE, "reasoning_tokens": FIGURE, "audio_tokens": FIGURE})
USAGE = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": FIGURE,
        "completion_tokens": FIGURE,
        "total_tokens": FIGURE,
        "input_tokens": FIGURE,
        "output_tokens": FIGURE,
        "prompt_cache_hit_tokens": FIGURE,
        "prompt_tokens_details": rarely(DETAILS),
        "completion_tokens_details": rarely(DETAILS),
    },
)
CONTENT = rarely(st.sampled_from(["5", "The answer is 5.", '{"a": 1}', "", None]), ANY | HARD_TEXTS)
LOGPROBS = st.fixed_dictionaries(
    {"content": rarely(st.lists(st.fixed_dictionaries({"token": CONTENT, "logprob": FIGURE}), max_size=2))}
)
CALLS = st.lists(
    rarely(
        st.fixed_dictionaries(
            {"id": st.just("c1"), "type": st.just("function")},
            optional={"index": FIGURE, "function": rarely(st.fixed_dictionaries({"name": CONTENT, "arguments": CONTENT}))},
        )
    ),
    max_size=2,
)
SPOKEN = st.fixed_dictionaries(
    {"content": CONTENT},
    optional={"role": rarely(st.just("assistant")), "tool_calls": rarely(CALLS), "reasoning": CONTENT, "refusal": CONTENT},
)
FINISH = rarely(st.sampled_from(["stop", "length", "tool_calls"]))
ERROR = st.fixed_dictionaries(
    {},
    optional={
        "message": rarely(HARD_TEXTS | st.just("the key sk-secret-of-the-operator is unknown")),
        "code": rarely(st.sampled_from([400, 401, 404, 429, 500, "context_length_exceeded", "insufficient_quota"])),
        "type": CONTENT,
    },
)
FAULTS = (
    st.fixed_dictionaries({"error": rarely(ERROR)})
    | st.fixed_dictionaries({"detail": CONTENT})
    | st.fixed_dictionaries({"object": st.just("error"), "message": CONTENT})
)


def choice(spoken: str) -> st.SearchStrategy[dict[str, Any]]:
    """spoken: `message` of a document, `delta` of a stream's chunk, `text` of a completion."""
    said = CONTENT if spoken == "text" else SPOKEN
    return st.fixed_dictionaries(
        {"index": rarely(st.just(0)), spoken: rarely(said), "finish_reason": FINISH}, optional={"logprobs": rarely(LOGPROBS)}
    )


def documents(spoken: str) -> st.SearchStrategy[Any]:
    """An answer as a provider might write it."""
    made = st.fixed_dictionaries(
        {
            "id": st.just("x"),
            "model": rarely(st.just("given")),
            "choices": rarely(st.lists(choice(spoken), min_size=1, max_size=2)),
        },
        optional={"usage": rarely(USAGE), "error": rarely(ERROR | st.none()), "object": CONTENT, "created": FIGURE},
    )
    return rarely(made, ANY | FAULTS)


JUNK = st.sampled_from(
    [
        b"",
        b"<html><title>502</title></html>",
        b"null",
        b"\xff\xfe{",
        "caf\xe9".encode("latin-1"),
        b"[" * 3_000,
        b"data: ",
        b"[DONE]",
        b"\0",
    ]
)


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


WHOLE = rarely((documents("message") | documents("text")).map(as_json), JUNK)
WORD = st.sampled_from(WORDS).map(lambda word: {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
LAST = st.just({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
ENDS = st.sampled_from([b"\n\n", b"\n\n", b"\n\n", b"\r\n\r\n", b"\r\r", b"\n", b""])
FIELDS = st.sampled_from(
    [b"data: ", b"data: ", b"data: ", b"data:", b"event: x\ndata: ", b": note\n\ndata: ", b"\xef\xbb\xbfdata: ", b"id: 1\n"]
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, ...]:
    """A stream's packets: words, an end, usage, [DONE], each of which may be odd or missing."""
    events = [as_json(word) for word in draw(st.lists(WORD, max_size=4))]
    odd = draw(st.lists(st.tuples(st.integers(0, 4), (documents("delta") | documents("text")).map(as_json) | JUNK), max_size=2))
    for at, event in odd:
        events.insert(at, event)
    events += [as_json(end) for end in draw(rarely(st.tuples(LAST), st.just(())))]
    usage = draw(st.none() | USAGE)
    events += [as_json({"choices": [], "usage": usage})] if usage is not None else []
    events += draw(rarely(st.just((b"[DONE]",)), st.just(())))
    raw = b"".join(draw(rarely(st.just(b"data: "), FIELDS)) + e + draw(rarely(st.just(b"\n\n"), ENDS)) for e in events)
    cuts = sorted(draw(st.lists(st.integers(0, len(raw)), max_size=3)))
    return tuple(raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True) if b > a)


STATUSES = st.sampled_from([200] * 8 + [204, 301, 400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 503, 529])
RETRY = st.sampled_from(
    [(), (), (("retry-after", "1"),), (("retry-after", "-5"),), (("retry-after", "1e99"),), (("retry-after", "soon"),)]
)
BEHAVIOURS = st.builds(
    Behaviour,
    STATUSES,
    RETRY,
    streams() | streams() | (WHOLE | FAULTS.map(as_json)).map(lambda raw: (raw,)),
    rarely(st.just(False), st.booleans()),
)


@dataclass
class Upstream:
    """A server in a thread. `says`: tier -> how its next requests are answered; the tier is the first part of the path."""

    says: dict[str, Behaviour] = field(default_factory=dict)
    port: int = 0
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def __enter__(self) -> "Upstream":
        ready = threading.Event()
        threading.Thread(target=self.run, args=[ready], daemon=True).start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)

    def run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self.answer, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self.loop.run_forever()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request a connection."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            said = self.says[head.split(b"/")[1].decode()]
            size = sum(map(len, said.parts)) + (10 if said.cut else 0)
            headers = [f"HTTP/1.1 {said.status} x", "connection: close", f"content-length: {size}", *map(": ".join, said.headers)]
            writer.write("\r\n".join([*headers, "", ""]).encode())
            for part in said.parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
