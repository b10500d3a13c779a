"""Kept requests as rows of an outcome table, in the form of `stepdown label`: what `train`, `calibrate` and `evaluate` read."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from classifiers.files import replaced
from router.flywheel.served import Served
from router.learn.chats import is_whole, whole

Row = dict[str, Any]
NOT_ASKED = "this tier was not asked"
NOT_GRADED = "its answer has no grade"


def outcome_row(served: Served, tiers: Sequence[str]) -> Row:
    """One row of an outcome table: `id`, `messages`, and of each tier its answer, cost, signals and score.

    `weight` is the number of requests that a drawn one stands for. `stem_sha256`, by which rows stay together in a split, is the
    conversation. A missing score has its reason in `error`.
    """
    more: Row = {"tools": list(served.tools)} if served.tools else {}
    if served.conversation:
        more["stem_sha256"] = served.conversation
    if task := served.metadata.get("task"):
        more["task"] = task
    return {
        "id": served.trace_id,
        "messages": [dict(message) for message in served.messages],
        **more,
        "weight": 1 / served.chance if served.drawn else 1.0,
        "drawn": served.drawn,
        "outcomes": {tier: outcome(served, tier) for tier in tiers},
    }


def outcome(served: Served, tier: str) -> Row:
    """What one tier answered, how good it was, and who said so."""
    answer, grade = served.answers.get(tier), served.grades.get(tier)
    if answer is None:
        return {"score": None, "error": NOT_ASKED}
    found = {
        "answer": whole(answer.text),
        "finish_reason": answer.finish,
        "input_tokens": answer.input_tokens,
        "output_tokens": answer.output_tokens,
        **answer.signals,
        "cost_usd": answer.cost_usd,
    }
    if grade is None or grade.score is None:
        why = grade.detail if grade is not None and grade.detail else NOT_GRADED
        return found | {"score": None, "error": why}
    return found | {"score": grade.score, "graded_by": grade.source}


def line_of(row: Row) -> str:
    """One line of JSON that any reader takes: no NaN, and escapes where a text cannot be written in UTF-8."""
    finite = without_nan(row)
    return json.dumps(finite, ensure_ascii=not is_whole(finite), allow_nan=False)


def without_nan(value: Any) -> Any:
    """The same JSON value with null for each number that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: without_nan(part) for name, part in value.items()}
    return [without_nan(part) for part in value] if isinstance(value, list | tuple) else value


def write_rows(rows: Iterable[Row], path: Path) -> int:
    """Write JSONL row by row; an existing file is replaced once the new one is whole. Returns how many rows. Raises OSError."""
    with replaced(path) as fresh, fresh.open("w", encoding="utf-8") as file:
        return sum(1 for row in rows if file.write(line_of(row) + "\n"))
