"""Ends the processes that one `stepdown serve` leaves behind.

vLLM's engines are children of a replica that Ray may kill before they notice, HAProxy outlives the process that manages it,
and a server that is killed leaves all of it behind, accelerators' memory included. So everything that Ray starts here inherits
an environment variable, and a watchdog process waits for the server's end (`python -m deployments.serve.process_cleanup`).
Without /proc nothing is done.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "STEPDOWN_RUN"


@dataclass(frozen=True)
class ServerProcesses:
    """The processes of one server. mark: their value of the variable. session: Ray's folder, into which its processes write;
    some of them hide their environment."""

    mark: str
    session: str

    def owns(self, pid: int) -> bool:
        with suppress(OSError):
            if f"{MARK}={self.mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return True
            return any(os.readlink(f"/proc/{pid}/fd/{output}").startswith(f"{self.session}/") for output in (1, 2))
        return False

    def alive(self) -> set[int]:
        """Those that run, without the process that asks."""
        return {pid for pid, _, _ in processes() if pid != os.getpid() and self.owns(pid)}

    def alive_after(self, wait_s: float) -> set[int]:
        """Those that still run after that time; it returns as soon as none is left."""
        until = time.monotonic() + wait_s
        while (pids := self.alive()) and time.monotonic() < until:
            time.sleep(0.1)
        return pids

    def end(self, wait_s: float = 5.0) -> set[int]:
        """Wait for them to end, then terminate, then kill. Returns those that did not end by themselves."""
        asked = set[int]()
        pids = self.alive_after(wait_s)
        for number in (signal.SIGTERM, signal.SIGKILL):
            asked |= pids
            for pid in pids:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
            pids = self.alive_after(wait_s)
        return asked

    def watchdog(self) -> "subprocess.Popen[bytes]":
        """Start a process that ends them when this one has ended, however it did. Ctrl-C does not reach its session."""
        environ = {name: value for name, value in os.environ.items() if name != MARK}
        return subprocess.Popen(
            [sys.executable, "-m", "deployments.serve.process_cleanup", self.mark, self.session],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environ,
            start_new_session=True,
        )


def processes() -> Iterator[tuple[int, int, int]]:
    """(pid, its parent, its group) of all that run."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent, group = file.read_text().rpartition(")")[2].split()[:3]
            if state not in "ZX":
                yield int(file.parent.name), int(parent), int(group)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()  # until the server, which holds the other end, has ended
    ServerProcesses(*sys.argv[1:]).end(wait_s=2.0)


if __name__ == "__main__":
    main()
