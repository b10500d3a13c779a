"""An OpenAI-compatible upstream that streams every answer at one pace. `python -m benchmarks.stream_upstream PORT [TOKENS PER_S]`

As vLLM it sends a chunk of HTTP for each event: the role with the first token, a piece of text for each further one, the finish,
the usage where it is asked for, and [DONE]. Requests without `stream` get a whole answer at once. It reads no more of a request
than it must, so that measurements in front of it do not wait for it.
"""

import asyncio
import json
import re
import sys
from contextlib import suppress
from typing import Any, cast

from benchmarks.upstream import ANSWER, LENGTH

STREAMED = re.compile(rb'"stream"\s*:\s*true')
WANTS_USAGE = re.compile(rb'"include_usage"\s*:\s*true')
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
FRAME = {"id": "chatcmpl-fixed", "object": "chat.completion.chunk", "created": 1700000000, "model": "scripted"}
HEALTHY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


def chunk(raw: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(raw), raw)


def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
    return chunk(b"data: " + json.dumps({**FRAME, "choices": choices, **more}).encode() + b"\n\n")


def said(delta: dict[str, str], finish: str | None = None) -> bytes:
    return event([{"index": 0, "delta": delta, "finish_reason": finish}])


FIRST = said({"role": "assistant", "content": "It "})
TOKEN = said({"content": "is "})
FINISH = said({}, "stop")
END = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def usage(tokens: int) -> bytes:
    return event([], usage={"prompt_tokens": 21, "completion_tokens": tokens, "total_tokens": 21 + tokens})


class Upstream(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport
    tokens = 64
    per_s = 50.0

    def __init__(self) -> None:
        self.held = b""
        self.loop = asyncio.get_running_loop()
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class

    def connection_lost(self, error: Exception | None) -> None:
        if self.timer:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        self.held += data
        while (end := self.held.find(b"\r\n\r\n")) >= 0:
            length = LENGTH.search(self.held, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self.held) < whole:
                return
            head, body, self.held = self.held[:end], self.held[end + 4 : whole], self.held[whole:]
            self.answer(head, body)

    def answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET"):
            self.transport.write(HEALTHY)
        elif not STREAMED.search(body):
            self.transport.write(ANSWER)
        else:
            last = FINISH + (usage(self.tokens) if WANTS_USAGE.search(body) else b"") + END
            self.transport.write(HEAD + FIRST)
            self.timer = self.loop.call_later(1 / self.per_s, self.go_on, self.loop.time(), 1, last)

    def go_on(self, began_s: float, sent: int, last: bytes) -> None:
        """Send the next token, in time however late this one is."""
        if self.transport.is_closing():
            return
        if sent == self.tokens:
            self.transport.write(last)
            return
        self.transport.write(TOKEN)
        self.timer = self.loop.call_at(began_s + (sent + 1) / self.per_s, self.go_on, began_s, sent + 1, last)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=4096)
    print(f"listening on {port}", flush=True)
    await server.serve_forever()


def main(port: str, tokens: str = "64", per_s: str = "50") -> None:
    Upstream.tokens, Upstream.per_s = int(tokens), float(per_s)
    with suppress(KeyboardInterrupt):
        try:
            import uvloop
        except ModuleNotFoundError:  # uvicorn brings it, except on Windows
            asyncio.run(serve(int(port)))
        else:
            uvloop.run(serve(int(port)))


if __name__ == "__main__":
    main(*sys.argv[1:])
