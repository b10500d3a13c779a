"""What a check of a client gets: a served ladder, a folder to work in, and a way to run the client there."""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.clients.environment import CLINE, TERMINAL, Environment
from tests.clients.ladder import Ladder, Seen

CLOSED = "http://127.0.0.1:9"  # nobody listens on the discard port: whatever leaves the machine fails at once
PROXIES = {name: CLOSED for name in ("HTTPS_PROXY", "https_proxy")}
LOCAL = {name: "127.0.0.1,localhost" for name in ("NO_PROXY", "no_proxy")}
TOLD = 600  # characters of what a client printed that a failed check shows


@dataclass(frozen=True)
class Ran:
    """A client's run."""

    status: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit {self.status}\n-- out: {self.out[-TOLD:]}\n-- err: {self.err[-TOLD:]}"


@dataclass
class Bench:
    ladder: Ladder
    environment: Environment
    folder: Path
    """empty; the client's project and home are in it"""

    @property
    def project(self) -> Path:
        return made(self.folder / "project")

    @property
    def home(self) -> Path:
        return made(self.folder / "home")

    def run(
        self, command: Sequence[str], variables: Mapping[str, str], stdin: str = "", limit_s: float = 90, closed: bool = True
    ) -> Ran:
        """Run a client in its project, with a home of its own. closed: without a way out of this machine."""
        env = self.variables(variables, closed)
        ran = subprocess.run(
            command, cwd=self.project, env=env, input=stdin, capture_output=True, text=True, timeout=limit_s, errors="replace"
        )
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def variables(self, own: Mapping[str, str], closed: bool = True) -> dict[str, str]:
        """The environment of a client's process."""
        kept = {name: os.environ[name] for name in ("LANG", "TERM", "LD_LIBRARY_PATH") if name in os.environ}
        home = {"HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home / ".config"), "CI": "1"}
        programs = [f"{self.environment.node(name)}/node_modules/.bin" for name in (TERMINAL, CLINE)]
        path = {"PATH": ":".join([*programs, os.environ["PATH"]])}
        return kept | home | path | (PROXIES | LOCAL if closed else {}) | dict(own)

    def seen(self) -> Seen:
        return self.ladder.seen()


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def one_row_a_call(seen: Seen, path: str, count: int) -> None:
    """The client sent so many requests, each answered by one call with one row in the ledger."""
    found = len(seen.posts(path)), len(seen.traces), len(seen.calls), len(seen.all_bodies)
    assert found == (count,) * 4, f"requests, traces, calls, bodies at the tiers: {found}, expected {count} of each"
    assert {row["status"] for row in seen.traces} == {200}, [row["error"] for row in seen.traces]


@dataclass(frozen=True)
class Check:
    """number: of the acceptance list."""

    client: str
    number: int
    name: str
    run: Callable[[Bench], None]
    window: int | None = None
    """tokens of every tier's window on the ladder; None: the usual ones"""
    keeps: bool = False
    """the ladder keeps responses, so that they can be continued"""
