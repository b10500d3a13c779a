"""Reads files of rows, Parquet or JSONL, into columns. Every fault is a one-line error with the line's number."""

import difflib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from classifiers import prompt_text
from classifiers.choose import Floats
from router.errors import BadInput

LONGEST_LINE = 32 * 1024 * 1024  # bytes; a longer line is a damaged file, not a prompt
Table = dict[str, list[Any]]
# Fields of a tier's answer that are kept beside its score and cost, as `label` writes them; see evidence.py.
OF_ANSWERS = (
    "answer",
    "finish_reason",
    "output_tokens",
    "mean_logprob",
    "min_logprob",
    "p10_logprob",
    "p25_logprob",
    "p50_logprob",
    "first_margin",
    "first_logprobs",
)


def read_table(path: str | Path) -> Table:
    """Columns by name, all of one length; `_line` holds each row's line number in the file, from 1."""
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise BadInput(f"{path}: the file is empty")
    with path.open("rb") as file:
        is_parquet = file.read(4) == b"PAR1"
    if path.suffix == ".parquet" and not is_parquet:
        raise BadInput(f"{path}: not a Parquet file (it does not begin with PAR1)")
    table = _parquet(path) if is_parquet else _columns(read_jsonl(path))
    if not table["_line"]:
        raise BadInput(f"{path}: no rows")
    return table


def _parquet(path: Path) -> Table:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise BadInput(f"{path}: damaged Parquet file ({str(error).splitlines()[0]})") from None
    columns: Table = {name: _values(table.column(name), name, path) for name in table.column_names}
    columns["_line"] = list(range(1, table.num_rows + 1))
    return columns


def _values(column: Any, name: str, path: Path) -> list[Any]:
    """A Parquet column as a list. A text that is not UTF-8 is an error."""
    try:
        found: list[Any] = column.to_pylist()
        return found
    except UnicodeDecodeError as error:
        line = next(line for line, value in enumerate(column, 1) if not _is_text(value))
        raise BadInput(f"{path}: line {line}: {name} is not UTF-8 text (byte {error.start}: {error.reason})") from None


def _is_text(value: Any) -> bool:
    try:
        value.as_py()
    except UnicodeDecodeError:
        return False
    return True


def _reject_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number; leave the field out or write null")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise BadInput(f"{path}: line {number}: longer than {LONGEST_LINE // 2**20} MiB; expected one JSON object")
            if line.strip():
                yield number, line


def read_jsonl(path: str | Path) -> list[tuple[int, dict[str, Any]]]:
    """(line number, object) for each line that is not blank."""
    rows = []
    for number, line in _lines(Path(path)):
        try:
            row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"), parse_constant=_reject_constant)
        except UnicodeDecodeError as error:
            raise BadInput(f"{path}: line {number}: not UTF-8 text (byte {error.start}: {error.reason})") from None
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}: line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise BadInput(f"{path}: line {number}: a {type(row).__name__}, expected a JSON object")
        rows.append((number, row))
    return rows


def _flatten(row: Mapping[str, Any]) -> dict[str, Any]:
    """`outcomes: {NAME: {score, cost_usd}}` as `score|NAME` and `cost|NAME`."""
    flat = {key: value for key, value in row.items() if key != "outcomes"}
    outcomes = row.get("outcomes")
    for name, outcome in outcomes.items() if isinstance(outcomes, dict) else ():
        if isinstance(outcome, dict):
            flat[f"score|{name}"] = outcome.get("score")
            if "cost_usd" in outcome:
                flat[f"cost|{name}"] = outcome["cost_usd"]
            flat |= {f"{key}|{name}": outcome[key] for key in OF_ANSWERS if key in outcome}
    return flat


def _columns(rows: list[tuple[int, dict[str, Any]]]) -> Table:
    flat = [_flatten(row) for _, row in rows]
    names = dict.fromkeys(key for row in flat for key in row)
    table: Table = {name: [row.get(name) for row in flat] for name in names}
    table["_line"] = [number for number, _ in rows]
    return table


def text_of(table: Table | Mapping[str, list[Any]], path: str | Path) -> list[str]:
    """The text that a classifier sees for each row, from `messages` or `prompt`."""
    if "messages" not in table and "prompt" not in table:
        raise BadInput(f"{path}: no column `prompt` or `messages`; found {', '.join(k for k in table if k != '_line')}")
    empty: list[Any] = [None] * len(table["_line"])
    rows = zip(table["_line"], table.get("messages", empty), table.get("prompt", empty), strict=True)
    return [_text(messages, prompt, line, path) for line, messages, prompt in rows]


def _text(messages: Any, prompt: Any, line: int, path: str | Path) -> str:
    if isinstance(messages, list) and messages and all(isinstance(m, dict) for m in messages):
        return prompt_text(messages)
    if messages is None and isinstance(prompt, str):
        return prompt_text([{"role": "user", "content": prompt}])
    found = prompt if messages is None else messages
    raise BadInput(f"{path}: line {line}: prompt is {found!r:.60}, expected a text or a list of messages")


def numbers(table: Mapping[str, list[Any]], column: str, path: str | Path, allow_nan: bool = False) -> Floats:
    """(n,) a column as floats, NaN where it is null or the table lacks it.

    A NaN in the file is an error unless allow_nan: in scores and costs it comes from a division by zero in a grader.
    """
    values = table.get(column, [None] * len(table["_line"]))
    return np.array([number(v, column, line, path, allow_nan) for v, line in zip(values, table["_line"], strict=True)])


def number(value: Any, column: str, line: int, path: str | Path, allow_nan: bool = False) -> float:
    """One cell of `numbers`."""
    if value is None:
        return math.nan
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = None
    if found is None or (math.isnan(found) and not allow_nan):
        raise BadInput(f"{path}: line {line}: {column} is {value!r:.60}, expected a number; write null where it is missing")
    return found


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`did you mean 'NAME'?` with the most similar name, or an empty text."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else ""
