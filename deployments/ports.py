"""TCP ports of this machine: find a free one, and tell which process holds one that is taken."""

import os
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from router.errors import BadInput

# Ray's workers take 10002 to 19999, Serve's replicas 30000 to 31000 and 40000 to 41000, the kernel 32768 to 60999.
PORTS = range(20_000, 30_000)
LISTENING = "0A"  # the state's number in /proc/net/tcp


def free_port() -> int:
    """A free port that no process is given by chance: outside the ranges of the kernel and of Ray."""
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port
    raise BadInput(f"no free port from {PORTS[0]} to {PORTS[-1]}; stop the programs that hold them")


def check_port(host: str, port: int) -> None:
    """Raises BadInput if another process listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            found = f"{error.strerror}{holder(port)}"
            raise BadInput(f"cannot listen on {host}:{port}: {found}; stop what listens there, or give --port") from None


def holder(port: int) -> str:
    """The process that listens on a port of this machine, as ` (haproxy, process 123)`; empty where we may not see it."""
    sockets = {f"socket:[{inode}]" for inode in listening_inodes(port)}
    for folder in Path("/proc").glob("[0-9]*") if sockets else ():
        if sockets & set(open_files(folder)):
            with suppress(OSError):
                return f" ({(folder / 'comm').read_text().strip()}, process {folder.name})"
    return ""


def open_files(process: Path) -> Iterator[str]:
    """The targets of its file descriptors; none if it has ended or belongs to another user."""
    with suppress(OSError):
        for link in list((process / "fd").iterdir()):
            with suppress(OSError):
                yield os.readlink(link)


def listening_inodes(port: int) -> Iterator[str]:
    """The inodes of the sockets that listen on a port."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]
