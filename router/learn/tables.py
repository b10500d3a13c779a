"""Reads files of rows into rows and columns: Parquet, JSONL, a JSON list, CSV, each of the last three also gzipped.

Every fault is a one-line error with the line's number; where a file has no lines of its own (Parquet, a JSON list) that is the
row's number.
"""

import csv
import difflib
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import compress
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from classifiers import prompt_text
from classifiers.choose import Floats
from router.errors import BadInput
from router.learn.chats import CHATS, chat_of

LONGEST_LINE = 32 * 1024 * 1024  # bytes; a longer line is a damaged file, not a prompt
LONGEST_LIST = 512 * 1024 * 1024  # bytes of a JSON list, which is read whole
Row = dict[str, Any]
Table = dict[str, list[Any]]
NumberedRows = Iterator[tuple[int, Row]]
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
PARQUET = b"PAR1"
GZIP = b"\x1f\x8b"
UTF_16 = "UTF-16 text, not UTF-8; convert it: iconv -f UTF-16 -t UTF-8"
# First bytes of files that are taken for tables, and what to do with them.
OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive; unpack it",
    b"(\xb5/\xfd": "compressed with zstd; unpack it, or use gzip",
    b"BZh": "compressed with bzip2; unpack it, or use gzip",
    b"\xfd7zXZ": "compressed with xz; unpack it, or use gzip",
    b"SQLite format 3": "an SQLite database; expected Parquet, JSONL, a JSON list or CSV",
    b"\xff\xfe": UTF_16,
    b"\xfe\xff": UTF_16,
}


def each_row(path: str | Path) -> NumberedRows:
    """(line number, object) of each row; empty lines are left out. The format is told by content, CSV by the name. Raises
    BadInput, also where a file cannot be opened.
    """
    path = Path(path)
    if path.is_dir():
        raise BadInput(f"{path}: is a folder, expected a file of rows")
    try:
        with path.open("rb") as file:
            yield from _rows(file, path)
    except OSError as error:  # gzip's own errors have no reason
        reason = error.strerror or f"damaged gzip file ({error})"
        raise BadInput(f"{path}: {'no such file' if isinstance(error, FileNotFoundError) else reason}") from None
    except (EOFError, zlib.error) as error:
        raise BadInput(f"{path}: damaged gzip file ({error})") from None


def _rows(file: BinaryIO, path: Path) -> NumberedRows:
    head = cast(io.BufferedReader, file).peek(64)
    if not head:
        raise BadInput(f"{path}: the file is empty")
    if head.startswith(GZIP):
        with gzip.open(file) as inner:
            if inner.peek(4).startswith((PARQUET, GZIP)):
                raise BadInput(f"{path}: a gzipped Parquet or gzip file; unpack it")
            yield from _rows(cast(BinaryIO, inner), path)
        return
    for start, what in OTHER_KINDS.items():
        if head.startswith(start):
            raise BadInput(f"{path}: {what}")
    if head.startswith(PARQUET):
        table = _parquet(path)
        lines = table.pop("_line")
        yield from ((line, dict(zip(table, cells, strict=True))) for line, *cells in zip(lines, *table.values(), strict=True))
    elif {".csv", ".tsv"} & set(path.suffixes[-2:]):
        yield from _csv(file, path)
    elif head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
        yield from _list(file, path)
    else:
        yield from _jsonl(file, path)


def _reject_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number; leave the field out or write null")


def _json(text: bytes, path: Path, number: int) -> Any:
    try:
        return json.loads(text.decode("utf-8-sig" if number == 1 else "utf-8"), parse_constant=_reject_constant)
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: line {number}: not UTF-8 text (byte {error.start}: {error.reason})") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}: line {number + error.lineno - 1}: not JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise BadInput(f"{path}: line {number}: not JSON (nested too deeply)") from None
    except ValueError as error:
        raise BadInput(f"{path}: line {number}: not JSON ({error})") from None


def _jsonl(file: BinaryIO, path: Path) -> NumberedRows:
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise BadInput(f"{path}: line {number}: longer than {LONGEST_LINE // 2**20} MiB; expected one JSON object")
        if b"\0" in line:
            raise BadInput(f"{path}: line {number}: holds NUL bytes, so it is no text; expected one JSON object in UTF-8")
        if line := line.strip():
            row = _json(line, path, number)
            if not isinstance(row, dict):
                raise BadInput(f"{path}: line {number}: {_named(row)}, expected a JSON object")
            yield number, row


def _named(value: Any) -> str:
    """What a JSON value is, with its article."""
    names = {type(None): "null", int: "a number", float: "a number", str: "a text", bool: "true or false"}
    return names.get(type(value), f"a {type(value).__name__}")


def _list(file: BinaryIO, path: Path) -> NumberedRows:
    text = file.read(LONGEST_LIST + 1)
    if len(text) > LONGEST_LIST:
        raise BadInput(f"{path}: a JSON list longer than {LONGEST_LIST // 2**20} MiB; write one object a line: jq -c '.[]'")
    for number, row in enumerate(_json(text, path, 1), 1):
        if not isinstance(row, dict):
            raise BadInput(f"{path}: line 1: a list, expected a JSON object or a list of them; its row {number} is {_named(row)}")
        yield number, row


def _csv(file: BinaryIO, path: Path) -> NumberedRows:
    """A cell without text is null; all others are texts."""
    first = cast(io.BufferedReader, file).peek(LONGEST_LINE).split(b"\n")[0]
    delimiter = max(",;\t", key=lambda mark: first.count(mark.encode()))
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        names = next(reader)
        if len(set(names)) < len(names) or not all(names):
            raise BadInput(f"{path}: line 1: the names of the columns must differ and not be empty; found {names!r:.200}")
        for cells in reader:
            line, begun = reader.line_num, line + 1
            if len(cells) != len(names) and cells:
                raise BadInput(f"{path}: line {begun}: {len(cells)} cells, expected {len(names)} as in the first line")
            if cells:
                yield begun, {name: cell or None for name, cell in zip(names, cells, strict=True)}
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: line {line + 1} or later: not UTF-8 text ({error.reason})") from None
    except csv.Error as error:
        raise BadInput(f"{path}: line {line + 1}: not CSV ({error})") from None


def read_table(path: str | Path) -> Table:
    """Columns by name, all of one length; `_line` holds each row's line number in the file, from 1."""
    path, is_parquet = Path(path), False
    if path.is_file():
        with path.open("rb") as file:
            is_parquet = (head := file.read(4)) == PARQUET
        if head and path.suffix == ".parquet" and not is_parquet:
            raise BadInput(f"{path}: not a Parquet file (it does not begin with PAR1)")
    table = _parquet(path) if is_parquet else _columns(list(each_row(path)), path)
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


def _flatten(row: Mapping[str, Any], path: Path, line: int) -> Row:
    """`outcomes: {NAME: {score, cost_usd}}` as `score|NAME` and `cost|NAME`."""
    flat = {key: value for key, value in row.items() if key != "outcomes"}
    outcomes = row.get("outcomes") or {}
    if not isinstance(outcomes, dict) or not all(isinstance(outcome, dict | None) for outcome in outcomes.values()):
        raise BadInput(f"{path}: line {line}: outcomes is {outcomes!r:.60}, expected {{NAME: {{score, cost_usd}}}}")
    for name, outcome in outcomes.items():
        if outcome is not None:
            flat[f"score|{name}"] = outcome.get("score")
            if "cost_usd" in outcome:
                flat[f"cost|{name}"] = outcome["cost_usd"]
            flat |= {f"{key}|{name}": outcome[key] for key in OF_ANSWERS if key in outcome}
    return flat


def _columns(rows: list[tuple[int, Row]], path: Path) -> Table:
    flat = [_flatten(row, path, line) for line, row in rows]
    names = dict.fromkeys(key for row in flat for key in row)
    table: Table = {name: [row.get(name) for row in flat] for name in names}
    table["_line"] = [number for number, _ in rows]
    return table


def with_scores(table: Table, names: Iterable[str]) -> Table:
    """The rows with a score of at least one of the names. `label` also writes rows that nobody could be asked."""
    columns = [table[f"score|{name}"] for name in names if f"score|{name}" in table]
    kept = [any(score is not None for score in scores) for scores in zip(*columns, strict=True)]
    return table if all(kept) else {name: list(compress(column, kept)) for name, column in table.items()}


def text_of(table: Table | Mapping[str, list[Any]], path: str | Path) -> list[str]:
    """The text that a classifier sees for each row, from `messages`, `prompt` or ShareGPT's `conversations`."""
    given = [name for name in CHATS if name in table]
    if not given:
        raise BadInput(f"{path}: no column `prompt` or `messages`; found {', '.join(k for k in table if k != '_line')}")
    texts = []
    for line, *cells in zip(table["_line"], *(table[name] for name in given), strict=True):
        try:
            texts.append(prompt_text(chat_of(dict(zip(given, cells, strict=True)))))
        except BadInput as error:
            raise BadInput(f"{path}: line {line}: {error}") from None
    return texts


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
