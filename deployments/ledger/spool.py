"""Keeps rows in files of JSON lines, each synced before anybody is told, until the database takes them.

A process writes one file at a time and holds its lock meanwhile. Any process may drain a file that nobody holds, whether it was
closed or left behind by a dead process. Rows have ids, so a file that is drained twice counts once.
"""

import fcntl
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from deployments.ledger.rows import Rows, from_line, together

log = logging.getLogger(__name__)
PATTERN = "rows-*.jsonl"
BATCH = 200  # lines that go into one transaction of the database


class SpoolFull(OSError):
    """The spool holds as much as the settings allow."""


class Spool:
    """This process's file and the folder of all files. `append` and `close_file` may be called from two threads."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self.lock = threading.Lock()
        self.file: tuple[Path, int] | None = None
        """path and descriptor of the file that is written now"""
        self.held: dict[Path, tuple[int, int]] = {}
        """file of this process -> its rows and bytes"""

    @property
    def rows(self) -> int:
        return sum(rows for rows, _ in self.held.copy().values())

    @property
    def size(self) -> int:
        return sum(size for _, size in self.held.copy().values())

    def append(self, parts: Sequence[Rows]) -> None:
        """Return when the rows are on the disk. Raises SpoolFull or another OSError; then none of them counts."""
        lines = b"".join(part.line() for part in parts)
        with self.lock:
            if self.size + len(lines) > self.max_bytes:
                raise SpoolFull(f"the spool holds {self.size} bytes, spool_max_bytes allows {self.max_bytes}")
            path, file = self.file = self.file or new_file(self.folder)
            rows, size = self.held.get(path, (0, 0))
            try:
                write_synced(file, lines)
            except OSError:
                self.give_up(file, size)
                raise
            self.held[path] = rows + sum(len(part) for part in parts), size + len(lines)

    def give_up(self, file: int, size: int) -> None:
        """After a failed sync the disk's state is unknown: cut the file back to what is sure, and go on in a new one."""
        self.file = None
        try:
            os.ftruncate(file, size)
        except OSError as error:
            log.error("refused rows may still be in the spool: %s", error)
        os.close(file)

    def turn_over(self) -> None:
        """Release the file for draining. The next one is made first, so that no row has to wait for it."""
        if not self.file or self.file[0] not in self.held:
            return
        try:
            following = new_file(self.folder)
        except OSError:  # the next row meets the same error and reports it
            following = None
        with self.lock:
            self.put_away(following)

    def close_file(self) -> None:
        """Release the file for draining. The next row opens another."""
        with self.lock:
            self.put_away(None)

    def put_away(self, following: tuple[Path, int] | None) -> None:
        """To be called under the lock. A file without rows is deleted."""
        before, self.file = self.file, following
        if before:
            if before[0] not in self.held:
                before[0].unlink(missing_ok=True)
            os.close(before[1])

    def waiting(self) -> list[Path]:
        """Files to be drained, other processes' files too, oldest first. `drain` skips those that somebody holds."""
        with self.lock:  # `append` may just have made a file that `self.file` does not show yet
            mine = self.file and self.file[0]
            found = [path for path in self.folder.glob(PATTERN) if path != mine]
        gone = self.held.keys() - {*found, mine}
        for path in gone:
            self.held.pop(path, None)
        return sorted(found, key=age)

    def drain(self, path: Path, save: Callable[[Rows], None], refuse: Callable[[bytes, str], None]) -> bool:
        """Hand the file's rows to `save` and its broken lines to `refuse`, then delete it, unless somebody holds it.

        True: rows were saved, so the database answers. An empty file does not show that.
        """
        saved = False
        with locked(path) as file:
            if file is None:
                return False
            for rows in batches(file, refuse):
                save(rows)
                saved = True
            path.unlink(missing_ok=True)
        self.held.pop(path, None)
        return saved


def age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def new_file(folder: Path) -> tuple[Path, int]:
    """The path and the locked descriptor of a new file. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        path = folder / PATTERN.replace("*", f"{os.getpid()}-{secrets.token_hex(4)}")
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists():  # another process may have drained and deleted it before it was locked
            sync_folder(folder)
            return path, file
        os.close(file)


def sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def write_synced(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]
    os.fsync(file)


@contextmanager
def locked(path: Path) -> Iterator[BinaryIO | None]:
    """The file, locked by us; None: another process holds it, or it is gone."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        yield None
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield file


def batches(file: BinaryIO, refuse: Callable[[bytes, str], None]) -> Iterator[Rows]:
    """The file's rows, in batches. A last line without its end was never acknowledged: its process died while writing it."""
    parts: list[Rows] = []
    for line in file:
        if not line.endswith(b"\n"):
            log.warning("the last line of a spool file is torn (%d bytes); nobody was told that it was kept", len(line))
            break
        try:
            parts.append(from_line(line))
        except ValueError as error:
            refuse(line, str(error))
        if len(parts) >= BATCH:
            yield together(parts)
            parts = []
    if parts:
        yield together(parts)


def reject(folder: Path, line: bytes, why: str) -> None:
    """Keep a line that no database can take for a person to look at. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "rejected.jsonl"
    with open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        write_synced(file.fileno(), line)
    log.error("a row that the ledger cannot write (%s) was moved to %s", why, path)
