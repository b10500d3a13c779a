"""What is kept, in numbers and in its last rows; and which learned artefacts were made from it."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, Select, case, func, select

from deployments.ids import REPLY
from deployments.learning.kept.completion_store import forget
from deployments.learning.kept.completions import BATCH, Chosen, by_metadata, by_time, find, page, trace_of
from deployments.ledger.database import writing
from deployments.ledger.rows import Row
from deployments.ledger.schema import bundles, completions, feedback, grades, model_rows, models

SHORT = 60  # characters of a prompt and of an answer in the list of the last ones


# -- numbers ---------------------------------------------------------------------------------------------------------------


def report(connection: Connection, chosen: Chosen, last: int) -> Row:
    """Rows by tier and role, grades, consent, licences, feedback, and the last requests in short."""
    found = rows_by(connection, chosen)
    by: dict[tuple[str, str], int] = Counter()
    consent: Counter[str] = Counter()
    licences: Counter[str] = Counter()
    for tier, role, consented, licence, n in found:
        by[tier, role] += n
        licences[licence or "unknown"] += n
        if role == "answer":
            consent[consented] += n
    return {
        "requests": sum(n for (_, role), n in by.items() if role == "answer"),
        "rows": [{"tier": tier, "role": role, "rows": n} for (tier, role), n in sorted(by.items())],
        "consent": dict(consent),
        "licences": dict(licences),
        "grades": graded(connection, chosen),
        "feedback": told(connection, chosen),
        "last": latest(connection, chosen, last),
    }


def rows_by(connection: Connection, chosen: Chosen) -> Sequence[Any]:
    """(tier, role, consent, licence, number of rows)."""
    rows = completions.alias("counted").c  # the chosen answers are of the same table
    groups = (rows.tier, rows.role, rows.consent, rows.licence)
    query = select(*groups, func.count()).group_by(*groups)
    return connection.execute(only(query, rows.trace_id, connection, chosen)).all()


def graded(connection: Connection, chosen: Chosen) -> list[Row]:
    """By source and tier: answers that were looked at, those with a score, and failures among them: a score below 1."""
    g = grades.c
    failed = func.sum(case((g.score < 1, 1), else_=0))
    query = select(g.source, g.tier, func.count(), func.count(g.score), failed).group_by(g.source, g.tier)
    rows = connection.execute(only(query, g.trace_id, connection, chosen).order_by(g.source, g.tier))
    return [dict(zip(("source", "tier", "answers", "scored", "failures"), row, strict=True)) for row in rows]


def told(connection: Connection, chosen: Chosen) -> Row:
    """How much feedback there is, and how much of it says that the answer was not right."""
    f = feedback.c
    failed = func.sum(case((f.score < 1, 1), else_=0))
    query = select(func.count(), func.count(f.score), failed, func.count(f.correction))
    row = connection.execute(only(query, f.trace_id, connection, chosen)).one()
    return dict(zip(("given", "scored", "failures", "corrections"), (n or 0 for n in row), strict=True))


def only(query: Select[Any], trace_id: Any, connection: Connection, chosen: Chosen) -> Select[Any]:
    """The query over the rows of the chosen requests."""
    if chosen == Chosen():
        return query
    if chosen.ids:
        return query.where(trace_id.in_([trace_of(id) for _, id in page(connection, chosen, len(chosen.ids))]))
    at, id, answers = (by_metadata if chosen.metadata else by_time)(connection, chosen)
    answers = answers.where(at >= chosen.since_s, at < chosen.until_s)
    return query.where(trace_id.in_(answers.with_only_columns(func.substr(id, len(REPLY) + 1))))


def latest(connection: Connection, chosen: Chosen, most: int) -> list[Row]:
    """The last requests, the latest first, each in a few words."""
    places = page(connection, chosen, most, newest_first=True) if most else []
    rows = [find(connection, id, None, without=("signals", "sampling", "tools")) for _, id in places]
    return [in_short(row) for row in rows if row is not None]


def in_short(row: Row) -> Row:
    names = ("id", "key_id", "created_s", "wanted", "tier", "finish", "input_tokens", "output_tokens", "cost_usd", "consent")
    messages, answer = json.loads(row["messages"] or "[]"), json.loads(row["answer"])
    asked = next((m.get("content") for m in reversed(messages) if m.get("role") == "user"), "")
    return {name: row[name] for name in names} | {
        "metadata": json.loads(row["metadata"] or "{}"),
        "prompt": shortened(asked),
        "answer": shortened(answer.get("content") or ("calls a tool" if answer.get("tool_calls") else "")),
    }


def shortened(content: Any) -> str:
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    line = " ".join(text[: 4 * SHORT].split())
    return line if len(line) <= SHORT else line[: SHORT - 1] + "…"


# -- forgetting ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Forgotten:
    """What a deletion is about, or did."""

    requests: int = 0
    answers: int = 0
    """rows of all roles that were deleted"""
    made: Counter[str] = field(default_factory=Counter)
    """digest of an artefact -> how many of these requests it was made from"""


def about(engine: Engine, chosen: Chosen) -> Forgotten:
    """What would be forgotten. Reads a batch at a time."""
    found = Forgotten()
    for ids in batches(engine, chosen):
        with engine.connect() as connection:
            found.made.update(made_from(connection, ids))
        found.requests += len(ids)
    return found


def batches(engine: Engine, chosen: Chosen) -> Iterator[list[str]]:
    """Trace ids. Every batch is read in a connection of its own, so that what follows may write."""
    after = None
    while True:
        with engine.connect() as connection:
            places = page(connection, chosen, BATCH, after)
        if not places:
            return
        yield [trace_of(id) for _, id in places]
        after = places[-1]


def forget_all(engine: Engine, chosen: Chosen) -> Forgotten:
    """Delete the chosen requests, a batch in each transaction, so that others can write meanwhile."""
    done = Forgotten()
    for ids in batches(engine, chosen):
        with writing(engine) as connection:
            done.made.update(made_from(connection, ids))
            done.answers += forget(connection, ids)
        done.requests += len(ids)
    if engine.dialect.name == "sqlite" and done.requests:
        give_back(engine)
    return done


def made_from(connection: Connection, trace_ids: Iterable[str]) -> Mapping[str, int]:
    """Digest of each artefact that was made from one of these requests -> from how many of them."""
    rows = model_rows.c
    query = select(rows.digest, func.count()).where(rows.trace_id.in_(list(trace_ids))).group_by(rows.digest)
    return {digest: int(n) for digest, n in connection.execute(query)}


def artefacts(connection: Connection, made: Mapping[str, int]) -> list[Row]:
    """The artefacts with their origin and where they are in use, those with most of the requests first."""
    known = {row["digest"]: row for row in connection.execute(select(models).where(models.c.digest.in_(list(made)))).mappings()}
    slots: dict[str, list[str]] = {}
    for slot, digest in connection.execute(select(bundles.c.slot, bundles.c.digest)):
        slots.setdefault(digest, []).append(slot)
    found = []
    for digest, n in sorted(made.items(), key=lambda pair: (-pair[1], pair[0])):
        row = known.get(digest)
        origin = {name: row[name] if row else None for name in ("kind", "run_id", "method", "made_s")}
        found.append({"digest": digest, "requests": n, **origin, "in_use": sorted(slots.get(digest, []))})
    return found


def give_back(engine: Engine) -> None:
    """SQLite: write the deletions from its log into the file, and shrink that. A reader in the way only delays it."""
    connection = engine.raw_connection()  # outside of any transaction, within which a checkpoint is refused
    try:
        for pragma in ("incremental_vacuum", "wal_checkpoint(TRUNCATE)"):
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA {pragma}")
            cursor.fetchall()
    finally:
        connection.close()
