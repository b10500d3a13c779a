"""The flywheel as a process of its own: `python -m deployments.learning.process [CONFIG]`, started by the server where
learning.start is auto.

Without an argument the first line of its standard input holds the configuration as JSON, or the name of its file. It ends when
its standard input does, so that it never outlives the server, whatever that dies of. Of several such processes one works, and
the others wait to take over.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from sqlalchemy.exc import SQLAlchemyError

from deployments.learning.flywheel import Flywheel, HeldElsewhere
from deployments.learning.live.model_store import cache
from deployments.learning.steps.work import PACE_S, Looked
from deployments.learning.student.asked import StudentAsked
from deployments.ledger.database import connect, driver_message, migrate
from deployments.tiers.fingerprints import ladder_fingerprints
from router.config import Config, load_config
from router.errors import StepdownError

log = logging.getLogger("stepdown.flywheel")
BUSY_S = 2.0  # until the next step while a run is under way
AWAY_S = 30.0  # until the next try after an error
END_S = 5.0  # for the step under way when the input has ended; then the process ends in the middle of it
UNDER_WAY = ("training", "shadow", "waiting", "canary", "promoted")


def configuration(arguments: Sequence[str], lines: TextIO) -> Config:
    """Raises BadConfig."""
    given = arguments[0] if arguments else lines.readline().strip()
    return Config.model_validate_json(given) if given.startswith("{") else load_config(given)


def flywheel(config: Config, by: str = "", promote: bool | None = None) -> Flywheel:
    """The flywheel of a configuration, with the ledger's tables up to date. Raises BadConfig, and the database's errors."""
    engine = connect(config.ledger)
    migrate(engine)
    return Flywheel(config, engine, ladder_fingerprints(config), cache(), by=by, promote=promote)


def turn(
    one: Flywheel, wait: Callable[[float], bool], every_s: float | None = None, students: Sequence[StudentAsked | None] = (None,)
) -> None:
    """Do one step after the other until `wait`, which gets the seconds until the next one, says that it is over.

    students: for which runs begin, each in its turn; None: for a router alone, beside students only where it has to be.
    """
    said, pause_s, at = "", 0.0, 0
    while not wait(pause_s):
        student = students[at % len(students)]
        try:
            found = one.advance(every_s=every_s if student or len(students) == 1 else None, student=student)
            at += not found.did and not found.run_id
            line, pause_s = told(found), pause_of(found)
        except HeldElsewhere as error:
            line, pause_s = f"waits: {error.holder} runs the flywheel", PACE_S
        except SQLAlchemyError as error:
            line, pause_s = f"the ledger's database does not answer: {driver_message(error)}", AWAY_S
        except StepdownError as error:
            line, pause_s = f"waits: {error}", AWAY_S
        if line != said:
            log.warning("flywheel: %s", line)
            said = line


def told(found: Looked) -> str:
    """One line, the same as before while nothing has happened."""
    if not found.did:
        return f"{found.run_id or 'no run'} {found.stage}"
    return " ".join(part for part in (found.run_id, found.what, "-", found.why) if part)


def pause_of(found: Looked) -> float:
    if found.did:
        return 0.0
    return BUSY_S if found.stage in UNDER_WAY else PACE_S


def ends_with(lines: TextIO, ended: threading.Event) -> None:
    """Read the input to its end, then give the step under way a little time."""
    for _ in lines:
        pass
    ended.set()
    time.sleep(END_S)
    os._exit(0)  # whatever is under way: the next process goes on after the last event


def main() -> None:
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    config = configuration(sys.argv[1:], sys.stdin)
    ended = threading.Event()
    threading.Thread(target=ends_with, args=(sys.stdin, ended), daemon=True).start()
    one = flywheel(config)
    try:
        turn(one, ended.wait)
    finally:
        one.close()


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(0)
    except StepdownError as error:
        sys.exit(f"stepdown: {error}")
    except SQLAlchemyError as error:  # the server starts it again after a while
        sys.exit(f"stepdown: the ledger's database does not answer: {driver_message(error)}")
