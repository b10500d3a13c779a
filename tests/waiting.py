"""Waiting in a test for what another process does in its own time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(check: Callable[[], T], patience_s: float = 120.0, every_s: float = 0.3) -> T:
    """What `check` gives once it gives something, within our patience."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if found := check():
            return found
        time.sleep(every_s)
    raise AssertionError(f"not within {patience_s:g} s")
