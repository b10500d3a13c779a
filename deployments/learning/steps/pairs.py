"""On which drawn requests a run has compared its candidate with the incumbent, and which it has yet to look at.

Every request that was looked at is a row, whether it counted or not. So a process that was killed loses none and counts none
twice, whatever the order in which requests become complete.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, func, insert, or_, select

from deployments.ledger.rows import Row
from deployments.ledger.schema import fills, grades, run_pairs

LONGEST_WAIT_S = 86_400.0  # a request that was drawn so long before a stage began is not looked at in it


@dataclass(frozen=True, slots=True)
class Compared:
    """One drawn request that was looked at."""

    trace_id: str
    stage: str
    conversation: str
    """the trace's id where it belongs to none"""
    d: float | None
    """the candidate's score less the incumbent's, in [-1, 1]; None: it does not count"""
    chance: float = 1.0
    """with which the request was drawn, in (0, 1]"""
    candidate_usd: float = 0.0
    incumbent_usd: float = 0.0
    why: str = ""
    """why it does not count"""


def waiting(
    connection: Connection, run_id: str, since_s: float, limit: int, names: Sequence[str] = (), before_s: float = 0.0
) -> list[str]:
    """Traces that were graded since then and that the run has not looked at, those graded first come first.

    names: tiers, or their variants, of each of which an answer has to be graded, unless the request was graded before `before_s`.
    """
    looked_at = and_(run_pairs.c.run_id == run_id, run_pairs.c.trace_id == fills.c.trace_id)
    found = (
        select(fills.c.trace_id)
        .outerjoin(run_pairs, looked_at)
        .where(fills.c.state == "done", fills.c.drawn_s >= since_s - LONGEST_WAIT_S, fills.c.changed_s > since_s)
        .where(run_pairs.c.trace_id.is_(None))
        .order_by(fills.c.changed_s, fills.c.trace_id)
        .limit(limit)
    )
    if names:
        own = grades.c.trace_id == fills.c.trace_id
        graded = select(func.count(grades.c.tier.distinct())).where(own, grades.c.tier.in_(names)).scalar_subquery()
        found = found.where(or_(graded == len(names), fills.c.changed_s < before_s))
    return list(connection.execute(found).scalars())


def known(connection: Connection, run_id: str, conversations: Iterable[str]) -> set[str]:
    """Those of these conversations that count in the run already."""
    counted = select(run_pairs.c.conversation).where(run_pairs.c.run_id == run_id, run_pairs.c.d.is_not(None))
    return set(connection.execute(counted.where(run_pairs.c.conversation.in_(list(conversations)))).scalars())


def add(connection: Connection, run_id: str, added: Sequence[Compared], now_s: float) -> None:
    """Only in the transaction of an event of the run, whose number keeps other processes out."""
    if not added:
        return
    before = connection.execute(select(func.count()).where(run_pairs.c.run_id == run_id)).scalar_one()
    values: list[Row] = [
        {
            "run_id": run_id,
            "trace_id": pair.trace_id,
            "number": number,
            "stage": pair.stage,
            "conversation": pair.conversation[:64],
            "d": pair.d,
            "chance": pair.chance,
            "candidate_usd": pair.candidate_usd,
            "incumbent_usd": pair.incumbent_usd,
            "why": pair.why,
            "at_s": now_s,
        }
        for number, pair in enumerate(added, before)
    ]
    connection.execute(insert(run_pairs), values)


def listed(connection: Connection, run_id: str, stages: Sequence[str] = ()) -> list[Compared]:
    """All that a run has looked at, in that order; only those of these stages, if any are given."""
    names = ("trace_id", "stage", "conversation", "d", "chance", "candidate_usd", "incumbent_usd", "why")
    found = select(*(run_pairs.c[name] for name in names)).where(run_pairs.c.run_id == run_id).order_by(run_pairs.c.number)
    if stages:
        found = found.where(run_pairs.c.stage.in_(stages))
    return [Compared(*row) for row in connection.execute(found)]
