"""Every metric that Stepdown exports, read from measures.yaml and checked."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

FILE = Path(__file__).with_name("measures.yaml")


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class Measure:
    """One metric."""

    kind: Literal["counter", "gauge", "histogram"]
    unit: Literal["requests", "calls", "tokens", "usd", "s", "chance", "replicas", "rows", "state", "share"]
    help: str
    tags: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


METRICS = TypeAdapter(dict[str, Measure]).validate_python(yaml.safe_load(FILE.read_text("utf-8"))["metrics"])
