"""The models that are known without their files: families.yaml, which is shipped and may be wrong from its date on."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from router.fit.read_config import shape_of
from router.fit.shape import Checkpoint, Shape

FILE = Path(__file__).with_name("families.yaml")
GENERIC: Mapping[str, Any] = {"licence": {"id": "unknown"}, "tools": None}


@dataclass(frozen=True)
class Family:
    """What the models of a family have in common."""

    name: str
    licence: Mapping[str, Any]
    """a tier's `licence`; its id is `unknown` where nobody has read it"""
    tools: str | None = None
    """vLLM's tool_call_parser; none: not known"""
    parser: str | None = None
    """vLLM's reasoning_parser; none: it does not think, or nobody knows"""
    switch: str = "none"
    """how it is told to think: chat_template or effort"""
    efforts: tuple[str, ...] = ()
    """rungs, the least first"""
    chosen_on: tuple[str, ...] = ()
    """gpu, cpu: where it is chosen if nobody names a model"""
    released: str = ""
    """year and month"""
    env: Mapping[str, str] | None = None
    """environment of its replicas"""
    note: str = ""
    """what an operator should know"""


@dataclass(frozen=True)
class Model:
    """A model with all its known checkpoints, the most precise first."""

    name: str
    family: Family
    shape: Shape
    checkpoints: tuple[Checkpoint, ...]


@dataclass(frozen=True)
class Known:
    """The content of families.yaml."""

    as_of: str
    """the day on which it was true"""
    models: tuple[Model, ...]
    """the largest first, of equal ones the newest"""

    def named(self, source: str) -> Model | None:
        """The model with only the checkpoint of this hub id; None: it is not known."""
        for model in self.models:
            for checkpoint in model.checkpoints:
                if checkpoint.source.lower() == source.lower():
                    return Model(model.name, model.family, model.shape, (checkpoint,))
        return None

    def chosen_on(self, kind: str) -> list[Model]:
        """Those among which is chosen on gpu or cpu."""
        return [model for model in self.models if kind in model.family.chosen_on]


@cache
def known() -> Known:
    """What families.yaml says."""
    data = yaml.safe_load(FILE.read_text("utf-8"))
    models = [read_model(each, family) for one in data["families"] for family in [read_family(one)] for each in one["models"]]
    models.sort(key=lambda model: model.family.released, reverse=True)
    models.sort(key=lambda model: model.shape.total, reverse=True)
    return Known(str(data["as_of"]), tuple(models))


def read_family(given: Mapping[str, Any]) -> Family:
    return Family(
        given["name"],
        given["licence"],
        given.get("tools"),
        given.get("parser"),
        given.get("switch", "none"),
        tuple(given.get("efforts", ())),
        tuple(given.get("chosen_on", ())),
        str(given.get("released", "")),
        given.get("env"),
        given.get("note", ""),
    )


def read_model(given: Mapping[str, Any], family: Family) -> Model:
    checkpoints = [
        Checkpoint(each["source"], each.get("weights", "bf16"), tuple(each.get("left", ()))) for each in given["checkpoints"]
    ]
    return Model(given["name"], family, shape_of(given["config"], given["name"]), tuple(checkpoints))
