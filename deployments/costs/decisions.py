"""Reads single requests: the latest for the table, one with its calls for its page, all of an interval for an export."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Engine, Select, func, or_, select

from deployments.costs.interval import Interval, utc_text
from deployments.ledger.schema import calls, completions, feedback, grades, hourly_traces, traces
from router.costs.machine_time import DAY_S, HOUR_S
from router.errors import BadRequest

MOST = 200  # requests read at a time
ENDLESS = 1e12  # a time after every request
SHOWN = [column for column in traces.c if column.name not in ("prompt", "answer")]
# A file of an earlier version lacks these until a server opens it; the commands that read whole logs only read.
EXPORTED = [column for column in traces.c if column.name != "router"]
EXPORTED_CALLS = [column for column in calls.c if column.name != "model"]


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

    tier: the one that answered. before: a row's `cursor`, to go on from there. since, until: Unix times, `until` exclusive.
    """
    if not 1 <= limit <= MOST:
        raise BadRequest(f"`limit` is {limit}; use 1 to {MOST}", "limit")
    query = select(*SHOWN).order_by(traces.c.began_s.desc(), traces.c.id.desc())
    end = ENDLESS if until is None else until
    if key is not None:
        query = query.where(traces.c.key_id == key)
    if before is not None:
        began_s, id = cursor(before)
        query = query.where(or_(traces.c.began_s < began_s, traces.c.id < id))
        end = min(end, math.nextafter(began_s, math.inf))  # bounds the index scan, which the condition above does not
    with engine.connect() as connection:
        if tier is None:
            return [trace_json(row) for row in connection.execute(between(query, since, end).limit(limit))]
        return [trace_json(row) for row in of_tier(connection, query, tier, key, limit, since, end)]


def between(query: Select[Any], since: float, until: float) -> Select[Any]:
    """Bounds the time once at each end: of two bounds SQLite would use whichever comes first."""
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
    """Looks only into hours in which the tier answered: no index leads to a tier that answers rarely."""
    found = 0
    for hour in hours_of(connection, tier, key, since, until):
        here = between(query.where(traces.c.tier == tier), max(since, hour), min(until, hour + HOUR_S))
        for row in connection.execute(here.limit(limit - found)):
            found += 1
            yield row
        if found >= limit:
            return


def hours_of(connection: Connection, tier: str, key: str | None, since: float, until: float) -> Iterator[int]:
    """Hours in which the tier answered, the latest first. Looks up one day, which is mostly enough, then ten at a time."""
    columns = hourly_traces.c
    query = select(columns.hour).where(columns.tier == tier).distinct().order_by(columns.hour.desc())
    query = query if key is None else query.where(columns.key_id == key)
    # In two statements: for both in one, SQLite reads the whole index.
    first, last = (connection.execute(select(end(traces.c.began_s))).scalar() for end in (func.min, func.max))
    if first is None or last is None:
        return
    first = int(max(first, since) // HOUR_S) * HOUR_S  # older rows have been deleted, their sums stay
    until, span = min(last + 1, until), DAY_S
    while until > first:
        yield from connection.execute(query.where(columns.hour >= max(first, until - span), columns.hour < until)).scalars().all()
        until, span = until - span, 10 * DAY_S


def trace_json(row: Any) -> dict[str, Any]:
    p, began_s = json.loads(row.p or "{}"), row.began_s
    return {**row._mapping, "p": p, "began_utc": utc_text(began_s), "cursor": f"{began_s!r}:{row.id}"}


def trace(engine: Engine, id: str) -> dict[str, Any] | None:
    """One request with its calls in the order they began, its texts where they are kept, whether it is kept to learn from, and
    what was said of it; None: there is no such request.
    """
    with engine.connect() as connection:
        row = connection.execute(select(traces).where(traces.c.id == id)).one_or_none()
        if row is None:
            return None
        learned = {"kept": kept(connection, id), "feedback": said_of(connection, id)}
        return {**trace_json(row), "calls": calls_of(connection, [id]).get(id, []), **learned}


def kept(connection: Connection, id: str) -> dict[str, Any] | None:
    """How a request is kept to learn from, and how good each tier's answer was; None: it is not kept."""
    columns = (completions.c[name] for name in ("role", "tier", "consent", "licence", "redaction", "expires_s"))
    rows = connection.execute(select(*columns).where(completions.c.trace_id == id).order_by(completions.c.id)).mappings().all()
    answer = next((row for row in rows if row["role"] == "answer"), None)
    if answer is None:
        return None
    graded = select(grades.c.tier, grades.c.score, grades.c.source).where(grades.c.trace_id == id).order_by(grades.c.tier)
    return {
        **{name: answer[name] for name in ("consent", "licence", "redaction", "expires_s")},
        "answers": [{"tier": row["tier"], "role": row["role"]} for row in rows],
        "grades": [dict(row) for row in connection.execute(graded).mappings()],
    }


def said_of(connection: Connection, id: str) -> list[dict[str, Any]]:
    """Feedback on a request, the last first."""
    query = select(feedback).where(feedback.c.trace_id == id).order_by(feedback.c.at_s.desc(), feedback.c.id)
    return [dict(row) for row in connection.execute(query).mappings()]


def calls_of(
    connection: Connection, ids: list[str], columns: Sequence[Column[Any]] = tuple(calls.c)
) -> Mapping[str, list[dict[str, Any]]]:
    query = select(*columns).where(calls.c.trace_id.in_(ids)).order_by(calls.c.began_s, calls.c.id)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in connection.execute(query):
        found.setdefault(row.trace_id, []).append(dict(row._mapping))
    return found


def every_request(engine: Engine, when: Interval, key: str | None = None) -> Iterator[dict[str, Any]]:
    """All requests of an interval with calls and texts, the oldest first, read a few at a time."""
    at, last = float(when.since), ""
    while True:
        with engine.connect() as connection:
            rows = connection.execute(following(at, last, when, key).limit(MOST)).all()
            found = calls_of(connection, [row.id for row in rows], EXPORTED_CALLS)
        for row in rows:
            yield {**trace_json(row), "calls": found.get(row.id, [])}
        if len(rows) < MOST:
            return
        at, last = rows[-1].began_s, rows[-1].id


def following(at: float, last: str, when: Interval, key: str | None) -> Select[Any]:
    query = select(*EXPORTED).where(traces.c.began_s >= at, traces.c.began_s < when.until)
    query = query.where(or_(traces.c.began_s > at, traces.c.id > last)).order_by(traces.c.began_s, traces.c.id)
    return query if key is None else query.where(traces.c.key_id == key)
