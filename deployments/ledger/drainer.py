"""Empties a busy ledger's spool in a process of its own, `drain_process`, at the lowest priority.

In the ingress's process the same work, a sixtieth of its time, holds Python's lock for milliseconds at a time, and every request
of those moments waits for it. The process is started when there is much to drain and ended when there has not been for a
while; while there is none, or it fails, the ingress drains by itself. It ends with the process that started it.
"""

import logging
import select
import subprocess
import sys
import time
from collections.abc import Callable

from router import config

log = logging.getLogger(__name__)
# What the process answers: once it has started, and to each request to drain.
READY = "ready"
DONE = "done"
FAILED = "failed"
MUCH = 100  # rows that wait at once: fewer take the ingress itself a few milliseconds
IDLE_S = 300.0  # it is kept without having had much to do
ANSWER_S = 30.0  # for it to drain what there is
END_S = 5.0


class Drainer:
    """The process, seen from the ingress; of one thread. clock: seconds that never jump."""

    def __init__(self, settings: config.Ledger, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings, self.clock = settings, clock
        self.process: subprocess.Popen[bytes] | None = None
        self.ready = False
        self.busy_s = 0.0
        """when there was much to do last"""

    def there(self, rows: int) -> bool:
        """Whether it can be asked to `drain`; started and ended here, by how much there is to do. rows: that wait now."""
        if rows >= MUCH:
            self.busy_s = self.clock()
        if self.process is None:
            if rows >= MUCH:
                self.start()
            return False
        if self.clock() - self.busy_s > IDLE_S:
            self.stop()
            return False
        self.ready = self.ready or self.told(lambda: self.heard(0.0) == READY)
        return self.ready

    def drain(self) -> bool:
        """Whether it has drained the spool. False: who asks must do it."""
        return self.told(self.asked)

    def start(self) -> None:
        """It takes a second or two to be ready."""
        command = [sys.executable, "-m", "deployments.ledger.drain_process"]
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
            self.tell(self.settings.model_dump_json())
        except OSError as error:
            log.warning("no process for the ledger's spool: %s", error)
            self.stop()

    def told(self, ask: Callable[[], bool]) -> bool:
        """What `ask` returns; False where the process is gone."""
        try:
            return ask()
        except OSError as error:
            log.warning("the process that drains the ledger's spool is gone (%s); it is started again when needed", error)
            self.stop()
            return False

    def asked(self) -> bool:
        self.tell("drain")
        answer = self.heard(ANSWER_S)
        if not answer:
            raise TimeoutError(f"no answer within {ANSWER_S:.0f} s")
        return answer == DONE

    def tell(self, line: str) -> None:
        assert self.process and self.process.stdin
        self.process.stdin.write(line.encode() + b"\n")

    def heard(self, wait_s: float) -> str:
        """A line; empty: none yet. Raises OSError where the process has ended."""
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
        """It ends when nothing more can be asked of it."""
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
