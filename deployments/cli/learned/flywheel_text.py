"""The flywheel's figures as text for a terminal."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from deployments.cli.shared import aligned

if TYPE_CHECKING:
    from deployments.learning.steps.work import Looked

SHORT = 12  # characters of a digest


def minute(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S}"


def said(found: "Looked") -> str:
    """One step in one line, and how to go on where a person is waited for."""
    if not found.run_id:
        return found.why or found.what
    on = f"\nlet it go on: stepdown flywheel promote {found.run_id}" if found.stage == "waiting" else ""
    return f"{found.run_id} {found.stage}: {found.why or found.what}{on}"


def status_text(found: Mapping[str, Any]) -> str:
    return "\n".join(lines(found))


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    counts, run = found["counts"], found["run"]
    yield f"collecting: {found['collect']}; runs begin: {found['start']}"
    yield (
        f"kept {counts['kept']:,} requests, drawn {counts['drawn']:,}, filled in {counts['filled']:,}, "
        f"complete {counts['complete']:,}; cost {counts['fill_usd']:.4f} USD to fill in, {counts['judge_usd']:.4f} USD to judge"
    )
    yield found["progress"]["text"]
    if run:
        yield f"{run['id']}: {run['stage']} since {minute(run['since_s'])}, begun by {run['started_by']}; {run['why']}"
        yield from (f"  {step['why']}" for step in run.get("steps") or () if run["stage"] == "training")
    scheduler = found["scheduler"]
    yield f"run by {scheduler['holder']}" if scheduler else "no process runs the flywheel now: `stepdown flywheel run` or `watch`"
    for slot, bundle in sorted(found["bundles"].items()):
        share = f" for {bundle['share']:.0%} of the conversations" if slot == "canary" else ""
        what = bundle["digest"][:SHORT] or "the configured router, or none"
        yield f"{slot}: {what}{share} since {minute(bundle['since_s'])} ({bundle['run_id'] or 'by hand'}, {bundle['by']})"
    for one in found["promotions"]:
        saved = one["saved"]
        share = "-" if saved["saved_share"] is None else f"{saved['saved_share']:.0%}"
        yield (
            f"{one['run_id']} promoted {minute(one['at_s'])}: saved {saved['saved_usd']:.4f} USD ({share}) on "
            f"{saved['requests']:,} requests, audits and learning taken off"
        )
    yield from (generation_line(one) for one in found.get("generations") or ())
    past = [one for one in found["runs"] if one["ended_s"] is not None]
    yield from (f"{one['id']} {one['stage']} {minute(one['ended_s'])}: {one['why']}" for one in past)


def generation_line(one: Mapping[str, Any]) -> str:
    """`small 3f2a9c41e0d2 promoted 2026-...: all 0.616 -> 0.783; made for 0.0421 USD in 62 s; saves 1.2000 USD a day`."""
    found = (one.get("learned") or {}).get("all")
    learned = f"{found['before']:.3f} -> {found['after']:.3f}" if found else "not measured"
    saves = one.get("saves_usd_day")
    return (
        f"{one['tier']} {one['digest'][:SHORT]} {one['state']} (made {minute(one['made_s'])} by {one['run_id']}): "
        f"score {learned}; "
        f"made for {one.get('cost_usd') or 0.0:.4f} USD in {one.get('seconds') or 0.0:.0f} s"
        + (f"; saves {saves:.4f} USD a day" if saves is not None else "")
    )


def event_lines(run: Mapping[str, Any]) -> Iterator[str]:
    """A run and its events, one a line."""
    candidate, incumbent = run["candidate"][:SHORT] or "none yet", run["incumbent"][:SHORT] or "the largest tier"
    student = (run.get("settings") or {}).get("student")
    kind = f"student {student['tier']} from {student['teacher']}" if student else run["kind"]
    yield f"{run['id']} {kind}: {candidate} beside {incumbent}, begun by {run['started_by']}"
    rows = [(str(e["number"]), minute(e["at_s"]), e["stage"], e["what"], e["by"], numbers(e["numbers"])) for e in run["events"]]
    yield from (f"  {line.rstrip()}" for line in aligned([("", "WHEN (UTC)", "STAGE", "EVENT", "BY", "FOUND"), *rows]))


def numbers(found: Mapping[str, Any]) -> str:
    """What an event says: its reason, else its figures."""
    plain = [f"{name} {value}" for name, value in found.items() if isinstance(value, int | float | str) and name != "why"]
    return str(found.get("why") or ", ".join(plain))
