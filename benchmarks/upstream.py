"""An OpenAI-compatible upstream that always gives the same answer, as fast as Python can. `python -m benchmarks.upstream PORT`

It reads a request only to find its end, so that measurements in front of it do not wait for it.
"""

import asyncio
import json
import re
import sys
from contextlib import suppress
from typing import cast

LENGTH = re.compile(rb"content-length:\s*(\d+)", re.I)
DOCUMENT = {
    "id": "chatcmpl-fixed",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "scripted",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Forty-two."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 21, "completion_tokens": 4, "total_tokens": 25},
}
BODY = json.dumps(DOCUMENT).encode()
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


class Upstream(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        self.held += data
        while (end := self.held.find(b"\r\n\r\n")) >= 0:
            said = LENGTH.search(self.held, 0, end)
            whole = end + 4 + (int(said[1]) if said else 0)
            if len(self.held) < whole:
                return
            self.held = self.held[whole:]
            self.transport.write(ANSWER)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=1024)
    print(f"listening on {port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        try:
            import uvloop
        except ModuleNotFoundError:  # uvicorn brings it, except on Windows
            asyncio.run(serve(int(sys.argv[1])))
        else:
            uvloop.run(serve(int(sys.argv[1])))
