"""Processor time of a token in the ingress, on the short way and on the long one. `python -m benchmarks.token_path`

The ingress runs under uvicorn without Ray, before one remote tier: a scripted upstream that writes one event a token. Both ways
run in turn, for several rounds, in processes of their own. Prints one JSON line a round and way, and at last their medians.
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
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any

import click

from deployments.ports import free_port

WAYS = {"long": "off", "short": "on"}
"""name of a way -> what STEPDOWN_RELAY says"""
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
BODY = json.dumps({"model": "auto", "stream": True, "messages": [{"role": "user", "content": "Tell me a story."}]}).encode()
ASK = b"POST /%b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
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


async def scripted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tokens: int, gap_s: float) -> None:
    """Answer each request of a connection with that many tokens."""
    with suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            said = LENGTH.search(head)
            await reader.readexactly(int(said[1]) if said else 0)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for number in range(tokens):
                await asyncio.sleep(gap_s)
                writer.write(chunk(f" word{number}"))
            writer.write(chunk(None, "stop"))
            writer.write(chunk(None, last=True))
    writer.close()


async def upstream(port: int, tokens: int, gap_s: float) -> None:
    async with await asyncio.start_server(lambda r, w: scripted(r, w, tokens, gap_s), "127.0.0.1", port, backlog=1024) as server:
        await server.serve_forever()


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


async def read(port: int, until_s: float) -> int:
    """Ask for one stream after the other; returns the tokens that came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    tokens = 0
    while time.monotonic() < until_s:
        writer.write(ASK % (b"v1/chat/completions", len(BODY), BODY))
        seen = b""
        while not seen.endswith(b"0\r\n\r\n"):
            part = await reader.read(65_536)
            if not part:
                raise SystemExit(f"a stream broke off after {seen!r}")
            tokens += (seen[-len(SAYS) + 1 :] + part).count(SAYS)
            seen = (seen + part)[-400:]
    writer.close()
    return tokens


async def load(port: int, streams: int, seconds: float) -> int:
    until_s = time.monotonic() + seconds
    return sum(await asyncio.gather(*(read(port, until_s) for _ in range(streams))))


def used_s(pid: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def started(stack: ExitStack, port: int, *given: object, **variables: str) -> int:
    """A process of this module, which listens on the port. Returns its id."""
    command = [sys.executable, "-m", "benchmarks.token_path", *map(str, given)]
    process = stack.enter_context(subprocess.Popen(command, env={**os.environ, **variables}))
    stack.callback(process.terminate)
    for _ in range(600):
        with suppress(OSError):
            asyncio.run(asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 5))
            return process.pid
        time.sleep(0.2)
    raise SystemExit(f"nothing listens on {port}")


@click.group(invoke_without_command=True, help=__doc__)
@click.pass_context
@click.option("--streams", default=64)
@click.option("--tokens", default=64, help="of a stream")
@click.option("--per-s", default=50.0, help="tokens a second of a stream")
@click.option("--seconds", default=8.0, help="of a round")
@click.option("--rounds", default=3)
def main(context: click.Context, streams: int, tokens: int, per_s: float, seconds: float, rounds: int) -> None:
    if context.invoked_subcommand:
        return
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    with ExitStack() as stack:
        far, ports = free_port(), {way: free_port() for way in WAYS}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        started(stack, far, "upstream", far, tokens, 1 / per_s)
        state = {way: {"STEPDOWN_STATE_DIR": str(folder / way), "STEPDOWN_RELAY": said} for way, said in WAYS.items()}
        pids = {way: started(stack, port, "ingress", port, far, folder / way, **state[way]) for way, port in ports.items()}
        for _ in range(rounds + 1):  # the first warms up
            for way, pid in pids.items():
                before = used_s(pid)
                count = asyncio.run(load(ports[way], streams, seconds))
                found[way].append((used_s(pid) - before) / count * 1e6)
                print(json.dumps({"way": way, "streams": streams, "tokens": count, "us_per_token": round(found[way][-1], 1)}))
    print(json.dumps({"streams": streams, **{way: round(statistics.median(us[1:]), 1) for way, us in found.items()}}))


@main.command("upstream", hidden=True)
@click.argument("port", type=int)
@click.argument("tokens", type=int)
@click.argument("gap_s", type=float)
def run_upstream(port: int, tokens: int, gap_s: float) -> None:
    with suppress(KeyboardInterrupt):
        asyncio.run(upstream(port, tokens, gap_s))


@main.command("ingress", hidden=True)
@click.argument("port", type=int)
@click.argument("upstream_port", type=int)
@click.argument("folder", type=click.Path(path_type=Path))
def run_ingress(port: int, upstream_port: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ingress(port, upstream_port, folder)


if __name__ == "__main__":
    main()
