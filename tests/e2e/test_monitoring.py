"""A real Prometheus on a real Ray: every panel has data, and the sums are those of what was recorded."""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from deployments.monitoring.prometheus import DISCOVERY, check_panels, prometheus
from deployments.serve.background import free_port

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus: apt install prometheus"),
]
ROUNDS, EACH = 8, 5


@pytest.fixture(scope="module")
def ray_temp():
    import ray
    from ray import serve

    folder = tempfile.mkdtemp(prefix="sd")  # short: Ray's sockets are in it
    ray.init(
        address="local",
        num_cpus=2,
        _temp_dir=folder,
        include_dashboard=True,
        dashboard_port=free_port(),
        log_to_driver=False,
        logging_level="ERROR",
        _system_config={"metrics_report_interval_ms": 1000},
    )
    serve.start(http_options={"port": free_port(), "host": "127.0.0.1"})
    yield Path(folder)
    serve.shutdown()
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def url(ray_temp, tmp_path_factory):
    with prometheus(free_port(), tmp_path_factory.mktemp("prometheus"), ray_temp / DISCOVERY, every_s=1) as url:
        yield url


@pytest.fixture(scope="module")
def told(url):
    """Traffic for a while; what was recorded of it, in all."""
    from ray import serve

    from tests.e2e.traffic import CALL, Traffic, traces

    handle = serve.run(Traffic.bind(), name="traffic", route_prefix=None)
    for second in range(1, ROUNDS + 1):
        handle.remote(EACH, second).result()
        time.sleep(1.5)
    handle.close.remote().result()
    calls = [call for trace in traces(EACH * ROUNDS) for call in trace.calls] + [CALL] * ROUNDS  # the audits
    yield {"calls": calls, "traces": traces(EACH * ROUNDS), "handle": handle}


def asked(url: str, query: str) -> float:
    rows = httpx.get(f"{url}/api/v1/query", params={"query": query}).json()["data"]["result"]
    return float(rows[0]["value"][1]) if rows else 0.0


def becomes(url: str, query: str, wanted: float, timeout_s: float = 60.0) -> float:
    until, found = time.monotonic() + timeout_s, -1.0
    while time.monotonic() < until and found != pytest.approx(wanted, rel=1e-9):
        time.sleep(1)
        found = asked(url, query)
    return found


def test_sums_are_those_of_what_was_recorded(url, told):
    calls, traces = told["calls"], told["traces"]
    for name in ("input_tokens", "output_tokens", "cached_tokens"):
        wanted = sum(getattr(call, name) for call in calls)
        assert becomes(url, f"sum(ray_stepdown_{name}_total)", wanted) == wanted
    assert becomes(url, "sum(ray_stepdown_requests_total)", len(traces)) == len(traces)
    assert becomes(url, "sum(ray_stepdown_calls_total)", len(calls)) == len(calls)
    cost = sum(call.cost_usd for call in calls)
    assert becomes(url, "sum(ray_stepdown_cost_usd_total)", cost) == pytest.approx(cost, rel=1e-9)
    busy = sum(call.busy_s for call in calls)
    assert becomes(url, "sum(ray_stepdown_accelerator_busy_seconds_total)", busy) == pytest.approx(busy, rel=1e-9)


def test_every_panel_has_data(url, told):
    """All of them: this traffic has something of everything."""
    found = check_panels(url)
    assert not [(row.panel, row.error) for row in found if row.error]
    assert not [(row.panel, row.expr) for row in found if not row.n_series]


def test_raised_by_a_mistake_and_by_no_data(url, told, monkeypatch):
    from deployments.monitoring import prometheus
    from deployments.monitoring.panels import Panel

    panels = [(Panel("bad", "", "s", ()), "sum(("), (Panel("none", "", "s", ()), "ray_stepdown_no_such")]
    monkeypatch.setattr(prometheus, "expressions", lambda: panels)
    bad, none = check_panels(url)
    assert bad.error and none.n_series == 0 and bad.wrong and none.wrong


def test_gauges_stay_while_nobody_asks(url, told):
    """Ray drops a gauge that is not told again; ours are, as long as their process lives."""
    time.sleep(6)  # three reports
    assert asked(url, 'max(ray_stepdown_ledger{state="ok"})') == 1


def test_the_boards_go_where_rays_are(ray_temp, told):
    from deployments.monitoring import grafana

    folder = grafana.ray_folder({"RAY_METRICS_OUTPUT_ROOT": str(ray_temp / "session_latest" / "metrics")})
    assert (folder / grafana.SERVE_FILE).exists()  # Ray's own
    assert {path.name for path in grafana.install(folder)} == {grafana.OWN_FILE, grafana.SERVE_FILE}
    assert grafana.install(folder) == []


def test_an_occupied_port_is_told(url, tmp_path):
    from router.errors import BadInput

    with pytest.raises(BadInput, match="port"), prometheus(int(url.rsplit(":", 1)[1]), tmp_path, tmp_path / DISCOVERY):
        pass


def test_recording_is_cheap(told):
    """No bound: shown only, since figures differ from machine to machine."""
    print(f"{told['handle'].speed.remote(5000).result():.1f} us for each trace of two calls")


def test_it_stops_cleanly(tmp_path):
    with prometheus(free_port(), tmp_path, tmp_path / DISCOVERY) as url:
        assert httpx.get(f"{url}/-/ready").status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/-/ready")
    assert subprocess.run(["test", "-d", tmp_path / "data"]).returncode == 0
