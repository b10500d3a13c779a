"""stepdown dashboard: install the Grafana boards, print them, ask a Prometheus for every panel's data."""

import sys
from pathlib import Path

import click
import yaml

from deployments.monitoring import grafana as made

NAMES = {"stepdown": made.OWN_FILE, "serve": made.SERVE_FILE}

WHERE = "Folder that Grafana's provisioning watches; by default the one of the latest Ray on this machine."


@click.group()
def dashboard() -> None:
    """Grafana boards of cost, routing and accelerators."""


@dashboard.command()
@click.option("--dir", "folder", type=click.Path(path_type=Path, file_okay=False), default=None, help=WHERE)
def install(folder: Path | None) -> None:
    """Write the boards where Grafana finds them. `stepdown serve` does it where it starts Ray."""
    where = folder or made.ray_folder()
    if folder is None and not where.exists():
        raise click.ClickException(f"{where} is not there: start Ray first (stepdown serve), or give --dir")
    try:
        changed = made.install(where)
    except OSError as error:
        raise click.ClickException(f"cannot write to {where}: {error.strerror}; give another folder with --dir") from None
    for path in changed:
        click.echo(f"wrote {path}")
    if not changed:
        click.echo(f"nothing to change in {where}")
    click.echo(advice(where, where == made.ray_folder()))


def advice(where: Path, rays: bool) -> str:
    """Which environment variables the start of Ray needs."""
    lines = [
        "",
        "Ray's start (`stepdown serve`, `ray start --head`) needs these variables to show them:",
        "  RAY_PROMETHEUS_HOST=http://127.0.0.1:9090     where Prometheus is (make monitoring)",
        "  RAY_GRAFANA_HOST=http://127.0.0.1:3000        where Grafana is",
    ]
    if rays:
        lines += ["The Serve page's `View in Grafana` opens Ray's board with the cost rows: the file takes the place of Ray's."]
    else:
        lines += [
            f"  {made.FOLDER_VARIABLE}={where}",
            "      only if Ray's other boards shall be there too; then install again after each start of Ray",
        ]
    return "\n".join(lines)


@dashboard.command()
@click.argument("board", type=click.Choice(list(NAMES)), default="stepdown")
def show(board: str) -> None:
    """Print a board's JSON, for Grafana's import page."""
    click.echo(made.boards()[NAMES[board]], nl=False)


@dashboard.command()
@click.option("--name", default="stepdown-boards", show_default=True, help="Of the ConfigMap.")
@click.option("--namespace", default=None, help="Of the ConfigMap; by default kubectl's.")
@click.option("--label", default="grafana_dashboard=1", show_default=True, help="What Grafana's sidecar looks for.")
def configmap(name: str, namespace: str | None, label: str) -> None:
    """Print a ConfigMap with both boards, for Grafana beside KubeRay: pipe it to `kubectl apply -f -`."""
    key, _, value = label.partition("=")
    about = {"name": name, "labels": {key: value}} | ({"namespace": namespace} if namespace else {})
    boards = made.boards(made.SERVE_UID)
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": boards}
    click.echo(f"# On the Ray head: {made.UID_VARIABLE}={made.SERVE_UID}, RAY_GRAFANA_HOST and RAY_PROMETHEUS_HOST.")
    click.echo(yaml.safe_dump(document, sort_keys=False, width=10**6), nl=False)


@dashboard.command()
@click.option("--prometheus", "url", default="http://127.0.0.1:9090", show_default=True, help="Its address.")
def check(url: str) -> None:
    """Ask a Prometheus for every panel's data; exit code 1 where a panel that should have data has none."""
    from deployments.monitoring.prometheus import check_panels

    found = check_panels(url)
    for row in found:
        state = "ERROR" if row.error else f"{row.n_series:5d}" if row.n_series else "    -" if row.empty else " NONE"
        click.echo(f"{state}  {row.panel}{f'  ({row.error or row.empty})' if not row.n_series else ''}")
    wrong = sum(row.wrong for row in found)
    click.echo(f"{len(found)} queries, {sum(bool(row.n_series) for row in found)} with data, {wrong} wrong")
    sys.exit(bool(wrong))
