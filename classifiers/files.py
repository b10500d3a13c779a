"""Files that are whole or not there: a reader never sees half of one, and a killed writer leaves the old one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """Yields a file beside `path` to be written by any means; on success it takes the place of `path`, else it goes.

    Raises OSError, as writing does.
    """
    path = Path(path)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        yield fresh
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def atomic_write(path: str | Path, data: str | bytes) -> None:
    """Write the whole file, or leave it as it was. Raises OSError."""
    with replaced(path) as fresh:
        fresh.write_bytes(data.encode() if isinstance(data, str) else data)
