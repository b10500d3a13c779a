"""Reads kept requests with their answers and grades, a page at a time, and counts them.

A page has at most PAGE_BYTES of texts or so, however many rows are asked for, so that memory stays constant over a million of
them. Whatever a row holds, reading never raises: a request that cannot be read is left out, and counted in the log.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, exists, func, literal, select, tuple_

from deployments.ids import REPLY
from deployments.learning.kept.served_json import UNREADABLE, Row, served
from deployments.ledger.schema import ANSWERS, calls, completions, feedback, fills, grades, hourly, traces
from router.errors import NoReplica, Overloaded, TierBusy, TierCold, TierFailed, TierMisconfigured
from router.flywheel.served import Served
from router.flywheel.variants import Versions
from router.trace import LEARNING, UNASKED

log = logging.getLogger("stepdown")
"""before a trace's id: the id that its client got"""
PAGE = 500
PART = 50  # requests whose texts are read with one query
PAGE_BYTES = 32_000_000
OUTAGES = tuple(error.code for error in (NoReplica, Overloaded, TierBusy, TierCold, TierFailed, TierMisconfigured))
Position = tuple[float, str]
"""created_s and id of a row: the order of pages"""


def read(
    connection: Connection,
    since_s: float,
    until_s: float,
    *,
    drawn_only: bool = False,
    key: str | None = None,
    after: str = "",
    limit: int = PAGE,
    versions: Versions | None = None,
) -> list[Served]:
    """Requests of [since_s, until_s), oldest first by (created_s, id): at most `limit`, fewer where they are large, none only
    at the end. after: the trace id of the last one read; where that was deleted since, a few may be read again. versions: see
    `served_json.served`.
    """
    place = position(connection, after) if after else None
    if after and place is None:
        return []
    while True:
        found = keys_of(connection, since_s, until_s, drawn_only, key, place, limit)
        if not found:
            return []
        whole, place = built(connection, found, versions)
        if whole:
            return whole


def pages(
    connection: Connection,
    since_s: float,
    until_s: float,
    *,
    drawn_only: bool = False,
    key: str | None = None,
    limit: int = PAGE,
    versions: Versions | None = None,
) -> Iterator[list[Served]]:
    """All pages, one after the other."""
    place: Position | None = None
    while found := keys_of(connection, since_s, until_s, drawn_only, key, place, limit):
        whole, place = built(connection, found, versions)
        if whole:
            yield whole


def one(connection: Connection, trace_id: str, *, versions: Versions | None = None) -> Served | None:
    """One kept request; None: it is not kept, or cannot be read."""
    found = connection.execute(select(completions.c.created_s, completions.c.id).where(completions.c.id == REPLY + trace_id))
    whole, _ = built(connection, [(row[0], row[1]) for row in found], versions)
    return whole[0] if whole else None


# -- a page ----------------------------------------------------------------------------------------------------------------


def position(connection: Connection, trace_id: str) -> Position | None:
    """Where a request stands among all; None: nobody knows it."""
    own = select(completions.c.created_s).where(completions.c.id == REPLY + trace_id)
    for query in (own, select(traces.c.began_s).where(traces.c.id == trace_id)):
        if (at_s := connection.scalar(query)) is not None:
            return float(at_s), REPLY + trace_id
    return None


def keys_of(
    connection: Connection, since_s: float, until_s: float, drawn_only: bool, key: str | None, place: Position | None, limit: int
) -> list[Position]:
    """The positions of a page, by an index alone."""
    own = completions.c
    query = select(own.created_s, own.id).where(ANSWERS, own.created_s >= since_s, own.created_s < until_s)
    if place is not None:
        query = query.where(tuple_(own.created_s, own.id) > tuple_(literal(place[0]), literal(place[1])))
    if key is not None:
        query = query.where(own.key_id == key)
    if drawn_only:
        query = query.where(exists().where(fills.c.trace_id == own.trace_id))
    found = connection.execute(query.order_by(own.created_s, own.id).limit(limit))
    return [(row[0], row[1]) for row in found]


def built(
    connection: Connection, found: Sequence[Position], versions: Versions | None = None
) -> tuple[list[Served], Position | None]:
    """The requests at these positions that can be read, and the last position that was looked at; the rest of a page that would
    be too large is not.
    """
    whole: list[Served] = []
    size, last, broken = 0, None, 0
    for start in range(0, len(found), PART):
        if size > PAGE_BYTES:
            break
        part = found[start : start + PART]
        more, read_bytes = built_part(connection, [trace.removeprefix(REPLY) for _, trace in part], versions)
        whole += more
        size, last, broken = size + read_bytes, part[-1], broken + len(part) - len(more)
    if broken:
        log.warning("%d kept requests cannot be read and are left out", broken)
    return whole, last


def built_part(connection: Connection, ids: Sequence[str], versions: Versions | None = None) -> tuple[list[Served], int]:
    """The requests of these traces, in their order, and about how many bytes of texts were read."""
    rows = by_trace(connection, select(completions).where(completions.c.trace_id.in_(ids)).order_by(completions.c.created_s))
    graded = by_trace(connection, select(grades).where(grades.c.trace_id.in_(ids)))
    drawn = by_trace(connection, select(fills).where(fills.c.trace_id.in_(ids)))
    decided = (traces.c.id.label("trace_id"), traces.c.router, traces.c.flow, traces.c.certificate, traces.c.status)
    known = by_trace(connection, select(*decided).where(traces.c.id.in_(ids)))
    degraded = set(connection.scalars(missed(ids)))
    whole = []
    for trace in ids:
        all_of = rows.get(trace, [])
        asked = next((row for row in all_of if row["role"] == "answer"), None)
        if asked is None:
            continue
        first_trace, first_fill = (next(iter(found.get(trace, [])), None) for found in (known, drawn))
        try:
            more = first_trace, first_fill, trace in degraded, versions
            whole.append(served(asked, all_of, graded.get(trace, []), *more))
        except UNREADABLE as error:
            log.debug("%s: %s", asked["id"], error)
    return whole, sum(size_of(row) for found in rows.values() for row in found)


def by_trace(connection: Connection, query: Select[Any]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in connection.execute(query).mappings():
        found.setdefault(row["trace_id"], []).append(dict(row))
    return found


def missed(ids: Sequence[str]) -> Select[Any]:
    """Those of the requests for which some tier could not answer, so that another had to."""
    asked = and_(calls.c.trace_id.in_(ids), calls.c.outcome.in_(OUTAGES), calls.c.role.not_in(UNASKED))
    return select(calls.c.trace_id).where(asked).distinct()


def size_of(row: Row) -> int:
    return sum(len(row[name] or "") for name in ("messages", "tools", "answer", "signals"))


# -- counts ----------------------------------------------------------------------------------------------------------------


def counts(connection: Connection, since_s: float, tiers: Sequence[str]) -> dict[str, Any]:
    """How many requests since then: kept; drawn, of which waiting, filled, failed, dropped; graded, of which complete: drawn,
    with a score of every tier.

    by_source: source -> scores that rest on it; `none`: answers that could not be graded. fill_usd, judge_usd: by whole hours.
    """
    drawn = select(fills.c.state, func.count()).where(fills.c.drawn_s >= since_s).group_by(fills.c.state)
    states = {state: n for state, n in connection.execute(drawn)}
    kept = select(func.count()).where(ANSWERS, completions.c.created_s >= since_s)
    graded = select(func.count(func.distinct(grades.c.trace_id))).where(grades.c.at_s >= since_s)
    told = select(func.count(func.distinct(feedback.c.trace_id))).where(feedback.c.at_s >= since_s)
    return {
        "kept": connection.scalar(kept) or 0,
        "drawn": sum(states.values()),
        "waiting": states.get("waiting", 0),
        "filled": states.get("done", 0),
        "failed": states.get("failed", 0),
        "dropped": states.get("dropped", 0),
        "graded": connection.scalar(graded) or 0,
        "complete": connection.scalar(complete(since_s, tiers)) or 0,
        "feedback": connection.scalar(told) or 0,
        "by_source": by_source(connection, since_s),
        **{f"{role}_usd": spent(connection, since_s, role) for role in ("fill", "judge")},
    }


def complete(since_s: float, tiers: Sequence[str]) -> Select[Any]:
    """How many drawn requests have a score of every tier. tiers: the names of their weights, see `variants.names_on`."""
    scored = (
        select(grades.c.trace_id)
        .join(fills, fills.c.trace_id == grades.c.trace_id)
        .where(fills.c.drawn_s >= since_s, grades.c.score.is_not(None), grades.c.tier.in_(tiers))
        .group_by(grades.c.trace_id)
        .having(func.count() == len(tiers))
    )
    return select(func.count()).select_from(scored.subquery())


def by_source(connection: Connection, since_s: float) -> dict[str, int]:
    """Which part of the truth rests on which source."""
    scored = func.count(grades.c.score)
    found = connection.execute(
        select(grades.c.source, scored, func.count() - scored).where(grades.c.at_s >= since_s).group_by(grades.c.source)
    ).all()
    return {source: n for source, n, _ in found if n} | {"none": sum(missing for _, _, missing in found)}


def spent(connection: Connection, since_s: float, role: str) -> float:
    """USD of calls that were made to learn from, counted in the hour of the request that they belong to."""
    hour = int(since_s // 3600 * 3600)
    within = (hourly.c.key_id == LEARNING) & (hourly.c.role == role) & (hourly.c.hour >= hour)
    return float(connection.scalar(select(func.coalesce(func.sum(hourly.c.cost_usd), 0.0)).where(within)) or 0.0)
