"""Atomic replacement of files: readers never see half a file, and a killed writer leaves the old one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to. On success it replaces `path`, else it is deleted. Raises OSError, with the name
    of the file also where the disk is full.
    """
    path = Path(path)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        yield fresh
        os.replace(fresh, path)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        fresh.unlink(missing_ok=True)


def atomic_write(path: str | Path, data: str | bytes) -> None:
    """Write the whole file, or leave the old one. Raises OSError."""
    with replaced(path) as fresh:
        fresh.write_bytes(data.encode() if isinstance(data, str) else data)
