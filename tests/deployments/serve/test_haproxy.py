"""The fast front door stands only where keys are asked for; a port that is taken is named with who holds it."""

import os
import socket

import pytest

from deployments.keys.access import Access
from deployments.ports import check_port, free_port, holder
from deployments.serve.haproxy import METRICS, environment, metrics, uses_haproxy
from router.config import load_config
from router.errors import BadInput


def config(front: str):
    echo = load_config("echo")
    return echo.model_copy(update={"server": echo.server.model_copy(update={"front": front})})


@pytest.mark.parametrize(
    "front, door, fast",
    [
        ("fast", Access(key_hash="ab"), True),
        ("fast", Access(stored=1), True),
        ("fast", Access(insecure=True), False),
        ("plain", Access(key_hash="ab"), False),
    ],
)
def test_it_binds_every_interface_so_it_needs_keys(front, door, fast):
    assert uses_haproxy(config(front), door) is fast
    assert bool(environment(config(front), door)) is fast


def test_two_servers_do_not_share_files_or_ports():
    one, other = (environment(config("fast"), Access(stored=1)) for _ in range(2))
    assert {name.removeprefix("RAY_SERVE_") for name in one if one[name] == other[name]} == {
        "ENABLE_HA_PROXY",
        "THROUGHPUT_OPTIMIZED",
        "HAPROXY_MAXCONN",
        "HAPROXY_TIMEOUT_CLIENT_S",
        "DIRECT_INGRESS_MIN_DRAINING_PERIOD_S",
        "PROXY_HEALTH_CHECK_PERIOD_S",
        "PROXY_READY_CHECK_TIMEOUT_S",
        "SERVE_SOCKET_REUSE_PORT_ENABLED",
        "HAPROXY_TUNE_BUFSIZE",
        "HAPROXY_NBTHREAD",
        "HAPROXY_METRICS_ENABLED",
    }


@pytest.mark.parametrize(
    "variables, told",
    [({}, "0"), ({"RAY_GRAFANA_HOST": "http://g"}, "1"), ({"RAY_PROMETHEUS_HOST": ""}, "0"), ({METRICS: "1"}, "1")],
)
def test_requests_are_told_to_ray_where_a_board_shows_them(variables, told):
    assert metrics(variables) == told


def test_a_port_that_is_taken_is_named_with_who_holds_it():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"process {os.getpid()})" in holder(port)
        with pytest.raises(BadInput, match=f"process {os.getpid()}.*give --port"):
            check_port("127.0.0.1", port)
    assert holder(port) == ""


def test_ports_that_are_used_later_are_not_those_that_others_are_given_meanwhile():
    found = {free_port() for _ in range(50)}
    assert all(20_000 <= port < 30_000 for port in found) and len(found) > 10
