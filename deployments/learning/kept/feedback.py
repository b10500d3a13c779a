"""What people say of kept answers. The last word of each key counts, and replaces what it said before."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b

from sqlalchemy import Connection, select

from deployments.ids import REPLY
from deployments.ledger.database import INSERT
from deployments.ledger.rows import Row
from deployments.ledger.schema import feedback

REPLACED = ("score", "correction", "comment", "at_s")


@dataclass(frozen=True, slots=True)
class Said:
    """One key's word on one answer."""

    trace_id: str
    key_id: str
    at_s: float
    """Unix time"""
    score: float | None = None
    """in [0, 1]; None: only a correction or a comment"""
    correction: str | None = None
    """the answer as it should have been"""
    comment: str | None = None


def give(connection: Connection, said: Said) -> None:
    """Keep it, instead of what the same key said of the same answer before."""
    id = blake2b(f"{said.trace_id}\n{said.key_id}".encode(), digest_size=16).hexdigest()
    statement = INSERT[connection.dialect.name](feedback).values(id=id, **asdict(said))
    changed = {name: statement.excluded[name] for name in REPLACED}
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changed))


def of_trace(connection: Connection, trace_id: str) -> list[Said]:
    """The last first."""
    return of_traces(connection, [trace_id]).get(trace_id, [])


def of_traces(connection: Connection, trace_ids: Iterable[str]) -> Mapping[str, list[Said]]:
    """By trace, the last first; only those of which something was said. trace_ids: a page of them at most."""
    names = [feedback.c[name] for name in Said.__dataclass_fields__]
    query = select(*names).where(feedback.c.trace_id.in_(list(trace_ids))).order_by(feedback.c.at_s.desc(), feedback.c.id)
    found: dict[str, list[Said]] = {}
    for row in connection.execute(query).mappings():
        found.setdefault(row["trace_id"], []).append(Said(**row))
    return found


def correction_of(said: Iterable[Said]) -> str | None:
    """The latest correction; None: there is none. said: the last first."""
    return next((one.correction for one in said if one.correction is not None), None)


def shown(said: Said) -> Row:
    """As a client sees it."""
    return {
        "object": "feedback",
        "id": REPLY + said.trace_id,
        "trace_id": said.trace_id,
        "key": said.key_id,
        "created": int(said.at_s),
        "score": said.score,
        "correction": said.correction,
        "comment": said.comment,
    }
