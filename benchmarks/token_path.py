"""Processor time of a token in the ingress, on the short way and on the long one. `python -m benchmarks.token_path`

The ingress runs under uvicorn without Ray, before one remote tier: a scripted upstream that writes one event a token, the next
when the client has read the last. Both ways run in turn, for several rounds, in processes of their own. Prints one JSON line a
round and way, and at last their medians.
"""

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click

from deployments.ports import free_port

WAYS = {"long": "off", "short": "on"}
"""name of a way -> what STEPDOWN_RELAY says"""
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
ASK = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
NAMED = re.compile(rb"stream (\d+)")
LENGTH = re.compile(rb"content-length:\s*(\d+)", re.I)
SAYS = b'"content"'


@cache
def chunk(text: str | None, finish: str | None = None, last: bool = False) -> bytes:
    """An event as vLLM writes it, in a chunk. last: the usage, [DONE] and the end."""
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "logprobs": None, "finish_reason": finish}
    shown: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "scripted"}
    shown["choices"] = [] if last else [choice]
    if last:
        shown["usage"] = {"prompt_tokens": 21, "completion_tokens": 64, "total_tokens": 85}
    event = b"data: " + json.dumps(shown, separators=(",", ":")).encode() + b"\n\n" + b"data: [DONE]\n\n" * last
    return b"%x\r\n%b\r\n" % (len(event), event) + b"0\r\n\r\n" * last


class Steps:
    """Both ends of all streams: the upstream writes a stream's next token when the client has read the last, so that each comes
    in a read of its own, however busy the machine is.
    """

    def __init__(self, streams: int, tokens: int) -> None:
        self.tokens = tokens
        self.read = [asyncio.Semaphore(0) for _ in range(streams)]
        """of each stream, the tokens that its client has read and its upstream has not heard of"""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer each request of a connection."""
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                said = LENGTH.search(await reader.readuntil(b"\r\n\r\n"))
                named = NAMED.search(await reader.readexactly(int(said[1]) if said else 0))
                read = self.read[int(named[1]) if named else 0]
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
                for number in range(self.tokens):
                    writer.write(chunk(f" word{number}"))
                    await read.acquire()
                writer.write(chunk(None, "stop"))
                writer.write(chunk(None, last=True))
        writer.close()

    async def ask(self, port: int, stream: int, answers: int) -> None:
        """Ask for one answer after the other."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps(
            {"model": "auto", "stream": True, "messages": [{"role": "user", "content": f"stream {stream}"}]}
        ).encode()
        for _ in range(answers):
            writer.write(ASK % (len(body), body))
            seen, tokens = b"", 0
            while not seen.endswith(b"0\r\n\r\n"):
                part = await reader.read(65_536)
                if not part:
                    raise SystemExit(f"a stream broke off after {seen!r}")
                found = (seen[-len(SAYS) + 1 :] + part).count(SAYS)
                for _ in range(found):
                    self.read[stream].release()
                tokens, seen = tokens + found, (seen + part)[-400:]
            if tokens != self.tokens:
                raise SystemExit(f"{tokens} of {self.tokens} tokens came, and at the end {seen!r}")
        writer.close()


async def load(ports: Mapping[str, int], upstream_port: int, pids: Mapping[str, int], many: "Many") -> dict[str, list[float]]:
    """Microseconds of the ingress's processor time a token, by way; the first round warms up and is left out."""
    steps, found = Steps(many.streams, many.tokens), dict[str, list[float]]((way, []) for way in ports)
    async with await asyncio.start_server(steps.answer, "127.0.0.1", upstream_port, backlog=1024):
        for number in range(many.rounds + 1):
            for way, port in ports.items():
                before = used_s(pids[way])
                await asyncio.gather(*(steps.ask(port, stream, many.answers) for stream in range(many.streams)))
                us = (used_s(pids[way]) - before) / (many.streams * many.answers * many.tokens) * 1e6
                print(
                    json.dumps({"round": number, "way": way, "streams": many.streams, "us_per_token": round(us, 1)}), flush=True
                )
                if number:
                    found[way].append(us)
    return found


@dataclass(frozen=True)
class Many:
    """answers: of each stream, one after the other. tokens: of an answer."""

    streams: int
    answers: int
    tokens: int
    rounds: int


def ingress(port: int, upstream_port: int, folder: Path) -> None:
    """The endpoint with one remote tier, until it is stopped."""
    import uvicorn

    from deployments.app import TIERS
    from deployments.endpoint.accounts import Accounts
    from deployments.endpoint.ingress import Ingress
    from deployments.keys.admission import Keys
    from deployments.ledger.ledger import Ledger
    from deployments.relay.client_socket import remember
    from router.config import Config
    from router.config import Ledger as Settings
    from router.engine import Router

    price = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
    url = f"http://127.0.0.1:{upstream_port}/v1"
    tier = {"name": "large", "engine": "remote", "context": 100_000, "price": price, "url": url, "model": "scripted"}
    config = Config.model_validate({"tiers": [tier]})
    tiers = {t.name: TIERS["remote"].make(t, None, 60.0, None) for t in config.tiers}
    ledger = Ledger(Settings(url=f"sqlite:///{folder / 'ledger.db'}"))
    accounts = Accounts(Keys(None, insecure=True), ledger, tiers={t.name: t for t in config.tiers})
    app = Ingress(Router(config, None, {"large": len}), tiers, accounts, 32_000_000).app()

    async def remembered(scope: Any, receive: Any, send: Any) -> None:
        remember(send)
        await app(scope, receive, send)

    uvicorn.run(remembered, port=port, log_level="error", backlog=2048)


def used_s(pid: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def started(stack: ExitStack, port: int, *given: object, **variables: str) -> int:
    """A process of this module, which listens on the port. Returns its id."""
    command = [sys.executable, "-m", "benchmarks.token_path", *map(str, given)]
    process = stack.enter_context(subprocess.Popen(command, env={**os.environ, **variables}))
    stack.callback(process.terminate)
    for _ in range(3_000):
        with suppress(OSError):
            asyncio.run(asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 5))
            return process.pid
        time.sleep(0.2)
    raise SystemExit(f"nothing listens on {port}")


@click.group(invoke_without_command=True, help=__doc__)
@click.pass_context
@click.option("--streams", default=64)
@click.option("--answers", default=4, help="of each stream")
@click.option("--tokens", default=64, help="of an answer")
@click.option("--rounds", default=3)
def main(context: click.Context, **many: int) -> None:
    if context.invoked_subcommand:
        return
    with ExitStack() as stack:
        upstream, ports = free_port(), {way: free_port() for way in WAYS}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        state = {way: {"STEPDOWN_STATE_DIR": str(folder / way), "STEPDOWN_RELAY": said} for way, said in WAYS.items()}
        pids = {way: started(stack, port, "ingress", port, upstream, folder / way, **state[way]) for way, port in ports.items()}
        found = asyncio.run(load(ports, upstream, pids, Many(**many)))
    print(json.dumps({"streams": many["streams"], **{way: round(statistics.median(us), 1) for way, us in found.items()}}))


@main.command("ingress", hidden=True)
@click.argument("port", type=int)
@click.argument("upstream_port", type=int)
@click.argument("folder", type=click.Path(path_type=Path))
def run_ingress(port: int, upstream_port: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ingress(port, upstream_port, folder)


if __name__ == "__main__":
    main()
