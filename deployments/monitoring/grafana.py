"""Grafana's JSON: a board of our own, and Ray's Serve board with the rows on cost and machines added below Ray's panels."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from classifiers.files import atomic_write
from deployments.monitoring.panels import ROWS, SERVE_ROWS, Panel, Row

UID = "stepdown"
SERVE_UID = "stepdownServe"
UID_VARIABLE = "RAY_GRAFANA_SERVE_DASHBOARD_UID"
FOLDER_VARIABLE = "RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR"
OWN_FILE = "stepdown_grafana_dashboard.json"
SERVE_FILE = "serve_grafana_dashboard.json"  # Ray's own name: our file replaces Ray's, since Grafana takes a uid only once
FIRST_ID = 1000  # of our panels on Ray's board; above every id of Ray's
FIXED = yaml.safe_load(Path(__file__).with_name("grafana.yaml").read_text("utf-8"))
# Sizes in Grafana's grid.
GRID_WIDTH = 24
ROW_HEIGHT = 1
STAT_SIZE = (6, 4)
PLOT_SIZE = (8, 8)
FILLED = {"$__rate_interval": "1m", "$__range": "5m", "$Cluster": ".*"}  # values of Grafana's variables for a bare Prometheus


def expressions(rows: Iterable[Row] = ROWS, filled: Mapping[str, str] = FILLED) -> list[tuple[Panel, str]]:
    """Every panel's PromQL as Prometheus takes it: with Grafana's variables filled in."""
    found = []
    for panel in (panel for row in rows for panel in row.panels):
        for expr, _ in panel.queries:
            for name, value in filled.items():
                expr = expr.replace(name, value)
            found.append((panel, expr))
    return found


def own_board() -> dict[str, Any]:
    return {"uid": UID, **FIXED["board"], "panels": laid_out(ROWS)}


def serve_board(uid: str | None = None) -> dict[str, Any]:
    """Ray's board as the installed Ray makes it, with all its panels and ids. uid: by default Ray's."""
    from ray.dashboard.modules.metrics import grafana_dashboard_factory as factory

    board: dict[str, Any] = json.loads(factory.generate_serve_grafana_dashboard()[0])
    below = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    board["panels"] += laid_out(SERVE_ROWS, below, FIRST_ID)
    board["tags"] = [*board["tags"], "stepdown"]
    return board | ({"uid": uid} if uid else {})


def boards(serve_uid: str | None = None) -> dict[str, str]:
    """File name -> JSON, the same bytes each time."""
    made = {OWN_FILE: own_board(), SERVE_FILE: serve_board(serve_uid)}
    return {name: json.dumps(board, indent=2) + "\n" for name, board in made.items()}


# -- panels ----------------------------------------------------------------------------------------------------------------


def laid_out(rows: Sequence[Row], y: int = 0, first_id: int = 1) -> list[dict[str, Any]]:
    """The panels as JSON, placed from left to right and from top to bottom."""
    made: list[dict[str, Any]] = []
    for row in rows:
        place = {"h": ROW_HEIGHT, "w": GRID_WIDTH, "x": 0, "y": y}
        made.append(
            {"id": first_id + len(made), "type": "row", "title": row.title, "collapsed": False, "panels": [], "gridPos": place}
        )
        x, y, line = 0, y + ROW_HEIGHT, 0
        for panel in row.panels:
            width, height = STAT_SIZE if panel.kind == "stat" else PLOT_SIZE
            if x + width > GRID_WIDTH or (line and line != height):
                x, y = 0, y + line
            made.append(as_json(panel, first_id + len(made), {"h": height, "w": width, "x": x, "y": y}))
            x, line = x + width, height
        y += line
    return made


def as_json(panel: Panel, id: int, place: Mapping[str, int]) -> dict[str, Any]:
    return {
        "id": id,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description + (f" Without data: {panel.empty}." if panel.empty else ""),
        "gridPos": dict(place),
        "datasource": FIXED["source"],
        "targets": [target(panel, n) for n in range(len(panel.queries))],
        "fieldConfig": {"defaults": defaults(panel), "overrides": []},
        "options": FIXED["options"][panel.kind],
    }


def target(panel: Panel, n: int) -> dict[str, Any]:
    promql, legend = panel.queries[n]
    once = panel.kind == "stat"  # its query covers the range shown, so one value is enough
    return {
        "refId": chr(ord("A") + n),
        "datasource": FIXED["source"],
        "expr": promql,
        "legendFormat": legend,
        "format": "heatmap" if panel.kind == "heatmap" else "time_series",
        "instant": once,
        "range": not once,
    }


def defaults(panel: Panel) -> dict[str, Any]:
    first, *rest = panel.thresholds or ((0.0, "blue" if panel.kind == "state-timeline" else "text"),)
    steps = [{"value": None, "color": first[1]}, *({"value": value, "color": colour} for value, colour in rest)]
    found: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        found["min"] = 0 if not any(value < 0 for value, _ in panel.thresholds) else None
        found["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 25 if panel.stacked else 0,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if panel.thresholds else "off"},
        }
    return found


# -- the folder they are written to ------------------------------------------------------------------------------------------


def ray_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder that Ray's Grafana provisioning watches: the one named to Ray, or that of this machine's latest Ray."""
    if given := environ.get(FOLDER_VARIABLE):
        return Path(given)
    root = environ.get("RAY_METRICS_OUTPUT_ROOT")
    return Path(root or ray_temp(environ) / "session_latest" / "metrics") / "grafana" / "dashboards"


def ray_temp(environ: Mapping[str, str] = os.environ) -> Path:
    return Path(environ.get("RAY_TMPDIR", "/tmp")) / "ray"


def install(folder: Path) -> list[Path]:
    """Write the boards that differ. Returns the files that changed. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = []
    for name, text in boards(os.environ.get(UID_VARIABLE)).items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:
            atomic_write(path, text)
            changed.append(path)
    return changed
