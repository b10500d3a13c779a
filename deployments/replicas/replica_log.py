"""Writes this project's log into the file that Ray Serve keeps for each replica, one line with the request's trace id first.

By default Serve writes only its own logger's lines there, and of a tier's replica not even these. With the fast front door it
also takes over a replica's standard error, and writes it down at a level that our replicas do not log, so that messages of any
other logger are lost. And its `print` writes all arguments as one tuple into whatever is not standard output, so that nobody can
read a traceback in the log.
"""

import builtins
import logging
import sys
from collections.abc import Callable
from logging.handlers import MemoryHandler
from typing import Any

from deployments.ids import CURRENT
from deployments.replicas.placement import LOGS

SERVE = "ray.serve"  # Ray's name of its logger
OURS = ("stepdown", "deployments")
"""loggers of this project"""


def with_trace_id(record: logging.LogRecord) -> bool:
    """A filter that keeps every record. `request_id` is the attribute that Ray's formatters, text and JSON, write down."""
    if CURRENT.get():
        record.request_id = CURRENT.get()
    return True


def write_to_file(again: bool = False) -> None:
    """To be called in a replica. Elsewhere, where Serve writes no file, nothing is changed.

    again: whatever was set up before, in this process, may have been undone by an engine that has started since.
    """
    files = [handler for handler in logging.getLogger(SERVE).handlers if isinstance(handler, MemoryHandler)]
    if again or any(file.target is None for file in files):
        open_again()
    elif not files:
        return
    for name in OURS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.disabled = False
        logger.setLevel(LOGS["log_level"])
    for handler in logging.getLogger(SERVE).handlers:
        handler.addFilter(with_trace_id)
        for name in OURS:
            logging.getLogger(name).addHandler(at_once(handler))
    if builtins.print.__name__ == "redirected_print":
        builtins.print = mended(builtins.print)


def open_again() -> None:
    """Set up Serve's log once more: vLLM sets up its own while it is imported, which closes all handlers that there are."""
    from ray import serve
    from ray.serve._private.common import ServeComponentType
    from ray.serve._private.logging_utils import configure_component_logger
    from ray.serve.schema import LoggingConfig

    logging.getLogger(SERVE).disabled = False
    replica = serve.get_replica_context()
    configure_component_logger(
        component_name=f"{replica.app_name}_{replica.deployment}",
        component_id=replica.replica_id.unique_id,
        component_type=ServeComponentType.REPLICA,
        logging_config=LoggingConfig(**LOGS),
    )


def at_once(handler: logging.Handler) -> logging.Handler:
    """The handler, or one like it that writes each line when it comes: Serve's may keep a thousand of them back."""
    if not isinstance(handler, MemoryHandler):
        return handler
    made = MemoryHandler(1, target=handler.target)
    for kept in handler.filters:
        made.addFilter(kept)
    return made


def mended(replaced: Callable[..., None]) -> Callable[..., None]:
    """Serve's `print`, but into a file as Python's."""

    def printed(*values: Any, sep: str | None = None, end: str | None = None, file: Any = None, flush: bool = False) -> None:
        sep, end = (" " if sep is None else sep), ("\n" if end is None else end)
        if file in (None, sys.stdout, sys.stderr):
            replaced(*values, sep=sep, end=end, file=file, flush=flush)
            return
        file.write(sep.join(map(str, values)) + end)
        if flush:
            file.flush()

    return printed
