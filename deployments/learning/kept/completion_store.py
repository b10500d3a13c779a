"""Writes what is kept into `completions` and the tables beside it, and deletes it again, with all that belongs to a request."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add

from sqlalchemy import Connection, delete, func, select

from deployments.ids import REPLY
from deployments.ledger.rows import Row
from deployments.ledger.schema import completion_metadata, completions, feedback, fills, grades
from deployments.ledger.statements import insert_new

BATCH = 100  # requests that are deleted in one transaction
LOOKED_AT = 500  # rows at each end by which the size of all is estimated
ROW_BYTES = 400  # of a row beside its texts, its indexes included
TEXTS = ("messages", "tools", "sampling", "answer", "signals", "metadata")


@dataclass(slots=True)
class Batch:
    """Rows that are written together."""

    completions: list[Row] = field(default_factory=list)
    metadata: list[Row] = field(default_factory=list)
    fills: list[Row] = field(default_factory=list)

    def add(self, other: "Batch") -> None:
        self.completions += other.completions
        self.metadata += other.metadata
        self.fills += other.fills


def write(connection: Connection, batch: Batch) -> None:
    """Write rows. Audits whose request is not kept, or not any more, are left out."""
    new = {row["trace_id"] for row in batch.completions if row["role"] == "answer"}
    late = sorted({row["trace_id"] for row in batch.completions} - new)
    known = new | (kept_of(connection, late) if late else set())
    insert_new(connection, completions, [row for row in batch.completions if row["trace_id"] in known])
    insert_new(connection, completion_metadata, batch.metadata)
    insert_new(connection, fills, batch.fills)


def kept_of(connection: Connection, traces: Sequence[str]) -> set[str]:
    """Those of the requests whose answer is kept."""
    ids = [REPLY + trace for trace in traces]
    return {row.trace_id for row in connection.execute(select(completions.c.trace_id).where(completions.c.id.in_(ids)))}


# -- deleting ----------------------------------------------------------------------------------------------------------------


def forget(connection: Connection, traces: Sequence[str]) -> int:
    """Delete all that is kept of these requests, answers of every role and what was said of them. Returns how many answers.

    SQLite overwrites what is deleted (`secure_delete`, database.py), so that no text stays in the file's free pages.
    """
    gone = 0
    for start in range(0, len(traces), BATCH):
        some = traces[start : start + BATCH]
        answers = select(completions.c.id).where(completions.c.trace_id.in_(some))
        connection.execute(delete(completion_metadata).where(completion_metadata.c.completion_id.in_(answers)))
        for table in (fills, grades, feedback):
            connection.execute(delete(table).where(table.c.trace_id.in_(some)))
        gone += connection.execute(delete(completions).where(completions.c.trace_id.in_(some))).rowcount
    return gone


def expired(connection: Connection, now_s: float, before_s: float | None) -> list[str]:
    """A batch of requests whose time is over. before_s: older ones are over too, whatever was said when they were kept."""
    over = [(completions.c.expires_s, now_s), *([(completions.c.created_s, before_s)] if before_s is not None else [])]
    found: dict[str, None] = {}
    for column, limit in over:
        some = select(completions.c.trace_id).where(column < limit).order_by(column).limit(BATCH)
        found.update(dict.fromkeys(connection.execute(some).scalars()))
    return list(found)


def oldest(connection: Connection, before_s: float) -> list[str]:
    """A batch of the requests up to that time."""
    some = select(completions.c.trace_id).where(completions.c.created_s <= before_s).order_by(completions.c.created_s)
    return list(dict.fromkeys(connection.execute(some.limit(BATCH)).scalars()))


def too_many(connection: Connection, keep_bytes: int) -> float | None:
    """Up to when rows must go so that the others fit into so many bytes; None: all fit. The size is estimated."""
    count = connection.execute(select(func.count()).select_from(completions)).scalar_one()
    size = count * mean_bytes(connection)
    if size <= keep_bytes:
        return None
    going = min(count, round(count * (size - keep_bytes) / size) + 1)
    order = select(completions.c.created_s).order_by(completions.c.created_s).offset(going - 1).limit(1)
    return float(connection.execute(order).scalar_one())


def mean_bytes(connection: Connection) -> float:
    """Of a row: by the oldest and the newest."""
    texts = reduce(add, (func.coalesce(func.length(completions.c[name]), 0) for name in TEXTS))
    means = []
    for order in (completions.c.created_s.asc(), completions.c.created_s.desc()):
        ends = select(texts.label("size")).order_by(order).limit(LOOKED_AT).subquery()
        means.append(float(connection.execute(select(func.avg(ends.c.size))).scalar() or 0.0))
    return ROW_BYTES + sum(means) / len(means)
