"""Where learning stands, for /v1/status, `stepdown flywheel status` and the cost page. Plain JSON."""

from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import Any

from sqlalchemy import Connection, Engine, func, select

from deployments.learning import runs
from deployments.learning.kept import served_rows
from deployments.learning.lease import read as read_lease
from deployments.learning.live import bundles
from deployments.learning.live.bundles import Bundle
from deployments.learning.runs import Event, Run
from deployments.learning.steps import live_counts
from deployments.learning.steps.work import settings_of
from deployments.learning.student.generations import generations, weights_in_use
from deployments.ledger.schema import ANSWERS, completions, run_events
from router.config import Config
from router.costs.machine_time import DAY_S
from router.flywheel.progress import LogFigures, Progress, Saving, played_saving, progress, saving_of
from router.flywheel.stages import RunState, state_of
from router.flywheel.variants import names_on

LAST_RUNS = 10
SAVING_ROWS = 200  # newest drawn requests, from which is told what could be saved
SAVING_S = 7 * DAY_S


def status(engine: Engine, config: Config, now_s: float) -> dict[str, Any]:
    """Raises the database's errors."""
    with engine.connect() as connection:
        names = names_on(tuple(config.names), weights_in_use(connection))
        counts = served_rows.counts(connection, oldest_s(config, now_s), names)
        last = runs.listed(connection, LAST_RUNS)
        run = next((one for one in last[:1] if not one.closed), None)
        events = runs.events(connection, run.id) if run else []
        state = state_of(events, settings_of(run).margin) if run else None
        log = log_figures(connection, config, counts, now_s, names)
        found = progress(config, log, state, saving(connection, config, state, now_s), now_s, reader_zone())
        slots = bundles.read(connection)
        holder = read_lease(connection, "flywheel")
        return {
            "collect": config.learning.collect,
            "start": config.learning.start,
            "counts": counts,
            "progress": found.as_json(),
            "run": shown_run(run, state, events, found) if run and state else None,
            "runs": shown_past(connection, last),
            "bundles": {slot: shown_bundle(one) for slot, one in slots.items()},
            "promotions": promotions(connection, now_s),
            "generations": generations(connection),
            "scheduler": {"holder": holder[0], "until_s": holder[1]} if holder and holder[1] > now_s else None,
        }


def oldest_s(config: Config, now_s: float) -> float:
    """Since when requests are kept."""
    days = config.learning.keep_days
    return 0.0 if days is None else now_s - days * DAY_S


def reader_zone() -> tzinfo:
    """This machine's."""
    zone = datetime.now().astimezone().tzinfo
    assert zone is not None
    return zone


# -- how far ---------------------------------------------------------------------------------------------------------------


def log_figures(connection: Connection, config: Config, counts: dict[str, Any], now_s: float, names: Sequence[str]) -> LogFigures:
    """names: the tiers by the names of the weights in use."""
    first = select(func.min(completions.c.created_s)).where(ANSWERS, completions.c.created_s >= oldest_s(config, now_s))
    midnight_s = now_s - now_s % DAY_S
    return LogFigures(
        kept=counts["kept"],
        drawn=counts["drawn"],
        waiting=counts["waiting"],
        complete=counts["complete"],
        ungraded=max(0, counts["filled"] - counts["complete"]),
        complete_day=connection.scalar(served_rows.complete(now_s - DAY_S, names)) or 0,
        first_s=connection.scalar(first),
        spent_usd_day=sum(served_rows.spent(connection, midnight_s, role) for role in ("fill", "judge")),
    )


def saving(connection: Connection, config: Config, state: RunState | None, now_s: float) -> Saving | None:
    """What the candidate saves where it was played, else what could be saved at most."""
    if state is not None and (found := played_saving(state)) is not None:
        return found
    rows = served_rows.read(connection, now_s - SAVING_S, now_s, drawn_only=True, limit=SAVING_ROWS)
    return saving_of(rows, config.names)


# -- runs ------------------------------------------------------------------------------------------------------------------


def shown_run(run: Run, state: RunState, events: Sequence[Event], found: Progress) -> dict[str, Any]:
    """The run under way."""
    tally = state.tally
    return {
        **run.as_json(),
        "since_s": state.since_s,
        "pairs": tally.pairs,
        "graded": tally.decided,
        "needed": found.needed,
        "wealth": tally.not_worse.wealth,
        "wealth_against": tally.worse.peak,
        "mean_difference": tally.not_worse.mean_d,
        "lost": tally.lost,
        "won": tally.won,
        "saving": tally.saving,
        "candidate_usd": tally.candidate_usd,
        "incumbent_usd": tally.incumbent_usd,
        "top_usd": tally.top_usd,
        "counts": state.latest.get("counts"),
        "why": state.latest.get("why", ""),
        "last_event": events[-1].as_json() if events else None,
        "gates": next((event.numbers.get("gates") for event in events if event.what == "trained"), None),
        "steps": [step_of(event) for event in events if event.what in ("step", "progress")],
    }


def step_of(event: Event) -> dict[str, Any]:
    """A step of a training that is done, or how far it is."""
    known = {name: event.numbers.get(name) for name in ("step", "share", "why")}
    return {**known, "at_s": event.at_s, "done": event.what == "step"}


def shown_past(connection: Connection, listed: Sequence[Run]) -> list[dict[str, Any]]:
    """Runs with their gates and their last word."""
    found: dict[str, dict[str, Any]] = {}
    for run in listed:
        plain = {name: value for name, value in run.as_json().items() if name != "settings"}
        found[run.id] = {**plain, "pairs": run.settings.get("pairs"), "why": "", "gates": None}
        last = runs.last_event(connection, run.id)
        found[run.id]["why"] = last.numbers.get("why", "") if last else ""
        for event in runs.events(connection, run.id, ("trained", "refused")):
            found[run.id]["gates"] = event.numbers.get("gates") or found[run.id]["gates"]
    return list(found.values())


def shown_bundle(bundle: Bundle) -> dict[str, Any]:
    return {name: getattr(bundle, name) for name in ("digest", "run_id", "share", "since_s", "over", "by")}


# -- savings ---------------------------------------------------------------------------------------------------------------


def promotions(connection: Connection, now_s: float) -> list[dict[str, Any]]:
    """Each promotion, the last one first, with what was saved while it decided."""
    changed = (
        select(run_events.c.run_id, run_events.c.at_s, run_events.c.what, run_events.c.by)
        .where(run_events.c.what.in_(("promoted", "rolled back")))
        .order_by(run_events.c.at_s)
    )
    rows = connection.execute(changed).all()
    ends = [*(row.at_s for row in rows[1:]), now_s][: len(rows)]
    found = [
        {
            "run_id": row.run_id,
            "at_s": row.at_s,
            "until_s": until_s,
            "by": row.by,
            "saved": live_counts.saved(connection, row.at_s, until_s).as_json(),
        }
        for row, until_s in zip(rows, ends, strict=True)
        if row.what == "promoted"
    ]
    return found[::-1][:LAST_RUNS]
