"""One engine after another starts on the GPUs of a machine, where several share a card.

vLLM measures how much memory a model needs by what is free before and after; another engine that starts meanwhile is counted as
its own need, so that both get too little, or none at all. So whoever has a share of a card holds a lock of this machine, from
before its engine starts until it is warm. The lock is the kernel's: free again when its process is gone, however that ended.
"""

import asyncio
import fcntl
import logging
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from router.errors import BadConfig

log = logging.getLogger("stepdown")
LOOK_S = 0.2  # between two tries to get it
MOST_READ = 200  # bytes of the holder's name


def folder() -> Path:
    """Of this user on this machine, whatever file systems machines share. Raises BadConfig where it is somebody else's."""
    made = Path(tempfile.gettempdir()) / f"stepdown-{os.getuid()}"
    made.mkdir(mode=0o700, exist_ok=True)
    found = made.lstat()
    if made.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise BadConfig(f"{made}: expected a folder that only this user may write to, found another; delete it, or set TMPDIR")
    return made


@asynccontextmanager
async def held(name: str, place: Path | None = None) -> AsyncIterator[None]:
    """Wait for the lock of this machine, and hold it. name: of who holds it, for those who wait. Raises BadConfig, OSError."""
    file = os.open((place or folder()) / "cards.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        waits = False
        while not taken(file):
            if not waits:
                log.warning("%s waits to start until %s has started on this machine's GPUs", name, holder(file))
                waits = True
            await asyncio.sleep(LOOK_S)
        os.ftruncate(file, 0)
        os.pwrite(file, name.encode()[:MOST_READ], 0)
        try:
            yield
        finally:
            os.ftruncate(file, 0)
            fcntl.flock(file, fcntl.LOCK_UN)  # an engine that was forked meanwhile has the file open too
    finally:
        os.close(file)


def taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder(file: int) -> str:
    return os.pread(file, MOST_READ, 0).decode(errors="replace") or "another engine"
