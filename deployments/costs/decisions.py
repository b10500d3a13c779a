"""Single requests: the latest for the table, one with its calls for its page, all of an interval for an export."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Engine, Select, func, or_, select

from deployments.costs.interval import DAY, HOUR, Interval, shown
from deployments.ledger.schema import calls, hourly_traces, traces
from router.errors import BadRequest

MOST = 200
ENDLESS = 1e12
SHOWN = [column for column in traces.c if column.name not in ("prompt", "answer")]


def recent(
    engine: Engine,
    limit: int = 50,
    key: str | None = None,
    tier: str | None = None,
    before: str | None = None,
    since: float = 0.0,
    until: float | None = None,
) -> list[dict[str, Any]]:
    """The latest requests, newest first, without texts. Raises BadRequest.

    tier: who answered. before: a row's `cursor`, to go on from there. since, until: Unix times, until exclusive.
    """
    if not 1 <= limit <= MOST:
        raise BadRequest(f"`limit` is {limit}; use 1 to {MOST}", "limit")
    query, end = select(*SHOWN).order_by(traces.c.began_s.desc(), traces.c.id.desc()), ENDLESS if until is None else until
    if key is not None:
        query = query.where(traces.c.key_id == key)
    if before is not None:
        began_s, id = cursor(before)
        query = query.where(or_(traces.c.began_s < began_s, traces.c.id < id))
        end = min(end, math.nextafter(began_s, math.inf))  # bounds the index, which the condition above does not
    with engine.connect() as connection:
        if tier is None:
            return [told(row) for row in connection.execute(between(query, since, end).limit(limit))]
        return [told(row) for row in of_tier(connection, query, tier, key, limit, since, end)]


def between(query: Select[Any], since: float, until: float) -> Select[Any]:
    """One bound at each end: of two SQLite takes whichever comes first."""
    return query.where(traces.c.began_s >= since, traces.c.began_s < until)


def cursor(text: str) -> tuple[float, str]:
    at, _, id = text.partition(":")
    try:
        return float(at), id
    except ValueError:
        raise BadRequest(f"`before` is {text[:40]!r}; give the `cursor` of a row", "before") from None


def of_tier(
    connection: Connection, query: Select[Any], tier: str, key: str | None, limit: int, since: float, until: float
) -> Iterator[Any]:
    """Hour by hour where the tier answered at all: no index leads to a tier that answers rarely."""
    found = 0
    for hour in hours_of(connection, tier, key, since, until):
        here = between(query.where(traces.c.tier == tier), max(since, hour), min(until, hour + HOUR))
        for row in connection.execute(here.limit(limit - found)):
            found += 1
            yield row
        if found >= limit:
            return


def hours_of(connection: Connection, tier: str, key: str | None, since: float, until: float) -> Iterator[int]:
    """Hours in which the tier answered, latest first; looked up a day at a time, then ten, since the first is mostly enough."""
    of = hourly_traces.c
    query = select(of.hour).where(of.tier == tier).distinct().order_by(of.hour.desc())
    query = query if key is None else query.where(of.key_id == key)
    # One at a time: asked for both, SQLite reads the whole index.
    first, last = (connection.execute(select(end(traces.c.began_s))).scalar() for end in (func.min, func.max))
    if first is None or last is None:
        return
    first = int(max(first, since) // HOUR) * HOUR  # rows go, sums stay
    until, span = min(last + 1, until), DAY
    while until > first:
        yield from connection.execute(query.where(of.hour >= max(first, until - span), of.hour < until)).scalars().all()
        until, span = until - span, 10 * DAY


def told(row: Any) -> dict[str, Any]:
    """A trace as JSON."""
    fields = dict(row._mapping)
    return {
        **fields,
        "p": json.loads(fields["p"] or "{}"),
        "began_utc": shown(fields["began_s"]),
        "cursor": f"{fields['began_s']!r}:{fields['id']}",
    }


def trace(engine: Engine, id: str) -> dict[str, Any] | None:
    """One request with its calls in the order they began, and its texts where they are kept; None: not there (any more)."""
    with engine.connect() as connection:
        row = connection.execute(select(traces).where(traces.c.id == id)).one_or_none()
        return {**told(row), "calls": calls_of(connection, [id]).get(id, [])} if row else None


def calls_of(connection: Connection, ids: list[str]) -> Mapping[str, list[dict[str, Any]]]:
    query = select(calls).where(calls.c.trace_id.in_(ids)).order_by(calls.c.began_s, calls.c.id)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in connection.execute(query):
        found.setdefault(row.trace_id, []).append(dict(row._mapping))
    return found


def whole(engine: Engine, when: Interval, key: str | None = None) -> Iterator[dict[str, Any]]:
    """All requests of an interval with calls and texts, oldest first; memory stays small however many there are."""
    at, last = float(when.since), ""
    while True:
        with engine.connect() as connection:
            rows = connection.execute(following(at, last, when, key).limit(MOST)).all()
            found = calls_of(connection, [row.id for row in rows])
        for row in rows:
            yield {**told(row), "calls": found.get(row.id, [])}
        if len(rows) < MOST:
            return
        at, last = rows[-1].began_s, rows[-1].id


def following(at: float, last: str, when: Interval, key: str | None) -> Select[Any]:
    query = select(traces).where(traces.c.began_s >= at, traces.c.began_s < when.until)
    query = query.where(or_(traces.c.began_s > at, traces.c.id > last)).order_by(traces.c.began_s, traces.c.id)
    return query if key is None else query.where(traces.c.key_id == key)
