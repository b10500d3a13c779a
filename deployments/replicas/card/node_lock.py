"""A lock for all replicas on one machine: one at a time takes memory of a card, or gives it back.

vLLM measures the card's free memory while it starts, and again around a sleep; what a neighbour takes or frees meanwhile it
counts as its own. The kernel frees the lock when its holder's process ends, however it ends.
"""

import asyncio
import fcntl
import logging
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from router.errors import BadConfig

VARIABLE = "STEPDOWN_NODE_LOCK"
"""names the lock's file; containers that share a card need the same one, in a folder that all of them see"""
FIRST_LOOK_S = 0.02
SLOWEST_LOOK_S = 0.5  # a neighbour's start takes minutes
MOST_READ = 200  # bytes of the holder's name
log = logging.getLogger("stepdown")


class NodeLock:
    """path: its file, which is made if it is not there, and never removed by us. name: of who takes it, for those who wait."""

    def __init__(self, path: Path, name: str = "") -> None:
        self.path, self.name = path, name

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Wait until nobody else holds it, in this process or another. Raises OSError where its file cannot be opened."""
        handle = await self.taken()
        try:
            yield
        finally:
            os.ftruncate(handle, 0)
            fcntl.flock(handle, fcntl.LOCK_UN)  # an engine that was forked meanwhile has the file open too
            os.close(handle)

    async def taken(self) -> int:
        look_s, told = FIRST_LOOK_S, False
        while (handle := self.take()) is None:
            if look_s >= SLOWEST_LOOK_S and not told:
                told = True
                log.warning("%s waits until %s has started, dozes or is awake on this machine's GPUs", self.name, self.holder())
            await asyncio.sleep(look_s)
            look_s = min(2 * look_s, SLOWEST_LOOK_S)
        return handle

    def take(self) -> int | None:
        """The open file if nobody holds it, else None: at once."""
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if same_file(handle, self.path):
                os.ftruncate(handle, 0)
                os.pwrite(handle, self.name.encode()[:MOST_READ], 0)
                return handle
        os.close(handle)
        return None

    def holder(self) -> str:
        with suppress(OSError):
            return self.path.read_text(errors="replace")[:MOST_READ] or "another engine"
        return "another engine"


def same_file(handle: int, path: Path) -> bool:
    """Whether the path still leads to the open file: whoever cleans temporary files up may have removed it."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False


def node_lock(name: str, environment: Mapping[str, str] = os.environ) -> NodeLock:
    """The lock of this machine and this user. name: see `NodeLock`. Raises BadConfig where its folder is another user's."""
    if named := environment.get(VARIABLE):
        return NodeLock(Path(named), name)
    return NodeLock(lock_folder() / "node.lock", name)


def lock_folder() -> Path:
    """A folder that only this user can enter; not that of the lanes, which removes old files. Raises BadConfig."""
    folder = Path(tempfile.gettempdir()) / f"stepdown-{os.getuid()}-locks"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise BadConfig(
            f"{folder}: found a folder that others may enter; expected one of this user alone, with mode 700; mend or remove it"
        )
    return folder
