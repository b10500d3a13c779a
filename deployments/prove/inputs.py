"""Reads and checks everything that a proof is given, before anything is paid for."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from router.errors import BadInput
from router.learn.labels.grading import Grader, find_grader
from router.learn.labels.labelling import read_prompts, row_faults
from router.learn.tables import each_row

Row = dict[str, Any]
FEWEST = 80
"""prompts; of fewer, the parts for training and for trying are too small to show anything"""


@dataclass(frozen=True)
class Given:
    """The prompts of a proof and how answers to them are graded."""

    rows: list[Row]
    """each with a unique `id`, something to ask, and what the grader needs"""
    grader_name: str
    grader: Grader | None
    """None: the top tier judges"""
    left_out: dict[str, int] = field(default_factory=dict)
    """why rows are not used -> how many"""


def given(prompts: Path, answers: Path | None, grader: str | None) -> Given:
    """Raises BadInput where a file cannot be read, nothing can be graded, or too few prompts are left."""
    rows = read_prompts(prompts)
    if answers:
        rows = joined(rows, list(each_row(answers)), answers)
    name = grader or chosen_grader(rows)
    grade = find_grader(name)
    faults = row_faults(rows, grade)
    kept = [row for row in rows if row["id"] not in faults]
    if len(kept) < FEWEST:
        why = (
            f"; {len(faults)} of {len(rows)} cannot be asked or graded, the first: {next(iter(faults.values()))}"
            if faults
            else ""
        )
        raise BadInput(f"{prompts}: {len(kept)} prompts, at least {FEWEST} are needed, 600 or more to show much{why}")
    return Given(kept, name, grade, dict(Counter(faults.values()).most_common()))


def chosen_grader(rows: Sequence[Mapping[str, Any]]) -> str:
    """`exact` where prompts have references, else `judge`."""
    return "exact" if any(row.get("answer") is not None for row in rows) else "judge"


def joined(rows: Sequence[Row], answers: Sequence[tuple[int, Row]], path: Path) -> list[Row]:
    """The prompts with their references, by `id` where the answers have one, else line by line. Raises BadInput.

    answers: (line, row) with the reference in `answer`.
    """
    found = [(line, row) for line, row in answers if row.get("answer") is not None]
    if not found:
        columns = ", ".join(dict.fromkeys(str(name) for _, row in answers for name in row))
        raise BadInput(f"{path}: no references; expected rows with `answer` (and `id`), found {columns:.200}")
    if not any("id" in row for _, row in answers):
        if len(answers) != len(rows):
            raise BadInput(f"{path}: {len(answers)} rows for {len(rows)} prompts; give each an `id`, or one row for each prompt")
        return [{**row, "answer": theirs.get("answer")} for row, (_, theirs) in zip(rows, answers, strict=True)]
    return joined_by_id(rows, found, path)


def joined_by_id(rows: Sequence[Row], answers: Sequence[tuple[int, Row]], path: Path) -> list[Row]:
    """As `joined`, by `id`; a prompt whose id has no answer gets none."""
    by_id: dict[str, Any] = {}
    for line, row in answers:
        name = str(line if row.get("id") is None else row["id"])
        if name in by_id:
            raise BadInput(f"{path}: line {line}: id {name!r} again; ids must differ")
        by_id[name] = row["answer"]
    if not any(row["id"] in by_id for row in rows):
        raise BadInput(
            f"{path}: no id is one of a prompt; the first is {next(iter(by_id))!r:.60}, of a prompt {rows[0]['id']!r:.60}"
        )
    return [{**row, "answer": by_id.get(row["id"])} for row in rows]


def check_usd(usd: float | None, least_usd: float) -> None:
    """Raise BadInput where the budget does not even pay for the fewest prompts. least_usd: what those are expected to cost."""
    if usd is not None and usd < least_usd:
        enough = math.ceil(least_usd * 10000) / 10000
        raise BadInput(f"--usd {usd:g}: {FEWEST} prompts are expected to cost {least_usd:.3g} USD; allow {enough:g} or more")
