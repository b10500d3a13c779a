"""The child process that empties a busy ledger's spool: `python -m deployments.ledger.drain_process`, started by `drainer`.

It reads the ledger's settings from its first line of standard input; then each further line asks it to drain once, and it
answers with one of `drainer`'s words. It ends when its input does.
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
NICENESS = 4


def serve(lines: TextIO, say: Callable[[str], None]) -> None:
    """Drain once for each line after the first, which holds the settings, until there are no more lines."""
    store = Store(config.Ledger.model_validate_json(lines.readline()))
    store.start()  # else the first drain would wait for it
    say(READY)
    for _ in lines:
        try:
            store.drain()
            store.retry_late()
            say(DONE)
        except Exception as error:  # noqa: BLE001 the ingress drains by itself then, meets the same fault and reports it
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
