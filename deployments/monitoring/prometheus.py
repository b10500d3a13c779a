"""Runs a Prometheus on the metrics that Ray exports, and checks that it has data for every panel. `make monitoring` runs it."""

import math
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import httpx

from deployments.ledger.database import state_folder
from deployments.monitoring.grafana import expressions, ray_temp
from deployments.ports import check_port
from router.errors import BadInput

DISCOVERY = "prom_metrics_service_discovery.json"  # written by Ray and kept up to date
READY_S = 30.0
SETTINGS = """global:
  scrape_interval: {every_s:g}s
  evaluation_interval: {every_s:g}s
scrape_configs:
  - job_name: ray
    file_sd_configs:
      - files: ['{discovery}']
        refresh_interval: 5s
"""
MISSING = (
    "no program `prometheus` on PATH; install it (Debian, Ubuntu: `apt install prometheus`, macOS: `brew install prometheus`), "
    "or download a build from https://prometheus.io/download and put its folder on PATH"
)


class Checked(NamedTuple):
    """A Prometheus's answer to one query of a panel."""

    panel: str
    expr: str
    n_series: int
    """series that have a number, not NaN"""
    error: str
    """empty where the query is valid"""
    empty: str
    """when the panel rightly has no data; "": it should always have some"""

    @property
    def wrong(self) -> bool:
        return bool(self.error) or not (self.n_series or self.empty)


def check_panels(url: str, timeout_s: float = 10.0) -> list[Checked]:
    """Run every query of every panel. url: of a Prometheus, `http://127.0.0.1:9090`. Raises BadInput."""
    with httpx.Client(base_url=url, timeout=timeout_s) as client:
        return [Checked(panel.title, expr, *ask(client, expr), panel.empty) for panel, expr in expressions()]


def ask(client: httpx.Client, expr: str) -> tuple[int, str]:
    """Returns how many series have a number, and what is wrong with the query."""
    try:
        answer = client.post("/api/v1/query", data={"query": expr}).json()
    except (httpx.HTTPError, ValueError) as error:
        raise BadInput(f"no Prometheus answers at {client.base_url}: {error}; `make monitoring` starts one") from None
    if answer.get("status") != "success":
        return 0, str(answer.get("error", "no answer"))
    return sum(not math.isnan(float(row["value"][1])) for row in answer["data"]["result"]), ""


@contextmanager
def prometheus(port: int, folder: Path, discovery: Path, every_s: float = 10.0) -> Iterator[str]:
    """Run a Prometheus on loopback with its data in `folder`, and yield its address. Raises BadInput."""
    program = shutil.which("prometheus")
    if program is None:
        raise BadInput(MISSING)
    check_port("127.0.0.1", port)  # a Prometheus that holds it already would answer instead of ours
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "prometheus.yml"
    settings.write_text(SETTINGS.format(discovery=quoted(discovery), every_s=every_s), "utf-8")
    options = {"config.file": settings, "storage.tsdb.path": folder / "data", "web.listen-address": f"127.0.0.1:{port}"}
    log = folder / "prometheus.log"
    with log.open("wb") as out:
        command = [program, *(f"--{name}={value}" for name, value in options.items())]
        # In a session of its own, so that Ctrl-C reaches only us, and we stop it.
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(process, url, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def quoted(path: Path) -> str:
    """The path escaped for single quotes in YAML."""
    return str(path).replace("'", "''")


def wait_until_ready(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    """Raises BadInput with its last output where it stops or takes too long."""
    until = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < until:
        try:
            if httpx.get(f"{url}/-/ready", timeout=2).status_code == 200 and process.poll() is None:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    output = "\n".join(log.read_text("utf-8", "replace").splitlines()[-5:])
    raise BadInput(f"Prometheus did not start on {url}; if the port is taken, give another with --port. Its output:\n{output}")


@click.command()
@click.option("--port", default=9090, show_default=True, help="Port of Prometheus, on loopback.")
@click.option("--ray-temp", "temp", type=click.Path(path_type=Path), default=None, help="Ray's temp folder; by default /tmp/ray.")
@click.option("--every", default=10.0, show_default=True, help="Seconds between two scrapes.")
def main(port: int, temp: Path | None, every: float) -> None:
    """Run Prometheus on this machine's Ray until Ctrl-C."""
    discovery = (temp or ray_temp()) / DISCOVERY
    try:
        with prometheus(port, state_folder() / "prometheus", discovery, every) as url:
            click.echo(welcome(url, discovery))
            wait_for_signal()
            click.echo("stopping ...")
    except BadInput as error:
        raise click.ClickException(str(error)) from None


def wait_for_signal() -> None:
    """Return on Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while True:
            signal.pause()
    except KeyboardInterrupt:
        return


def welcome(url: str, discovery: Path) -> str:
    there = "" if discovery.exists() else "   (not there yet: Ray writes it when it starts)"
    session = discovery.parent / "session_latest" / "metrics" / "grafana"
    return f"""Prometheus  {url}
  reads     {discovery}{there}
  data      {state_folder() / "prometheus"}

With Grafana installed (https://grafana.com/grafana/download), while Ray runs:
  stepdown dashboard install
  grafana server --homepath /usr/share/grafana --config {session / "grafana.ini"}
The Ray dashboard shows its panels when Ray was started with
  RAY_PROMETHEUS_HOST={url} RAY_GRAFANA_HOST=http://127.0.0.1:3000

stepdown dashboard check --prometheus {url}   asks for every panel's data. Ctrl-C stops Prometheus."""


if __name__ == "__main__":
    main()
