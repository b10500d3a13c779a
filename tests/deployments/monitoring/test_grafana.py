"""The boards, taken whole: every metric has a panel, every panel asks for metrics that exist, and the JSON is Grafana's."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from click.testing import CliRunner

from deployments.cli.main import main
from deployments.monitoring import grafana
from deployments.monitoring.measures import METRICS
from deployments.monitoring.panels import ROWS, SERVE_ROWS, Unit
from deployments.monitoring.prometheus import SETTINGS, quoted

PANELS = [panel for row in ROWS for panel in row.panels]
NAME = re.compile(r"\bray_stepdown_\w+")
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}  # added by Ray
KINDS = {"timeseries", "stat", "heatmap", "state-timeline", "row"}


def exported():
    """Every name as Prometheus has it -> its metric."""
    return {f"ray_{name}{suffix}": measure for name, measure in METRICS.items() for suffix in SUFFIXES[measure.kind]}


def names(expr):
    return set(NAME.findall(expr))


def test_every_metric_has_a_panel():
    asked = {name for _, expr in grafana.expressions() for name in names(expr)}
    shown = {name for name, measure in METRICS.items() if any(f"ray_{name}{s}" in asked for s in SUFFIXES[measure.kind])}
    assert shown == METRICS.keys()


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_a_panel_asks_for_what_exists_and_says_what_it_shows(panel):
    for expr, legend in panel.queries:
        assert names(expr) and names(expr) <= exported().keys(), names(expr) - exported().keys()
        assert expr.count("(") == expr.count(")") and legend
        by_tags = set(re.findall(r"by \(([^)]*)\)", expr)) - {""}
        tags = {tag for name in names(expr) for tag in exported()[name].tags} | {"le"}
        assert {tag.strip() for tags in by_tags for tag in tags.split(",")} <= tags
        assert set(re.findall(r"{{(\w+)}}", legend)) <= {tag.strip() for tags in by_tags for tag in tags.split(",")}
    assert panel.unit in get_args(Unit) and len(panel.description) > 10 and panel.description.rstrip().endswith((".", "`."))
    assert [value for value, _ in panel.thresholds] == sorted(value for value, _ in panel.thresholds)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_units_fit_the_metrics(panel):
    """Money is shown as money, seconds as seconds."""
    allowed = {
        "usd": {"currencyUSD", "suffix: USD/h", "percentunit"},
        "s": {"s", "suffix: accelerators"},
        "share": {"percentunit"},
        "tokens": {"suffix: tokens/s", "short"},
        "requests": {"reqps", "short"},
        "calls": {"reqps", "short", "percentunit"},
        "chance": {"percentunit", "short"},
        "replicas": {"short"},
        "rows": {"short"},
        "state": {"none"},
    }
    for expr, _ in panel.queries:
        for name in names(expr):
            assert panel.unit in allowed[exported()[name].unit], (name, panel.unit)


def test_titles_differ():
    assert len({panel.title for panel in PANELS}) == len(PANELS)


def test_nothing_is_left_to_grafana_when_asked_directly():
    assert not [expr for _, expr in grafana.expressions() if "$" in expr]


@pytest.fixture(scope="module")
def made():
    return {name: json.loads(text) for name, text in grafana.boards().items()}


@pytest.mark.parametrize("file", [grafana.OWN_FILE, grafana.SERVE_FILE])
def test_the_json_is_a_board(made, file):
    board = made[file]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids) and board["uid"] and board["title"] and board["schemaVersion"] >= 27
    assert {"datasource", "Cluster"} <= {v["name"] for v in board["templating"]["list"]}
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24 and place["h"] > 0
        if panel["id"] >= grafana.FIRST_ID or file == grafana.OWN_FILE:
            assert panel["type"] in KINDS
            assert panel["type"] == "row" or [t["refId"] for t in panel["targets"]] == list("ABCD"[: len(panel["targets"])])


@pytest.mark.parametrize("file, first", [(grafana.OWN_FILE, 0), (grafana.SERVE_FILE, grafana.FIRST_ID)])
def test_panels_do_not_overlap(made, file, first):
    taken = set()
    for panel in (panel for panel in made[file]["panels"] if panel["id"] >= first):
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_rays_panels_stay_as_they_are(made):
    from ray.dashboard.modules.metrics import grafana_dashboard_factory as factory

    rays = json.loads(factory.generate_serve_grafana_dashboard()[0])
    ours = made[grafana.SERVE_FILE]
    assert ours["panels"][: len(rays["panels"])] == rays["panels"] and ours["uid"] == rays["uid"]
    added = [panel["title"] for panel in ours["panels"][len(rays["panels"]) :]]
    assert added == [title for row in SERVE_ROWS for title in (row.title, *(panel.title for panel in row.panels))]
    below = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in rays["panels"])
    assert all(panel["gridPos"]["y"] >= below for panel in ours["panels"][len(rays["panels"]) :])


def test_rays_own_variables_serve_our_panels(made):
    wanted = set(re.findall(r"\$(?:{)?(\w+)", json.dumps(grafana.laid_out(SERVE_ROWS)))) - {"__range", "__rate_interval"}
    assert wanted <= {v["name"] for v in made[grafana.SERVE_FILE]["templating"]["list"]}


# -- the command -----------------------------------------------------------------------------------------------------------


def run(*args, **more):
    return CliRunner().invoke(main, ["dashboard", *args], **more)


def test_installs_once_and_mends_what_was_overwritten(tmp_path):
    first = run("install", "--dir", str(tmp_path))
    assert first.exit_code == 0 and first.output.count("wrote") == 2
    assert "nothing to change" in run("install", "--dir", str(tmp_path)).output
    (tmp_path / grafana.SERVE_FILE).write_text("{}")  # as Ray does when it starts
    assert run("install", "--dir", str(tmp_path)).output.count("wrote") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([grafana.OWN_FILE, grafana.SERVE_FILE])


def test_installs_where_ray_was_told(tmp_path):
    found = run("install", env={grafana.FOLDER_VARIABLE: str(tmp_path)})
    assert found.exit_code == 0 and (tmp_path / grafana.SERVE_FILE).exists()


def test_without_ray_it_says_so(tmp_path):
    found = run("install", env={"RAY_TMPDIR": str(tmp_path), grafana.FOLDER_VARIABLE: ""})
    assert found.exit_code == 1 and "start Ray first" in found.output


def test_the_serve_board_keeps_the_uid_that_ray_was_given(tmp_path):
    run("install", "--dir", str(tmp_path), env={grafana.UID_VARIABLE: "mine"})
    assert json.loads((tmp_path / grafana.SERVE_FILE).read_text())["uid"] == "mine"


def test_shows_both():
    assert json.loads(run("show").output)["uid"] == grafana.UID
    assert json.loads(run("show", "serve").output)["title"] == "Serve Dashboard"


@pytest.mark.slow
def test_the_configmap_holds_both_under_uids_of_their_own():
    document = yaml.safe_load(run("configmap", "--namespace", "ray").output)
    assert (document["kind"], document["metadata"]["namespace"]) == ("ConfigMap", "ray")
    assert document["metadata"]["labels"] == {"grafana_dashboard": "1"}
    uids = {json.loads(text)["uid"] for text in document["data"].values()}
    assert uids == {grafana.UID, grafana.SERVE_UID}
    assert sum(map(len, document["data"].values())) < 1_000_000  # etcd's limit


def test_check_without_prometheus_says_how_to_get_one():
    found = run("check", "--prometheus", "http://127.0.0.1:1")
    assert found.exit_code == 2 and "make monitoring" in found.output


def test_prometheus_settings_are_yaml():
    read = yaml.safe_load(SETTINGS.format(every_s=10.0, discovery=quoted(Path("/tmp/it's here"))))
    assert read["scrape_configs"][0]["file_sd_configs"][0]["files"] == ["/tmp/it's here"]
