"""Starts another HAProxy in the place of one that was killed, until Ray has started its own again.

Ray checks its HAProxy once a second and, after three missing answers, restarts the whole process that manages it. Most of that
time is imports: seconds on an idle machine, and on a crowded one most of a minute in which no client can connect. A HAProxy
by itself starts within a tenth of a second. It gets the settings that Ray wrote last, without the admin socket, by which
Ray would take it for its own; both listen on the port (SO_REUSEPORT, see haproxy.py) until Ray's serves again.
"""

import signal
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

from deployments.serve.haproxy import haproxy_command

LOOK_S = 0.2  # seconds between checks
GONE = 2  # refused connections in a row before we call HAProxy dead
RETRY = 25  # checks after which a stand-in that ended by itself is started once more
SETTINGS = "haproxy.cfg"
ADMIN = "admin.sock"


class StandIn:
    """Watches the HAProxy whose files are below `folder`, in a folder for each node. None: there is none to watch."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.refused = 0
        """refused connections in a row"""
        self.process: subprocess.Popen[bytes] | None = None
        self.leaving: list[subprocess.Popen[bytes]] = []
        """stand-ins that take no new connections and have answers to end"""
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def start(self) -> None:
        if self.folder:
            self.thread.start()

    def stop(self) -> None:
        """Call it before Ray stops its own HAProxy. Stand-ins may finish their answers until `end`."""
        self.stopped.set()
        if self.thread.is_alive():
            self.thread.join()
        self.leave()

    def end(self) -> None:
        for process in self.leaving:
            process.kill()
            process.wait()

    def run(self) -> None:
        while not self.stopped.wait(LOOK_S):
            self.look()

    def look(self) -> None:
        self.leaving = [process for process in self.leaving if process.poll() is None]
        settings = next(self.folder.glob(f"*/{SETTINGS}"), None) if self.folder else None
        if settings is None:
            return
        stats = server_stats(settings.with_name(ADMIN))
        self.refused = self.refused + 1 if stats is None else 0
        if self.refused % RETRY == GONE and (self.process is None or self.process.poll() is not None):
            self.process = started(settings)
        elif stats and ",UP" in stats:
            self.leave()

    def leave(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGUSR1)  # HAProxy's signal to take no new connections and finish the others
            self.leaving.append(self.process)
            self.process = None


def server_stats(admin: Path) -> str | None:
    """HAProxy's statistics of the servers behind it; empty if it does not answer in time, None if it does not run."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        try:
            connection.connect(str(admin))
        except ConnectionRefusedError:
            return None
        except OSError:  # the socket is not there yet, or HAProxy is too busy to accept
            return ""
        with suppress(OSError), connection.makefile("rw") as admin_socket:
            admin_socket.write("show stat -1 4 -1\n")  # all proxies, servers only
            admin_socket.flush()
            return admin_socket.read()
    return ""


def started(settings: Path) -> "subprocess.Popen[bytes]":
    """A HAProxy with these settings, except for the admin socket."""
    lines = settings.read_text().splitlines(keepends=True)
    own = settings.with_name("stand-in.cfg")
    own.write_text("".join(line for line in lines if not line.strip().startswith("stats socket ")))
    return subprocess.Popen([*haproxy_command(), "-db", "-f", str(own)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
