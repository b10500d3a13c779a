"""stepdown flywheel: makes routers and better tiers from the log, tries and promotes them, whether or not the server runs."""

import getpass
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
from sqlalchemy.exc import SQLAlchemyError

from deployments.cli.certificates import ledger_of
from deployments.cli.learned.flywheel_text import event_lines, said, status_text
from deployments.cli.learned.student_options import STUDENT, TEACHER, check_under_way, student_of, wishes, workloads
from deployments.cli.shared import AS_JSON, LADDER, show
from deployments.ledger.database import driver_message
from router.config import load_config
from router.errors import BadInput

if TYPE_CHECKING:
    from deployments.learning.flywheel import Flywheel
    from deployments.learning.steps.work import Looked
    from deployments.learning.student.asked import StudentAsked

# Inside the commands: what loads numpy and the classifiers.

DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
SECONDS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
FAILED = 3  # exit code: a gate failed, or there is no result
HELD = 4  # exit code: another process runs the flywheel
LOOK_S = 0.5  # between two looks at another's lease


@click.group()
def flywheel() -> None:
    """Learn from the log, a router or a tier with its router: train, certify, compare on live traffic, promote, watch, roll back.

    A run goes through the stages training, shadow, waiting, canary and promoted. It may be stopped at any time: what it found
    is in the ledger's database, and the next `run` or `watch` goes on with it.
    """


@flywheel.command()
@LADDER
@click.option("--only", default=None, metavar="router", help="Learn a router alone.  [default, without --student]")
@STUDENT
@TEACHER
@click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="The student learns from such requests; may be repeated.")
@wishes
@click.option("--promote", is_flag=True, help="Go on after the shadow: canary, promotion, and watching it to the end.")
@click.option("--once", is_flag=True, help="Do what can be done now, wait for no requests, and end; for cron.")
@AS_JSON
@click.pass_context
def run(
    ctx: click.Context,
    config: str,
    only: str | None,
    student: str | None,
    teacher: str | None,
    metadata: tuple[str, ...],
    adopt: str,
    tokens: int | None,
    lora: bool | None,
    promote: bool,
    once: bool,
    as_json: bool,
) -> None:
    """Begin a run now, or go on with the one under way: for a router, or with --student for a tier that learns from a larger one
    and the router that fits it.

    It stops before the canary, unless --promote is given or flywheel.promote is auto. Exit code 3: a gate failed or nothing was
    decided; 4: another process runs the flywheel.
    """
    asked = student_of(load_config(config), only, student, teacher, metadata, adopt=adopt, tokens=tokens, lora=lora)
    one = opened(ctx, config, promote or None)
    one.work.told = lambda text: progress(text, as_json)
    try:
        check_under_way(one, asked)
        found = driven(one, once, lambda text: progress(text, as_json), asked)
    finally:
        one.close()
    progress("", as_json)
    show({"run": found.run_id, "stage": found.stage, "what": found.what, "why": found.why}, said(found), as_json)
    if found.stage in ("refused", "undecided", "failed", "rolled back", "collecting"):
        ctx.exit(FAILED)


@flywheel.command()
@LADDER
@click.option("--every", default="7d", show_default=True, help="Begin a run at least so often, if enough is new.")
@STUDENT
@TEACHER
@click.option("--metadata", multiple=True, metavar="NAME=VALUE[,...]", help="One workload of the student; each has its turn.")
@click.option("--promote", is_flag=True, help="Go on after the shadow without waiting for `promote`.")
@click.pass_context
def watch(
    ctx: click.Context,
    config: str,
    every: str,
    student: str | None,
    teacher: str | None,
    metadata: tuple[str, ...],
    promote: bool,
) -> None:
    """Run the flywheel until it is stopped: begin runs where they are due, and take every run to its end.

    With --student the tier learns at these intervals, one workload after the other, and a router alone is made where the one in
    use has broken its promise. The server makes routers by itself where learning.start is auto. Exit code 4: another process runs
    the flywheel.
    """
    from deployments.learning.process import turn

    every_s, students = seconds_of(every), workloads(load_config(config), student, teacher, metadata)
    one = opened(ctx, config, promote or None)
    try:
        turn(one, threading.Event().wait, every_s, students)
    except KeyboardInterrupt:
        click.echo("stopped; what was found is kept", err=True)
    finally:
        one.close()


@flywheel.command()
@LADDER
@AS_JSON
def status(config: str, as_json: bool) -> None:
    """Show how far learning is, what it would save, and why it does not yet."""
    from deployments.learning.status import status as read

    found = read(ledger_of(config), load_config(config), time.time())
    show(found, status_text(found), as_json)


@flywheel.command()
@click.argument("run", required=False)
@LADDER
@AS_JSON
def history(run: str | None, config: str, as_json: bool) -> None:
    """Show every event of all runs, or of one RUN: what was looked at, when, by whom, and what was decided."""
    from deployments.learning import runs

    with ledger_of(config).connect() as connection:
        found = runs.listed(connection, 1_000)[::-1]
        if run is not None and not any(one.id == run for one in found):
            raise BadInput(f"no run {run!r}; there are: {', '.join(one.id for one in found) or 'none yet'}")
        chosen = [one for one in found if run in (None, one.id)]
        shown = [{**one.as_json(), "events": [event.as_json() for event in runs.events(connection, one.id)]} for one in chosen]
    text = "\n".join(line for one in shown for line in event_lines(one)) or "no run has begun yet"
    show(shown, text, as_json)


@flywheel.command()
@click.argument("run")
@LADDER
def promote(run: str, config: str) -> None:
    """Let a RUN that has passed its shadow go on: first a share of the conversations gets it, then everybody."""
    from deployments.learning.steps import by_hand

    by_hand.promote(ledger_of(config), run, person(), time.time())
    if who := begun_at_once(config):
        click.echo(f"{run} goes on at the next look of {who}")
    else:
        click.echo(f"{run} is a canary now; `stepdown flywheel watch` or `run --promote` has to run, to look after it")


@flywheel.command()
@LADDER
def rollback(config: str) -> None:
    """Give up the run under way, or take back what was promoted last. Every ingress does so within seconds."""
    from deployments.learning.steps import by_hand

    run, digest = by_hand.rollback(ledger_of(config), load_config(config), person(), time.time())
    decides = f"the router {digest[:12]}" if digest else "the largest tier"
    click.echo(f"{run.id} is taken back; within seconds `auto` goes by {decides}")


# -- running ---------------------------------------------------------------------------------------------------------------


def opened(ctx: click.Context, config: str, promote: bool | None) -> "Flywheel":
    """The flywheel, whose lease this process has. Ends the command with code HELD where another has it."""
    from deployments.learning.flywheel import HeldElsewhere
    from deployments.learning.process import flywheel as made

    loaded = load_config(config)
    ledger_of(config).dispose()  # says in words what is wrong with the database
    one = made(loaded, promote=promote)
    try:
        claim(one)
    except HeldElsewhere as error:
        click.echo(f"stepdown: {error}", err=True)
        ctx.exit(HELD)
    return one


def claim(one: "Flywheel") -> None:
    """Take the lease. A process that died holds it for a few seconds: one that lives renews it. Raises HeldElsewhere."""
    from deployments.learning.flywheel import HeldElsewhere

    seen: tuple[str, float] | None = None
    while True:
        try:
            return one.claim()
        except HeldElsewhere as error:
            if seen is not None and (error.holder, error.until_s) != seen:
                raise
            seen = (error.holder, error.until_s)
            time.sleep(LOOK_S)


def driven(one: "Flywheel", once: bool, say: Callable[[str], None], student: "StudentAsked | None" = None) -> "Looked":
    """Step by step, to where the command ends. Returns the last step's result. Raises BadInput where the database is away."""
    from deployments.learning.process import pause_of
    from router.flywheel.stages import ENDS

    asked, run_id = person(), ""
    while True:
        try:
            found = one.advance("" if run_id else asked, student=student)
        except SQLAlchemyError as error:
            raise BadInput(f"the ledger's database does not answer: {driver_message(error)}; run it again to go on") from None
        run_id = run_id or found.run_id
        say(said(found))
        if found.stage in ENDS or (found.stage == "waiting" and not one.auto):
            return found
        if not found.did and (not found.run_id or (once and found.what != "waited")):
            return found
        time.sleep(pause_of(found))


def begun_at_once(config: str) -> str:
    """Do what was asked for now, where no other process does. Returns who does it; empty: this one has."""
    from deployments.learning.flywheel import HeldElsewhere
    from deployments.learning.process import flywheel as made

    one = made(load_config(config), by=person())
    try:
        one.advance()
    except HeldElsewhere as error:
        return error.holder
    one.close()
    return ""


def person() -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in some containers
        name = "somebody"
    return f"{name}@{socket.gethostname()}"[:128]


def seconds_of(text: str) -> float:
    """`7d` -> 604800. Raises BadInput."""
    found = DURATION.fullmatch(text)
    if found is None or float(found[1]) <= 0:
        raise BadInput(f"--every {text!r}: expected a duration such as 12h, 7d or 2w")
    return float(found[1]) * SECONDS[found[2]]


def progress(text: str, as_json: bool) -> None:
    """One line that is written over in a terminal; elsewhere nothing, since only the end matters there."""
    if not as_json and sys.stderr.isatty():
        click.echo(f"\r\x1b[K{text[:200]}", err=True, nl=False)
