"""The filler's part of the database: what is to be filled in or graded, and what has become of it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, delete, func, insert, literal, select, tuple_, update

from deployments.ids import REPLY
from deployments.learning.kept.served_json import UNREADABLE, Broken, Row, an_object, as_sent
from deployments.learning.kept.served_rows import Position, built_part
from deployments.ledger.rows import cleaners
from deployments.ledger.schema import LEARNED, calls, completions, feedback, fills, grades, keys
from deployments.ledger.statements import insert_new
from router.flywheel.grading.agreement import Told
from router.flywheel.served import Answer, Grade, Served
from router.flywheel.variants import Versions

CLEAN = cleaners(completions)
LATEST = 5_000  # kept answers that are looked through for the top tier's log-probabilities
SHARED = ("trace_id", "key_id", "created_s", "conversation", "wanted", "consent", "redaction", "expires_s")
"""columns that an answer has in common with the request that it answers"""


@dataclass(frozen=True, slots=True)
class Material:
    """One kept request, and what else its grades go by."""

    asked: Row
    """its own row"""
    served: Served
    told: Told
    tiers: frozenset[str] | None
    """those that its key may use; None: all"""

    @property
    def as_sent(self) -> bool:
        return as_sent(self.asked)


# -- what there is to do ---------------------------------------------------------------------------------------------------


def waiting(connection: Connection, before_s: float, limit: int) -> list[str]:
    """Requests to be filled in, oldest first. One that failed before waits until its last try was before `before_s`."""
    ready = and_(fills.c.state == "waiting", (fills.c.why == "") | (fills.c.changed_s <= before_s))
    return list(connection.scalars(select(fills.c.trace_id).where(ready).order_by(fills.c.drawn_s).limit(limit)))


def lacking(connection: Connection, names: Sequence[str], since_s: float, limit: int) -> list[str]:
    """Requests drawn since then that were filled in, but not by all of these names, oldest first."""
    graded = select(func.count()).where(grades.c.trace_id == fills.c.trace_id, grades.c.tier.in_(names)).scalar_subquery()
    kept = select(completions.c.id).where(completions.c.id == REPLY + fills.c.trace_id).exists()
    done = and_(fills.c.state == "done", fills.c.drawn_s >= since_s, graded < len(names), kept)
    return list(connection.scalars(select(fills.c.trace_id).where(done).order_by(fills.c.drawn_s).limit(limit)))


def told_after(connection: Connection, since_s: float, limit: int) -> list[tuple[float, str]]:
    """(when, request) of feedback that no grade knows of yet, oldest first; requests that are still to be filled in wait."""
    graded = select(func.max(grades.c.at_s)).where(grades.c.trace_id == feedback.c.trace_id).scalar_subquery()
    open_fill = select(fills.c.trace_id).where(fills.c.trace_id == feedback.c.trace_id, fills.c.state == "waiting").exists()
    kept = select(completions.c.id).where(completions.c.id == REPLY + feedback.c.trace_id).exists()
    unknown = and_(feedback.c.at_s > since_s, func.coalesce(graded, 0.0) < feedback.c.at_s, ~open_fill, kept)
    found = connection.execute(select(feedback.c.at_s, feedback.c.trace_id).where(unknown).order_by(feedback.c.at_s).limit(limit))
    return [(row[0], row[1]) for row in found]


def answered_by_all(
    connection: Connection, place: Position, until_s: float, tiers: Sequence[str], limit: int
) -> tuple[list[str], Position]:
    """Requests that were not drawn, but that drafts and audits have answered by every tier and nobody has graded; and up to
    where was looked.
    """
    own = completions.c
    after = tuple_(own.created_s, own.id) > tuple_(literal(place[0]), literal(place[1]))
    later = and_(own.role.in_(("draft", "audit")), after, own.created_s < until_s)
    rows = connection.execute(
        select(own.created_s, own.id, own.trace_id).where(later).order_by(own.created_s, own.id).limit(limit)
    )
    found = rows.all()
    if not found:
        return [], (until_s, "")
    ids = list(dict.fromkeys(row.trace_id for row in found))
    whole = (
        select(own.trace_id)
        .where(own.trace_id.in_(ids), own.tier.in_(tiers))
        .group_by(own.trace_id)
        .having(func.count(func.distinct(own.tier)) == len(tiers))
    )
    known = set(connection.scalars(select(grades.c.trace_id).where(grades.c.trace_id.in_(ids))))
    known |= set(connection.scalars(select(fills.c.trace_id).where(fills.c.trace_id.in_(ids))))
    last = (found[-1].created_s, found[-1].id) if len(found) == limit else (until_s, "")
    return [trace for trace in connection.scalars(whole) if trace not in known], last


def states(connection: Connection) -> dict[str, int]:
    """How many fills are in each state."""
    return {state: n for state, n in connection.execute(select(fills.c.state, func.count()).group_by(fills.c.state))}


def spent_since(connection: Connection, since_s: float) -> float:
    """USD of the calls to learn from that began since then."""
    return float(connection.scalar(select(func.sum(calls.c.cost_usd)).where(LEARNED, calls.c.began_s >= since_s)) or 0.0)


def failures(connection: Connection, trace_id: str, outcomes: Sequence[str]) -> int:
    """How often tiers could not answer when they were asked for this request: the most of one tier."""
    failed = and_(calls.c.trace_id == trace_id, LEARNED, calls.c.outcome.in_(outcomes))
    return max(connection.scalars(select(func.count()).where(failed).group_by(calls.c.tier)), default=0)


def means(connection: Connection, tier: str, limit: int) -> list[float]:
    """Mean log-probabilities of a tier's latest answers, oldest first."""
    latest = select(completions.c.tier, completions.c.signals, completions.c.created_s, completions.c.id)
    found = latest.order_by(completions.c.created_s.desc(), completions.c.id.desc()).limit(LATEST).subquery()
    known = select(found.c.signals).where(found.c.tier == tier, found.c.signals.is_not(None)).limit(limit)
    values = []
    for text in connection.scalars(known):
        try:
            values.append(float(an_object(text, "signals")["mean_logprob"]))
        except UNREADABLE:
            continue
    return values[::-1]


# -- one request -----------------------------------------------------------------------------------------------------------


def material(connection: Connection, trace_id: str, versions: Versions | None = None) -> Material | None:
    """None: the request is not kept any more. versions: see `served_json.served`. Raises Broken where it cannot be read."""
    asked = connection.execute(select(completions).where(completions.c.id == REPLY + trace_id)).mappings().one_or_none()
    if asked is None:
        return None
    found, _ = built_part(connection, [trace_id], versions)
    if not found:
        raise Broken("what is kept of it cannot be read")
    limits = connection.scalar(select(keys.c.tiers).where(keys.c.id == asked["key_id"]))
    tiers = frozenset(json.loads(limits)) if limits else None
    return Material(dict(asked), found[0], told(connection, trace_id), tiers)


def told(connection: Connection, trace_id: str) -> Told:
    """The latest score, and the latest correction."""
    query = select(feedback.c.score, feedback.c.correction).where(feedback.c.trace_id == trace_id).order_by(feedback.c.at_s)
    score, correction = None, ""
    for given, text in connection.execute(query):
        score, correction = score if given is None else given, text or correction
    return Told(score, correction)


def kept(connection: Connection, trace_id: str) -> bool:
    return connection.scalar(select(completions.c.id).where(completions.c.id == REPLY + trace_id)) is not None


def keep_answer(connection: Connection, asked: Row, answer: Answer, call_id: str, licence: str) -> None:
    """Keep what a tier answered afterwards, unless the request was forgotten meanwhile."""
    if not kept(connection, asked["trace_id"]):
        return
    row = {name: None for name in CLEAN} | {name: asked[name] for name in SHARED}
    row |= {
        "id": call_id,
        "call_id": call_id,
        "role": answer.role,
        "tier": answer.tier,
        "model": answer.model,
        "answer": json.dumps(answer.message, ensure_ascii=False),
        "finish": answer.finish,
        "input_tokens": answer.input_tokens,
        "output_tokens": answer.output_tokens,
        "cost_usd": answer.cost_usd,
        "signals": json.dumps(answer.signals) if answer.signals else None,
        "metadata": "{}",
        "licence": licence,
    }
    insert_new(connection, completions, [{name: clean(row[name]) for name, clean in CLEAN.items()}])


def done(connection: Connection, trace_id: str, found: Mapping[str, Grade], why: str, now_s: float) -> None:
    """A request was filled in and graded. why: what is missing."""
    grade(connection, trace_id, found, now_s)
    settle(connection, [trace_id], "done", why, now_s)


def grade(connection: Connection, trace_id: str, found: Mapping[str, Grade], now_s: float) -> None:
    """Write a request's grades in place of earlier ones of the same names, unless it was forgotten meanwhile."""
    if found and kept(connection, trace_id):
        connection.execute(delete(grades).where(grades.c.trace_id == trace_id, grades.c.tier.in_(list(found))))
        connection.execute(insert(grades), rows_of(trace_id, found, now_s))


def rows_of(trace_id: str, found: Mapping[str, Grade], now_s: float) -> list[dict[str, Any]]:
    return [
        {"trace_id": trace_id, "tier": tier, "score": g.score, "source": g.source, "detail": g.detail[:500], "at_s": now_s}
        for tier, g in found.items()
    ]


def settle(connection: Connection, trace_ids: Iterable[str], state: str, why: str, now_s: float) -> None:
    """Note what became of fills. state `waiting`, with a reason: it is tried again later."""
    values = {"state": state, "why": why[:500], "changed_s": now_s}
    connection.execute(update(fills).where(fills.c.trace_id.in_(list(trace_ids))).values(values))
