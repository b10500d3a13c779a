"""Reads, changes and deletes kept answers. Every list is read by pages that go on from the last row, never by an offset."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete, func, insert, literal, or_, select, tuple_, update

from deployments.ids import REPLY
from deployments.ledger.rows import Row
from deployments.ledger.schema import ANSWERS, completion_metadata, completions, traces

ENDLESS = 1e12  # a time after every request
BATCH = 500  # requests of one page of a command, and of one deletion
LATEST_S = 5.0  # after its end, at which an answer's row may say that it was made
COUNTED = 10_000  # answers with a pair of metadata are counted so far, to begin with the rarest pair
Place = tuple[float, str]
"""where an answer stands in every list: (created_s, id)"""
Listing = tuple[ColumnElement[Any], ColumnElement[Any], Select[Any]]
"""the columns of an answer's place, and the query that reads them"""
C = completions.c


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which kept answers are meant: those for which all of this holds."""

    key: str | None = None
    """id of the key that asked"""
    model: str | None = None
    """the tier that answered, or the request's `model`"""
    tier: str | None = None
    """the tier that answered"""
    metadata: Mapping[str, str] = field(default_factory=dict)
    since_s: float = 0.0
    until_s: float = ENDLESS
    """exclusive"""
    ids: tuple[str, ...] = ()
    """trace ids or ids of replies; empty: any"""


def trace_of(id: str) -> str:
    """The trace id in an id that a client knows: `chatcmpl-TRACE`, or the trace's own."""
    return id.removeprefix(REPLY)


# -- pages -----------------------------------------------------------------------------------------------------------------


def page(
    connection: Connection, chosen: Chosen, limit: int, after: Place | None = None, newest_first: bool = False
) -> list[Place]:
    """The next answers after a place, in the order of their time. Reads indexes alone, unless metadata goes with a tier."""
    if chosen.ids:
        return named(connection, chosen, after, newest_first)[:limit]
    at, id, query = (by_metadata if chosen.metadata else by_time)(connection, chosen)
    low, high = chosen.since_s, chosen.until_s
    place = tuple_(at, id)
    # A time is bounded once at each end: of two bounds SQLite would use whichever comes first.
    if after is None or newest_first:
        query = query.where(at >= low)
    if after is None or not newest_first:
        query = query.where(at < high)
    if after is not None:
        bound = tuple_(literal(after[0]), literal(after[1]))
        query = query.where(place < bound if newest_first else place > bound)
    order = (at.desc(), id.desc()) if newest_first else (at, id)
    return [(row[0], row[1]) for row in connection.execute(query.order_by(*order).limit(limit))]


def by_time(connection: Connection, chosen: Chosen) -> Listing:
    """Goes through the answers in the order of their time."""
    query = select(C.created_s, C.id).where(ANSWERS, *conditions(chosen))
    query = query if chosen.key is None else query.where(C.key_id == chosen.key)
    return C.created_s, C.id, query.where(*(has_pair(C.id, *pair) for pair in chosen.metadata.items()))


def by_metadata(connection: Connection, chosen: Chosen) -> Listing:
    """Goes through the answers with the rarest pair, and looks up the others of each."""
    rarity = {pair: count(connection, chosen.key, *pair) for pair in chosen.metadata.items()}
    rarest, wanted = min(rarity, key=lambda pair: rarity[pair]), conditions(chosen)
    if wanted and rarity[rarest] >= COUNTED:
        return by_time(connection, chosen)  # its index knows the tiers, which would be looked up one by one here
    first = completion_metadata.alias("first")
    query = select(first.c.created_s, first.c.completion_id).where(first.c.name == rarest[0], first.c.value == rarest[1])
    if chosen.key is not None:
        query = query.where(first.c.key_id == chosen.key)
    query = query.where(*(has_pair(first.c.completion_id, *pair) for pair in rarity if pair != rarest))
    if wanted:
        query = query.where(select(C.id).where(C.id == first.c.completion_id, *wanted).exists())
    return first.c.created_s, first.c.completion_id, query


def has_pair(id: ColumnElement[str], name: str, value: str) -> ColumnElement[bool]:
    """Whether the answer of this id has a pair of metadata."""
    also = completion_metadata.alias().c
    return select(also.name).where(also.completion_id == id, also.name == name, also.value == value).exists()


def conditions(chosen: Chosen) -> list[ColumnElement[bool]]:
    found = [] if chosen.tier is None else [C.tier == chosen.tier]
    return found if chosen.model is None else [*found, or_(C.tier == chosen.model, C.wanted == chosen.model)]


def count(connection: Connection, key: str | None, name: str, value: str) -> int:
    """How many answers have this pair of metadata, at most COUNTED."""
    pairs = completion_metadata.c
    query = select(pairs.completion_id).where(pairs.name == name, pairs.value == value)
    query = query if key is None else query.where(pairs.key_id == key)
    return int(connection.execute(select(func.count()).select_from(query.limit(COUNTED).subquery())).scalar_one())


def named(connection: Connection, chosen: Chosen, after: Place | None, newest_first: bool) -> list[Place]:
    """The answers of the given ids for which the rest holds, too."""
    ids = {REPLY + trace_of(id) for id in chosen.ids}
    query = select(C.created_s, C.id, C.key_id, C.metadata).where(ANSWERS, C.id.in_(ids), *conditions(chosen))
    query = query.where(C.created_s >= chosen.since_s, C.created_s < chosen.until_s)
    found = []
    for created_s, id, key_id, metadata in connection.execute(query):
        if chosen.key in (None, key_id) and chosen.metadata.items() <= json.loads(metadata or "{}").items():
            found.append((created_s, id))
    found.sort(reverse=newest_first)
    return [place for place in found if after is None or (place < after if newest_first else place > after)]


def pages(connection: Connection, chosen: Chosen, size: int = BATCH) -> Iterator[list[Place]]:
    """All of them, the oldest first. Another transaction may change what is read next."""
    after: Place | None = None
    while found := page(connection, chosen, size, after):
        yield found
        if len(found) < size:
            return
        after = found[-1]


def place_of(connection: Connection, id: str, key: str | None, newest_first: bool = False) -> Place | None:
    """Where the answer stands, or about stood before it was deleted: a client may delete what it has listed, and go on.

    key: may see only its own; None: any. None: there was none of this id, or another key's.
    """
    row = connection.execute(visible(select(C.created_s, C.id), id, key)).one_or_none()
    if row is not None:
        return row[0], row[1]
    asked = select(traces.c.began_s, traces.c.took_s, traces.c.key_id).where(traces.c.id == trace_of(id))
    request = connection.execute(asked).one_or_none()
    if request is None or key not in (None, request.key_id):
        return None
    # It was written between these times, a moment after the answer: better twice in a list than not at all.
    return request.began_s + (request.took_s + LATEST_S if newest_first else 0.0), id


def visible(query: Select[Any], id: str, key: str | None) -> Select[Any]:
    query = query.where(ANSWERS, C.id == id)
    return query if key is None else query.where(C.key_id == key)


# -- single answers --------------------------------------------------------------------------------------------------------


def find(connection: Connection, id: str, key: str | None, without: Collection[str] = ("messages",)) -> Row | None:
    """One answer's row; None: there is none of this id that this key may see. without: columns that are not read."""
    columns = [column for column in completions.columns if column.name not in without]
    row = connection.execute(visible(select(*columns), id, key)).mappings().one_or_none()
    return None if row is None else dict(row)


def find_all(connection: Connection, ids: Sequence[str]) -> list[Row]:
    """The answers' rows without their messages, in this order; those that are gone are left out."""
    columns = [column for column in completions.columns if column.name != "messages"]
    rows = {row["id"]: dict(row) for row in connection.execute(select(*columns).where(C.id.in_(ids))).mappings()}
    return [rows[id] for id in ids if id in rows]


def set_metadata(connection: Connection, id: str, key: str | None, metadata: Mapping[str, str]) -> bool:
    """Replace an answer's metadata, in its row and in the table by which lists find it. False: there is no such answer."""
    row = connection.execute(visible(select(C.key_id, C.created_s), id, key).with_for_update()).one_or_none()
    if row is None:
        return False
    connection.execute(update(completions).where(C.id == id).values(metadata=json.dumps(dict(metadata))))
    connection.execute(delete(completion_metadata).where(completion_metadata.c.completion_id == id))
    if rows := metadata_rows(id, row.key_id, row.created_s, metadata):
        connection.execute(insert(completion_metadata), rows)
    return True


def metadata_rows(id: str, key_id: str, created_s: float, metadata: Mapping[str, str]) -> list[Row]:
    """Rows of `completion_metadata`."""
    common = {"completion_id": id, "key_id": key_id, "created_s": created_s}
    return [{**common, "name": name, "value": value} for name, value in sorted(metadata.items())]
