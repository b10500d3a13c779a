"""Many streams at once, each begun anew when it has ended: `python -m benchmarks.stream_load URL KEY STREAMS SECONDS [MODEL]`

In a process of its own, with as little work for each token as Python allows. Prints one JSON line. A stream that has no token
yet when the time is up counts with the time that it has waited.
"""

import asyncio
import itertools
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

BODY = {
    "model": "auto",
    "messages": [{"role": "user", "content": "What is 23 plus 45?"}],
    "max_tokens": 64,
    "stream": True,
    "stream_options": {"include_usage": True},
}
CONTENT = b'"content":'
EMPTY = b'"content":""'
EMPTY_TOO = b'"content": ""'
END_S = 30.0  # for streams that are under way when the time is up


@dataclass(frozen=True)
class Streams:
    """What one run saw. Times in milliseconds."""

    streams: int
    tokens: int
    tokens_per_s: float
    first_p50: float
    first_p99: float
    gap_p50: float
    gap_p99: float
    begun: int
    ended: int
    failed: int
    """answers without a 200 or without their end"""


@dataclass
class Seen:
    """What all streams of a run saw."""

    until_s: float
    tokens: int = 0
    first_ms: list[float] = field(default_factory=list)
    gaps_ms: list[float] = field(default_factory=list)
    begun: int = 0
    ended: int = 0
    failed: int = 0


class Stream(asyncio.Protocol):
    """One connection, which asks again after each answer until the time is up. request: the bytes of one."""

    transport: asyncio.Transport

    def __init__(self, request: bytes, seen: Seen) -> None:
        self.request, self.seen = request, seen
        self.over = asyncio.get_running_loop().create_future()
        self.asked_s = self.last_s = 0.0
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self.ask()

    def ask(self) -> None:
        self.asked_s, self.last_s, self.tail = time.perf_counter(), 0.0, b""
        self.seen.begun += 1
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        now, seen = time.perf_counter(), self.seen
        if not self.tail and not data.startswith(b"HTTP/1.1 200"):
            return self.fail()
        count = data.count(CONTENT) - data.count(EMPTY) - data.count(EMPTY_TOO)
        if count > 0 and now <= seen.until_s:
            seen.tokens += count
            if self.last_s:
                seen.gaps_ms.append((now - self.last_s) * 1e3)
            else:
                seen.first_ms.append((now - self.asked_s) * 1e3)
            seen.gaps_ms.extend(itertools.repeat(0.0, count - 1))
        self.last_s = now if count > 0 else self.last_s
        self.tail = (self.tail + data)[-16:]
        if self.tail.endswith(b"0\r\n\r\n"):
            seen.ended += 1
            if now < seen.until_s:
                self.ask()
            else:
                self.finish()
        return None

    def fail(self) -> None:
        self.seen.failed += 1
        self.finish()

    def finish(self) -> None:
        if not self.over.done():
            self.over.set_result(None)
        self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.seen.failed += 1
            self.over.set_result(None)


def request_of(url: str, key: str, model: str) -> bytes:
    """The bytes of a chat's request. url: up to /v1."""
    place, body = urlsplit(url), json.dumps({**BODY, "model": model}).encode()
    head = f"POST {place.path}/chat/completions HTTP/1.1\r\nhost: {place.netloc}\r\nauthorization: Bearer {key}\r\n"
    return (head + f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n").encode() + body


async def loaded(url: str, key: str, streams: int, seconds: float, model: str) -> Streams:
    loop, place = asyncio.get_running_loop(), urlsplit(url)
    request, seen = request_of(url, key, model), Seen(time.perf_counter() + seconds)
    made = [loop.create_connection(lambda: Stream(request, seen), place.hostname, place.port) for _ in range(streams)]
    under_way = [protocol for _, protocol in await asyncio.gather(*made)]
    await asyncio.wait([stream.over for stream in under_way], timeout=max(0.0, seen.until_s - time.perf_counter()))
    silent = [(seen.until_s - stream.asked_s) * 1e3 for stream in under_way if not stream.last_s and not stream.over.done()]
    tokens = seen.tokens
    await asyncio.wait([stream.over for stream in under_way], timeout=END_S)
    firsts = seen.first_ms + [ms for ms in silent if ms > 0]
    return Streams(
        streams=streams,
        tokens=tokens,
        tokens_per_s=round(tokens / seconds, 1),
        first_p50=quantile(firsts, 50),
        first_p99=quantile(firsts, 99),
        gap_p50=quantile(seen.gaps_ms, 50),
        gap_p99=quantile(seen.gaps_ms, 99),
        begun=seen.begun,
        ended=seen.ended,
        failed=seen.failed + sum(not stream.over.done() for stream in under_way),
    )


def quantile(values: list[float], percent: int) -> float:
    """NaN of none."""
    if len(values) < 2:
        return round(values[0], 2) if values else float("nan")
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 2)


def main(url: str, key: str, streams: str, seconds: str, model: str = "auto") -> None:
    run: Any = asyncio.run
    try:
        import uvloop

        run = uvloop.run
    except ModuleNotFoundError:  # uvicorn brings it, except on Windows
        pass
    print(json.dumps(asdict(run(loaded(url, key, int(streams), float(seconds), model)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
