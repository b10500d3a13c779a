"""The panels of Stepdown's boards, read from panels.yaml and checked; grafana.py makes Grafana's JSON of them."""

import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import yaml
from pydantic import AfterValidator, ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

Unit = Literal[
    "currencyUSD", "suffix: USD/h", "percentunit", "s", "reqps", "suffix: tokens/s", "short", "suffix: accelerators", "none"
]
"""as Grafana names them"""
FILE = Path(__file__).with_name("panels.yaml")
STRICT = ConfigDict(extra="forbid")
CLUSTER = 'ray_io_cluster=~"$Cluster"'
METRIC = re.compile(r"\b(ray_stepdown_\w+)(?:{([^}]*)})?")  # a name, and the labels it selects


def on_cluster(promql: str) -> str:
    """The same query, of the Ray cluster that Grafana's variable `Cluster` selects."""
    return METRIC.sub(lambda found: f"{found[1]}{{{f'{found[2]},' if found[2] else ''}{CLUSTER}}}", promql)


class Query(NamedTuple):
    promql: Annotated[str, AfterValidator(on_cluster)]
    legend: str


@dataclass(frozen=True, slots=True, config=STRICT)
class Panel:
    """One chart or number. panels.yaml explains the fields."""

    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat", "heatmap", "state-timeline"] = "timeseries"
    stacked: bool = False
    thresholds: tuple[tuple[int | float, str], ...] = ()
    empty: str = ""


@dataclass(frozen=True, slots=True, config=STRICT)
class Row:
    title: str
    panels: tuple[Panel, ...]
    on_serve_board: bool = False


ROWS = TypeAdapter(tuple[Row, ...]).validate_python(yaml.safe_load(FILE.read_text("utf-8")))
SERVE_ROWS = tuple(row for row in ROWS if row.on_serve_board)
"""what Ray's Serve board gets besides Ray's own panels"""
