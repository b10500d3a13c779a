"""Options that several commands have, and how they print."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click


class FiniteRange(click.FloatRange):
    """A range of numbers; `nan`, which click takes for a member of every range, and `inf` are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is not a number", param, ctx)
        return found


PATH = click.Path(path_type=Path)
POSITIVE = click.IntRange(1)
SEEDS = click.IntRange(0, 2**32 - 1)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
LADDER = click.option("--config", default="pocket", show_default=True, help="The ladder: a YAML file, or a shipped one by name.")
TARGET = click.option("--target", default="auto", show_default=True, help="auto, cheap, balanced, quality, or a chance: 0.97.")
COSTS = click.option("--costs", default=None, help="USD per request, if the table has no costs: small=0.001,large=0.02.")


def show(found: Any, text: str, as_json: bool) -> None:
    """Print what was found, as JSON or as text for people."""
    click.echo(json.dumps(found) if as_json else text)


def aligned(rows: Sequence[Sequence[str]], right: bool = False) -> list[str]:
    """Rows as lines of a table. right: all columns but the first are right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    columns = [(str.rjust if right and i else str.ljust, width) for i, width in enumerate(widths)]
    return ["  ".join(put(cell, width) for cell, (put, width) in zip(row, columns, strict=True)) for row in rows]
