"""Processes that outlive a shutdown: vLLM's workers are children of a replica that Ray may kill before they notice.

Each replica leads a process group, in which its workers are too, whoever is their parent by then. Nothing is done where
there is no /proc.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def processes() -> Iterator[tuple[int, int, int]]:
    """(pid, its parent, its group) of all that live."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent, group = file.read_text().rpartition(")")[2].split()[:3]
            if state not in "ZX":
                yield int(file.parent.name), int(parent), int(group)


def groups_below(root: int) -> set[int]:
    """Groups of all descendants, less the root's own."""
    found, children = set[int](), dict[int, list[tuple[int, int]]]()
    for pid, parent, group in processes():
        children.setdefault(parent, []).append((pid, group))
    waiting = [root]
    while waiting:
        for pid, group in children.get(waiting.pop(), []):
            waiting.append(pid)
            found.add(group)
    return found - {os.getpgid(root)}


def left(groups: set[int]) -> set[int]:
    return groups & {group for _, _, group in processes()}


def end(groups: set[int], wait_s: float = 5.0) -> set[int]:
    """Give them a while, then ask, then kill. The groups that had to be killed."""
    for number in (0, signal.SIGTERM, signal.SIGKILL):
        groups = left(groups)
        for group in groups if number else ():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
        until = time.monotonic() + wait_s
        while number != signal.SIGKILL and left(groups) and time.monotonic() < until:
            time.sleep(0.1)
    return groups
