"""The journal of `stepdown label`: every answer and verdict that was paid for, on disk at once, so that no run pays twice.

An entry's key is a hash of all that it depends on: the ladder's address, tier, messages and settings for an answer; also the
grader and the reference for a score that a judge or the user's own grader gave. Scores of built-in graders are not kept, but
computed again. So another prompt, grader, limit or ladder finds nothing of the old, which stays for who goes back to it.
"""

import fcntl
import hashlib
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from router.errors import BadInput

Row = dict[str, Any]


def key_of(*parts: Any) -> str:
    """A key of all that an entry depends on: anything that JSON can express."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def source_of(function: Callable[..., Any]) -> str:
    """A function's name and the hash of the file that it comes from: a changed grader is another grader."""
    name = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', repr(function))}"
    try:
        return f"{name} {hashlib.sha256(Path(inspect.getfile(function)).read_bytes()).hexdigest()}"
    except (TypeError, OSError):  # built in, or made at the prompt
        return name


class Journal:
    """Entries by key. A line that a kill cut short is dropped, as is any other that is no entry.

    One run at a time may hold it. Raises BadInput where another does, or where the disk does not take an entry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Row] = {}
        self.used: set[str] = set()
        """keys that were found or added in this run"""

    def __enter__(self) -> "Journal":
        self.file = self.path.open("ab")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.file.close()
            raise BadInput(f"{self.path}: another run is writing it; wait for it, or choose another output") from None
        for line in self.path.read_bytes().splitlines():
            try:
                entry = json.loads(line)
                self.known[entry["key"]] = dict(entry["value"])
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        if self.file.tell():
            self.write(b"\n")  # ends a line that a kill cut short
        return self

    def __exit__(self, *raised: object) -> None:
        self.file.close()

    def get(self, key: str) -> Row | None:
        found = self.known.get(key)
        if found is not None:
            self.used.add(key)
        return found

    def add(self, key: str, value: Row, **about: str) -> None:
        """Keep an entry; it is on disk when this returns. about: for people who read the file."""
        self.known[key] = value
        self.used.add(key)
        self.write(json.dumps({"key": key, **about, "value": value}).encode() + b"\n")

    def write(self, line: bytes) -> None:
        try:
            self.file.write(line)
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise BadInput(f"{self.path}: {error.strerror}; make room, and run the same command again") from None

    def remove(self) -> None:
        """Delete the file, unless it holds entries that this run had no use for."""
        if self.known.keys() <= self.used:
            self.path.unlink(missing_ok=True)
