"""Runs of the flywheel and their events. Events are numbered 0, 1, 2, ... within their run and are only ever added.

The numbers are what keeps two processes apart: a process that decides by the events 0 to 7 can only write event 8, and fails
where another has written it since. What belongs to an event is written in its transaction.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Insert, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from deployments.ledger.rows import Row
from deployments.ledger.schema import run_events, runs
from router.errors import StepdownError
from router.flywheel.stages import ENDS


class WrittenMeanwhile(StepdownError):
    """Another process wrote to the run; what was decided without knowing it is void."""

    code = "written_meanwhile"


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a run's history."""

    run_id: str
    number: int
    at_s: float
    stage: str
    """in which the run is from now on"""
    what: str
    """began, looked, passed, refused, promoted, rolled back, ..."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    by: str = ""

    def as_json(self) -> dict[str, Any]:
        names = ("run_id", "number", "at_s", "stage", "what", "by")
        return {**{name: getattr(self, name) for name in names}, "numbers": dict(self.numbers)}


@dataclass(frozen=True, slots=True)
class Run:
    """A row of `runs`: its columns say what each means."""

    id: str
    kind: str
    began_s: float
    ended_s: float | None
    stage: str
    candidate: str
    incumbent: str
    started_by: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def closed(self) -> bool:
        return self.stage in ENDS

    def as_json(self) -> dict[str, Any]:
        names = ("id", "kind", "began_s", "ended_s", "stage", "candidate", "incumbent", "started_by")
        return {**{name: getattr(self, name) for name in names}, "settings": dict(self.settings)}


def begin(
    connection: Connection,
    *,
    kind: str,
    incumbent: str,
    by: str,
    settings: Mapping[str, Any],
    now_s: float,
    stage: str,
    numbers: Mapping[str, Any] | None = None,
) -> Run:
    """Begin a run with its event 0. Runs are called run-1, run-2, ... Raises WrittenMeanwhile where one is under way."""
    if (before := latest(connection)) and not before.closed:
        raise WrittenMeanwhile(f"{before.id} is under way since; `stepdown flywheel status` shows it")
    number = 1 + int(connection.execute(select(func.count()).select_from(runs)).scalar_one())
    run = Run(f"run-{number}", kind, now_s, None, stage, "", incumbent, by[:128], settings)
    write(connection, insert(runs).values({**run.as_json(), "settings": json.dumps(dict(settings))}), run.id)
    add(connection, Event(run.id, 0, now_s, stage, "began", numbers or {}, by))
    return run


def event(
    connection: Connection,
    run: Run,
    number: int,
    *,
    stage: str,
    what: str,
    by: str,
    now_s: float,
    numbers: Mapping[str, Any] | None = None,
    candidate: str | None = None,
) -> Event:
    """Add the run's event `number`, by which the run is in `stage`. Raises WrittenMeanwhile where it is there, or one is missing.

    candidate: digest of the artefact that the run has made, where it has just done so.
    """
    if number != (found := count(connection, run.id)):
        raise WrittenMeanwhile(f"{run.id} has {found} events, expected {number}: another process went on with it")
    added = Event(run.id, number, now_s, stage, what, numbers or {}, by)
    add(connection, added)
    values: Row = {"stage": stage, "ended_s": now_s if stage in ENDS else None}
    if candidate is not None:
        values["candidate"] = candidate
    connection.execute(update(runs).where(runs.c.id == run.id).values(values))
    return added


def add(connection: Connection, added: Event) -> None:
    values = {**added.as_json(), "what": added.what[:64], "by": added.by[:128], "numbers": json.dumps(dict(added.numbers))}
    write(connection, insert(run_events).values(values), f"event {added.number} of {added.run_id}")


def write(connection: Connection, statement: Insert, what: str) -> None:
    try:
        with connection.begin_nested():
            connection.execute(statement)
    except IntegrityError as error:
        raise WrittenMeanwhile(f"{what} was written by another process") from error


def count(connection: Connection, run_id: str) -> int:
    """How many events a run has, which is the next one's number."""
    return int(connection.execute(select(func.count()).where(run_events.c.run_id == run_id)).scalar_one())


def events(connection: Connection, run_id: str, what: Sequence[str] = ()) -> list[Event]:
    """A run's events, the first one first; only those of these kinds, if any are given."""
    found = select(run_events).where(run_events.c.run_id == run_id).order_by(run_events.c.number)
    if what:
        found = found.where(run_events.c.what.in_(what))
    return [as_event(dict(row)) for row in connection.execute(found).mappings()]


def last_event(connection: Connection, run_id: str) -> Event | None:
    newest = select(run_events).where(run_events.c.run_id == run_id).order_by(run_events.c.number.desc()).limit(1)
    row = connection.execute(newest).mappings().first()
    return None if row is None else as_event(dict(row))


def latest(connection: Connection) -> Run | None:
    """The run that began last, whether it is under way or has ended."""
    return next(iter(listed(connection, limit=1)), None)


def one(connection: Connection, run_id: str) -> Run | None:
    row = connection.execute(select(runs).where(runs.c.id == run_id)).mappings().first()
    return None if row is None else as_run(dict(row))


def listed(connection: Connection, limit: int = 20) -> list[Run]:
    """Runs, the last begun first."""
    found = connection.execute(select(runs).order_by(runs.c.began_s.desc(), runs.c.id.desc()).limit(limit)).mappings()
    return [as_run(dict(row)) for row in found]


def as_event(row: Row) -> Event:
    return Event(**{**row, "numbers": as_numbers(row["numbers"])})


def as_numbers(text: str) -> dict[str, Any]:
    """A row's column `numbers`."""
    return dict(json.loads(text))


def as_run(row: Row) -> Run:
    return Run(**{**row, "settings": json.loads(row["settings"])})
