"""stepdown dashboard: install the Grafana boards, print them, or ask a Prometheus for every panel's data."""

import sys
from pathlib import Path

import click
import yaml

from deployments.monitoring import grafana
from deployments.monitoring.prometheus import Checked, check_panels

FOLDER = click.Path(path_type=Path, file_okay=False)
FILES = {"stepdown": grafana.OWN_FILE, "serve": grafana.SERVE_FILE}


@click.group()
def dashboard() -> None:
    """Install, print or check the Grafana boards of cost, routing and accelerators."""


@dashboard.command()
@click.option("--dir", "folder", type=FOLDER, default=None, help="Folder that Grafana watches.  [default: the latest Ray's]")
def install(folder: Path | None) -> None:
    """Write the boards where Grafana finds them. `stepdown serve` does it too, if it starts Ray."""
    where = folder or grafana.ray_folder()
    if folder is None and not where.exists():
        raise click.ClickException(f"there is no {where}: start Ray first (stepdown serve), or give --dir")
    try:
        changed = grafana.install(where)
    except OSError as error:
        raise click.ClickException(f"cannot write to {where}: {error.strerror}; give another folder with --dir") from None
    for path in changed:
        click.echo(f"wrote {path}")
    if not changed:
        click.echo(f"nothing to change in {where}")
    click.echo(advice(where, where == grafana.ray_folder()))


def advice(where: Path, of_ray: bool) -> str:
    """The environment variables that Ray must be started with."""
    last = "`View in Grafana` on the Serve page opens Ray's board with the cost rows: our file replaces Ray's."
    if not of_ray:
        last = f"""  {grafana.FOLDER_VARIABLE}={where}
      only to have Ray's other boards there too; then install again after each start of Ray"""
    return f"""
Ray's start (`stepdown serve`, `ray start --head`) needs these variables to show them:
  RAY_PROMETHEUS_HOST=http://127.0.0.1:9090     the address of Prometheus (make monitoring)
  RAY_GRAFANA_HOST=http://127.0.0.1:3000        the address of Grafana
{last}"""


@dashboard.command()
@click.argument("board", type=click.Choice(list(FILES)), default="stepdown")
def show(board: str) -> None:
    """Print the JSON of a board, for Grafana's import page."""
    click.echo(grafana.boards()[FILES[board]], nl=False)


@dashboard.command()
@click.option("--name", default="stepdown-boards", show_default=True, help="Name of the ConfigMap.")
@click.option("--namespace", default=None, help="Namespace of the ConfigMap.  [default: kubectl's]")
@click.option("--label", default="grafana_dashboard=1", show_default=True, help="Label that Grafana's sidecar looks for.")
def configmap(name: str, namespace: str | None, label: str) -> None:
    """Print a ConfigMap with both boards, for Grafana beside KubeRay: pipe it to `kubectl apply -f -`."""
    key, _, value = label.partition("=")
    about = {"name": name, "labels": {key: value}} | ({"namespace": namespace} if namespace else {})
    boards = grafana.boards(grafana.SERVE_UID)
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": boards}
    click.echo(f"# On the Ray head: {grafana.UID_VARIABLE}={grafana.SERVE_UID}, RAY_GRAFANA_HOST and RAY_PROMETHEUS_HOST.")
    click.echo(yaml.safe_dump(document, sort_keys=False, width=10**6), nl=False)


@dashboard.command()
@click.option("--prometheus", "url", default="http://127.0.0.1:9090", show_default=True, help="Address of Prometheus.")
def check(url: str) -> None:
    """Ask a Prometheus for every panel's data; exit code 1 if a panel that should have data has none."""
    found = check_panels(url)
    for row in found:
        click.echo(f"{result(row)}  {row.panel}{f'  ({row.error or row.empty})' if not row.n_series else ''}")
    wrong = sum(row.wrong for row in found)
    click.echo(f"{len(found)} queries, {sum(bool(row.n_series) for row in found)} with data, {wrong} wrong")
    sys.exit(bool(wrong))


def result(row: Checked) -> str:
    """The number of series with data, or why there are none."""
    if row.error:
        return "ERROR"
    if row.n_series:
        return f"{row.n_series:5d}"
    return "    -" if row.empty else " NONE"
