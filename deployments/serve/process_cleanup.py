"""The processes of one `stepdown serve`, and their end where it cannot see to that itself.

vLLM's engines are children of a replica that Ray may kill before they notice, HAProxy outlives who minds it, and a server that
is killed leaves all of it behind, accelerators' memory included. So all that Ray starts here inherits a variable, and another
process, the warden, waits for the server's end (`python -m deployments.serve.process_cleanup`). Nothing is done where
there is no /proc.
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
class Run:
    """mark: the variable's value. session: Ray's folder, where its processes write; some of them hide their environment."""

    mark: str
    session: str

    def owns(self, pid: int) -> bool:
        with suppress(OSError):
            if f"{MARK}={self.mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return True
            return any(os.readlink(f"/proc/{pid}/fd/{output}").startswith(f"{self.session}/") for output in (1, 2))
        return False

    def left(self) -> set[int]:
        """Those that live, less the one that asks."""
        return {pid for pid, _, _ in processes() if pid != os.getpid() and self.owns(pid)}


def processes() -> Iterator[tuple[int, int, int]]:
    """(pid, its parent, its group) of all that live."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent, group = file.read_text().rpartition(")")[2].split()[:3]
            if state not in "ZX":
                yield int(file.parent.name), int(parent), int(group)


def end(run: Run, wait_s: float = 5.0) -> set[int]:
    """Give them a while, then ask, then kill. The processes that had to be asked."""
    asked = set[int]()
    there = waited_for(run, wait_s)
    for number in (signal.SIGTERM, signal.SIGKILL):
        asked |= there
        for pid in there:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        there = waited_for(run, wait_s)
    return asked


def waited_for(run: Run, wait_s: float) -> set[int]:
    """Those that are left after that time; none as soon as there are none."""
    until = time.monotonic() + wait_s
    while (there := run.left()) and time.monotonic() < until:
        time.sleep(0.1)
    return there


def warden(run: Run) -> "subprocess.Popen[bytes]":
    """Ends them when this process has ended, however it did. In a session of its own: Ctrl-C is not for it."""
    environ = {name: value for name, value in os.environ.items() if name != MARK}
    command = [sys.executable, "-m", "deployments.serve.process_cleanup", run.mark, run.session]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=environ, start_new_session=True, **quiet)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()  # to its end, which is the server's
    end(Run(*sys.argv[1:]), wait_s=2.0)


if __name__ == "__main__":
    main()
