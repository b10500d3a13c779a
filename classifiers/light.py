"""Imports libraries without the heavy optional modules that they would load."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def import_blocked(module: str) -> Iterator[None]:
    """Within the block, importing `module` fails. No effect if the module is already loaded."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(module, None)
