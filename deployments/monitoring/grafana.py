"""Grafana's JSON: a board of our own, and Ray's Serve board with the cost rows added below Ray's panels."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deployments.monitoring.panels import ROWS, SERVE_ROWS, Panel, Row

UID, SERVE_UID = "stepdown", "stepdownServe"
UID_VARIABLE = "RAY_GRAFANA_SERVE_DASHBOARD_UID"
FOLDER_VARIABLE = "RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR"
OWN_FILE = "stepdown_grafana_dashboard.json"
SERVE_FILE = "serve_grafana_dashboard.json"  # Ray's own name: ours takes its place, since one uid must not be there twice
SCHEMA = 41  # Grafana 12's; older ones read it, newer ones lift it
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, STAT_SIZE, PLOT_SIZE, ROW_HEIGHT = 24, (6, 4), (8, 8), 1
FIRST_ID = 1000  # of our panels on Ray's board, above every id of Ray's
FILLED = {"$__rate_interval": "1m", "$__range": "5m", "$Cluster": ".*"}
State = Mapping[str, Any]


def expressions(rows: Iterable[Row] = ROWS, filled: Mapping[str, str] = FILLED) -> list[tuple[Panel, str]]:
    """Every panel's PromQL, with Grafana's variables filled in: as a Prometheus takes it."""
    found = []
    for panel in (panel for row in rows for panel in row.panels):
        for expr, _ in panel.queries:
            for name, value in filled.items():
                expr = expr.replace(name, value)
            found.append((panel, expr))
    return found


def own_board() -> dict[str, Any]:
    return {
        "uid": UID,
        "title": "Stepdown",
        "description": "What requests cost, who answered them and why",
        "tags": ["stepdown", "ray"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source_variable(), cluster_variable()]},
        "annotations": {"list": []},
        "links": [],
        "panels": laid_out(ROWS),
    }


def serve_board(uid: str | None = None) -> dict[str, Any]:
    """Ray's board, as the installed Ray makes it, all its panels and ids kept. uid: by default what Ray gives it."""
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
    """Rows from left to right, top to bottom."""
    made: list[dict[str, Any]] = []
    for row in rows:
        place = {"h": ROW_HEIGHT, "w": WIDTH, "x": 0, "y": y}
        made.append(
            {"id": first_id + len(made), "type": "row", "title": row.title, "collapsed": False, "panels": [], "gridPos": place}
        )
        x, y, line = 0, y + ROW_HEIGHT, 0
        for panel in row.panels:
            width, height = STAT_SIZE if panel.kind == "stat" else PLOT_SIZE
            if x + width > WIDTH or (line and line != height):
                x, y = 0, y + line
            made.append(as_json(panel, first_id + len(made), {"h": height, "w": width, "x": x, "y": y}))
            x, line = x + width, height
        y += line
    return made


def as_json(panel: Panel, id: int, place: Mapping[str, int]) -> dict[str, Any]:
    told = panel.description + (f" Without data: {panel.empty}." if panel.empty else "")
    return {
        "id": id,
        "type": panel.kind,
        "title": panel.title,
        "description": told,
        "gridPos": dict(place),
        "datasource": SOURCE,
        "targets": [target(panel, n) for n in range(len(panel.queries))],
        "fieldConfig": {"defaults": defaults(panel), "overrides": []},
        "options": OPTIONS[panel.kind],
    }


def target(panel: Panel, n: int) -> dict[str, Any]:
    expr, legend = panel.queries[n]
    once = panel.kind == "stat"  # over the range shown, so one value is enough
    return {
        "refId": chr(ord("A") + n),
        "datasource": SOURCE,
        "expr": expr,
        "legendFormat": legend,
        "format": "heatmap" if panel.kind == "heatmap" else "time_series",
        "instant": once,
        "range": not once,
    }


def defaults(panel: Panel) -> dict[str, Any]:
    first, *rest = panel.thresholds or ((0.0, "blue" if panel.kind == "state-timeline" else "text"),)
    steps = [{"value": None, "color": first[1]}, *({"value": value, "color": colour} for value, colour in rest)]
    shown: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        shown["min"] = 0 if not any(value < 0 for value, _ in panel.thresholds) else None
        shown["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 25 if panel.stacked else 0,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if panel.thresholds else "off"},
        }
    return shown


LEGEND = {"displayMode": "table", "placement": "bottom", "calcs": ["mean", "lastNotNull"], "showLegend": True}
OPTIONS: Mapping[str, State] = {
    "timeseries": {"legend": LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}},
    "stat": {
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    },
    "heatmap": {
        "calculate": False,
        "color": {"mode": "scheme", "scheme": "Blues", "steps": 64},
        "yAxis": {"axisPlacement": "left", "unit": "percentunit"},
        "legend": {"show": True},
        "tooltip": {"mode": "single", "showColorScale": True},
    },
    "state-timeline": {
        "showValue": "never",
        "mergeValues": True,
        "legend": {**LEGEND, "calcs": []},
        "tooltip": {"mode": "single"},
    },
}


def source_variable() -> dict[str, Any]:
    """Named as on Ray's boards, so that the Ray dashboard's links carry it over."""
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
        "refresh": 1,
        "multi": False,
        "includeAll": False,
        "regex": "",
        "options": [],
        "current": {"selected": False},
    }


def cluster_variable() -> dict[str, Any]:
    query = "label_values(ray_stepdown_requests_total, ray_io_cluster)"
    return {
        "name": "Cluster",
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "Cluster"},
        "description": "Ray clusters, where Prometheus tells them apart",
        "allValue": ".*",
        "includeAll": True,
        "multi": False,
        "hide": 0,
        "refresh": 1,
        "sort": 2,
        "regex": "",
        "options": [],
        "current": {"selected": True, "text": "All", "value": "$__all"},
    }


# -- where they go ---------------------------------------------------------------------------------------------------------


def ray_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder that Ray's own Grafana provisioning watches: of the latest Ray on this machine, or where Ray was told."""
    if given := environ.get(FOLDER_VARIABLE):
        return Path(given)
    root = environ.get("RAY_METRICS_OUTPUT_ROOT")
    return Path(root or ray_temp(environ) / "session_latest" / "metrics") / "grafana" / "dashboards"


def ray_temp(environ: Mapping[str, str] = os.environ) -> Path:
    return Path(environ.get("RAY_TMPDIR", "/tmp")) / "ray"


def install(folder: Path) -> list[Path]:
    """Write what differs, whole or not at all. Returns the files that changed."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = []
    for name, text in boards(os.environ.get(UID_VARIABLE)).items():
        path = folder / name
        if not path.exists() or path.read_text("utf-8") != text:
            part = path.with_suffix(".part")
            part.write_text(text, "utf-8")
            part.replace(path)
            changed.append(path)
    return changed
