"""The child process that empties a busy ledger's spool: `python -m deployments.ledger.drain_process`, started by `drainer`.

The first line of its standard input holds the ledger's settings. Each further line asks it to drain once, and it answers with one
of `drainer`'s words. It ends when its input does.
"""

import logging
import os
import sys
from collections.abc import Callable
from typing import TextIO

from deployments.ledger.drainer import DONE, FAILED, READY
from deployments.ledger.store import Store
from router import config

log = logging.getLogger(__name__)
NICENESS = 4  # requests come first


def serve(lines: TextIO, say: Callable[[str], None]) -> None:
    """Drain once for each line after the first."""
    store = Store(config.Ledger.model_validate_json(lines.readline()))
    store.start()  # migrates now, so that the first drain need not
    say(READY)
    for _ in lines:
        try:
            store.drain()
            store.retry_late()
            say(DONE)
        except Exception as error:  # noqa: BLE001 the ingress then drains, meets the same fault and reports it
            log.debug("not drained: %s", error)
            say(FAILED)


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    os.nice(NICENESS)
    try:
        serve(sys.stdin, say)
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(0)
