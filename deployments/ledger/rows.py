"""Makes traces, calls and windows into rows of the ledger's tables, and rows into one line of JSON for the spool and back."""

import dataclasses
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import String, Table

from deployments.ledger import schema
from router.trace import CallRow, Trace, Window

log = logging.getLogger(__name__)
Row = dict[str, Any]
Busy = tuple[float, float | None]
"""a reading: seconds of the replica's time, and USD or None"""
# Columns that the spool's lines of earlier versions lack.
ADDED_TO_TRACES: Row = {"router": None}
ADDED_TO_CALLS: Row = {"model": None}


@dataclass(slots=True)
class Rows:
    """Rows that are written together or not at all. Their order does not matter, except that readings wait for their call.

    The field names are those of the spool's lines.
    """

    traces: list[Row] = field(default_factory=list)
    calls: list[Row] = field(default_factory=list)
    windows: list[Row] = field(default_factory=list)
    readings: dict[str, Busy] = field(default_factory=dict)
    """call id -> what was measured after it"""

    def __len__(self) -> int:
        return len(self.traces) + len(self.calls) + len(self.windows) + len(self.readings)

    def singles(self) -> "list[Rows]":
        """Each row by itself, for when one of them cannot be written."""
        return [
            *(Rows(traces=[row]) for row in self.traces),
            *(Rows(calls=[row]) for row in self.calls),
            *(Rows(windows=[row]) for row in self.windows),
            *(Rows(readings={call: busy}) for call, busy in self.readings.items()),
        ]

    def line(self) -> bytes:
        return json.dumps({name: rows for name in PARTS if (rows := getattr(self, name))}).encode() + b"\n"


PARTS = tuple(part.name for part in dataclasses.fields(Rows))


def from_line(line: bytes) -> Rows:
    """The opposite of `Rows.line`. Raises ValueError on any other text."""
    try:
        found = Rows(**json.loads(line))
        found.readings = {call: (busy[0], busy[1]) for call, busy in found.readings.items()}
        found.traces = [ADDED_TO_TRACES | row for row in found.traces]
        found.calls = [ADDED_TO_CALLS | row for row in found.calls]
        return found
    except (TypeError, AttributeError, LookupError) as error:
        raise ValueError(f"not a line of a spool: {error}") from error


def together(parts: Iterable[Rows]) -> Rows:
    whole = Rows()
    for part in parts:
        whole.traces += part.traces
        whole.calls += part.calls
        whole.windows += part.windows
        whole.readings.update(part.readings)
    return whole


def from_trace(trace: Trace) -> Rows:
    return Rows(traces=[as_row(trace, TRACE)], calls=[from_call(call) for call in trace.calls])


def from_call(call: CallRow) -> Row:
    return as_row(call, CALL)


def from_window(window: Window) -> Row:
    return as_row(window, WINDOW)


def as_row(record: Trace | CallRow | Window, columns: Mapping[str, Callable[[Any], Any]]) -> Row:
    return {name: clean(getattr(record, name)) for name, clean in columns.items()}


def text_of(length: int | None) -> Callable[[Any], Any]:
    """A function that makes text acceptable to both databases: no NUL, no lone surrogate, no longer than the column."""

    def clean(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not value.isascii():
            value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return value.replace("\0", "\ufffd")[:length]

    return clean


def number(nullable: bool) -> Callable[[Any], Any]:
    """A function that drops infinite and undefined figures: one of them would spoil its hour's sum for ever."""

    def clean(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            log.warning("the figure %s was not kept in the ledger", value)
            return None if nullable else 0.0
        return value

    return clean


def finite(busy: Busy) -> bool:
    return math.isfinite(busy[0]) and (busy[1] is None or math.isfinite(busy[1]))


def as_is(value: Any) -> Any:
    return value


def as_json(value: Mapping[str, float]) -> str:
    return json.dumps(dict(value))


def cleaners(table: Table) -> dict[str, Callable[[Any], Any]]:
    """Column -> function that cleans its values. Ids are never cut, or two of them could become the same."""
    found: dict[str, Callable[[Any], Any]] = {}
    for column in table.columns:
        if column.type.python_type is str:
            length = column.type.length if isinstance(column.type, String) and not column.primary_key else None
            found[column.name] = text_of(length)
        else:
            found[column.name] = number(bool(column.nullable)) if column.type.python_type is float else as_is
    return found


TRACE = cleaners(schema.traces) | {"p": as_json}
CALL = cleaners(schema.calls)
WINDOW = cleaners(schema.windows) | {"began_s": int}
