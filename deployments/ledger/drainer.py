"""Starts and asks `drain_process`, which empties a busy ledger's spool at a low priority.

In the ingress's own process the same work takes a sixtieth of its time, but holds Python's lock for milliseconds at a time while
requests wait. The child is started when there is much to drain and ended when there has been little for a while. While it is
missing or failing, the ingress drains by itself. It ends with the process that started it.
"""

import logging
import select
import subprocess
import sys
import time
from collections.abc import Callable

from router import config

log = logging.getLogger(__name__)
# The child's answers: when it has started, and to each request to drain.
READY = "ready"
DONE = "done"
FAILED = "failed"
MUCH = 100  # waiting rows that justify the child; fewer take the ingress a few milliseconds
IDLE_S = 300.0  # how long the child is kept without having had much to do
ANSWER_S = 30.0  # how long one drain may take
END_S = 5.0  # how long it may take to end before it is killed


class Drainer:
    """The child process as the ingress sees it. To be used by one thread. clock: seconds that never jump."""

    def __init__(self, settings: config.Ledger, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings, self.clock = settings, clock
        self.process: subprocess.Popen[bytes] | None = None
        self.ready = False
        self.busy_s = 0.0
        """when there was last much to do"""

    def available(self, rows: int) -> bool:
        """Whether the child can be asked to `drain`. Starts or stops it by the number of `rows` that wait now."""
        if rows >= MUCH:
            self.busy_s = self.clock()
        if self.process is None:
            if rows >= MUCH:
                self.start()
            return False
        if self.clock() - self.busy_s > IDLE_S:
            self.stop()
            return False
        self.ready = self.ready or self.attempt(lambda: self.receive(0.0) == READY)
        return self.ready

    def drain(self) -> bool:
        """Whether the child has drained the spool. False: the caller must do it."""
        return self.attempt(self.request_drain)

    def start(self) -> None:
        """The child takes a second or two to be ready."""
        command = [sys.executable, "-m", "deployments.ledger.drain_process"]
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
            self.send(self.settings.model_dump_json())
        except OSError as error:
            log.warning("no process for the ledger's spool could be started: %s", error)
            self.stop()

    def attempt(self, action: Callable[[], bool]) -> bool:
        """Returns what `action` returns, or False where the child is gone."""
        try:
            return action()
        except OSError as error:
            log.warning("the process that drains the ledger's spool is gone (%s); it will be restarted when needed", error)
            self.stop()
            return False

    def request_drain(self) -> bool:
        self.send("drain")
        answer = self.receive(ANSWER_S)
        if not answer:
            raise TimeoutError(f"no answer within {ANSWER_S:.0f} s")
        return answer == DONE

    def send(self, line: str) -> None:
        assert self.process and self.process.stdin
        self.process.stdin.write(line.encode() + b"\n")

    def receive(self, wait_s: float) -> str:
        """The next line, empty where none came in time. Raises OSError where the child has ended."""
        assert self.process and self.process.stdout
        poll = select.poll()  # not select.select: it takes no file descriptor above 1,023, and an ingress may have thousands
        poll.register(self.process.stdout, select.POLLIN)
        if not poll.poll(wait_s * 1e3):
            return ""
        line = self.process.stdout.readline().decode().strip()
        if not line:
            raise BrokenPipeError("it has ended")
        return line

    def stop(self) -> None:
        """Close the child's input, which ends it, or kill it."""
        process, self.process, self.ready = self.process, None, False
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
