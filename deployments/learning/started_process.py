"""Starts the flywheel beside an ingress: `python -m deployments.learning.process`, which trains and compares at a low priority.

Each ingress starts one, and a lease in the database lets one of them work. It gets the configuration as JSON in the first line of
its standard input, and ends when its input does: so it never outlives its ingress, whatever that dies of.
"""

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from deployments.daemon import Daemon
from router.config import Config

log = logging.getLogger("stepdown")
COMMAND = (sys.executable, "-m", "deployments.learning.process")
NICENESS = 15  # requests come first
LOOK_EVERY_S = 1.0
# Until one that ended is started again: at first, and at most; from the beginning after it has worked for a while.
AGAIN_S = 1.0
AGAIN_MAX_S = 300.0
WELL_S = 600.0
END_S = 10.0  # how long it may take to end before it is killed; it gives itself half of that


class StartedProcess:
    """The child as the ingress sees it. clock: seconds that never jump."""

    def __init__(self, config: Config, command: Sequence[str] = COMMAND, clock: Callable[[], float] = time.monotonic) -> None:
        self.config, self.command, self.clock = config, list(command), clock
        self.process: subprocess.Popen[bytes] | None = None
        self.started_s = 0.0
        self.pause_s = AGAIN_S
        self.closed = False
        self.one_at_a_time = threading.Lock()
        self.daemon = Daemon(self.watch)

    def start(self) -> None:
        self.daemon.start()

    def use(self, config: Config) -> None:
        """Go on with another configuration: the child ends, and is started again with it."""
        self.config = config
        process = self.process
        if process and process.stdin:
            with suppress(OSError):  # it has ended already
                process.stdin.close()

    async def close(self) -> None:
        self.closed = True
        await self.daemon.stop()
        await asyncio.to_thread(self.stop)

    async def watch(self) -> None:
        """Keep it running. One that ends at once, again and again, is started ever less often."""
        while True:
            await asyncio.to_thread(self.begin)
            while self.process is not None and self.process.poll() is None:
                await asyncio.sleep(LOOK_EVERY_S)
            pause_s = self.ended()
            await asyncio.sleep(pause_s)

    def begin(self) -> None:
        """Start it and send it the configuration."""
        self.started_s = self.clock()
        with self.one_at_a_time:
            if self.closed:
                return
            try:
                self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE)
                with suppress(OSError):  # it has ended already
                    os.setpriority(os.PRIO_PROCESS, self.process.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
                assert self.process.stdin
                self.process.stdin.write(self.config.model_dump_json().encode() + b"\n")
                self.process.stdin.flush()
            except OSError as error:
                log.warning("the process that learns from the traffic could not be started: %s", error)
                self.end()

    def ended(self) -> float:
        """Note that it has ended. Returns the seconds until it is to be started again."""
        if self.clock() - self.started_s >= WELL_S:
            self.pause_s = AGAIN_S
        pause_s, self.pause_s = self.pause_s, min(AGAIN_MAX_S, 2 * self.pause_s)
        code = self.process.returncode if self.process else None
        log.warning("the process that learns from the traffic has ended (code %s); it is started again in %.0f s", code, pause_s)
        self.stop()
        return pause_s

    def stop(self) -> None:
        with self.one_at_a_time:
            self.end()

    def end(self) -> None:
        """Close its input, which ends it, or kill it."""
        process, self.process = self.process, None
        if process is None:
            return
        with suppress(OSError):  # what it has not read is lost with it
            if process.stdin:
                process.stdin.close()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
