"""Another HAProxy in the place of one that was killed, until Ray has started its own again.

Ray asks its HAProxy once a second and, when three answers in a row were missing, starts anew the whole process that minds it.
Most of that is imports: seconds on an idle machine, and on a crowded one most of a minute in which nobody can come in. A
HAProxy by itself is up within a tenth of a second. It is given the settings that Ray wrote last, without the admin socket,
by which Ray would take it for its own; both listen on the port (SO_REUSEPORT, see deployments/serve/haproxy.py) until
Ray's serves.
"""

import signal
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

from deployments.serve.haproxy import haproxy

LOOK_S, GONE = 0.2, 2  # between two looks; so many refusals in a row, and nobody is there
AGAIN = 25  # looks after which one that ended by itself is tried once more
SETTINGS, ADMIN = "haproxy.cfg", "admin.sock"


class StandIn:
    """Looks after the HAProxy whose files are below `folder`, each node's in a folder of its own. None: after nobody."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.refused = 0
        """looks in a row that found nobody"""
        self.process: subprocess.Popen[bytes] | None = None
        self.leaving: list[subprocess.Popen[bytes]] = []
        """take nobody in any more, and have answers to end"""
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def start(self) -> None:
        if self.folder:
            self.thread.start()

    def stop(self) -> None:
        """Before Ray stops its own. Those that stood in may end their answers until `end`."""
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
        state = asked(settings.with_name(ADMIN))
        self.refused = self.refused + 1 if state is None else 0
        if self.refused % AGAIN == GONE and (self.process is None or self.process.poll() is not None):
            self.process = stand(settings)
        elif state and ",UP" in state:
            self.leave()

    def leave(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGUSR1)  # HAProxy's word for: take nobody in, end what is under way
            self.leaving.append(self.process)
            self.process = None


def asked(admin: Path) -> str | None:
    """What a HAProxy says of the servers behind it; empty where it says nothing in time, None where there is none."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        try:
            connection.connect(str(admin))
        except ConnectionRefusedError:
            return None
        except OSError:  # not there yet, or too busy to listen
            return ""
        with suppress(OSError), connection.makefile("rw") as talk:
            talk.write("show stat -1 4 -1\n")  # of all: servers alone
            talk.flush()
            return talk.read()
    return ""


def stand(settings: Path) -> "subprocess.Popen[bytes]":
    """Start it with the same settings."""
    lines = settings.read_text().splitlines(keepends=True)
    own = settings.with_name("stand-in.cfg")
    own.write_text("".join(line for line in lines if not line.strip().startswith("stats socket ")))
    return subprocess.Popen([*haproxy(), "-db", "-f", str(own)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
