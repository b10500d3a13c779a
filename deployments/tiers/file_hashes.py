"""Hashes of whole files, remembered while a file's path, size, time of change and inode stay the same.

A model of 140 GB takes minutes to read, so its hashes are kept in `file_hashes.json` in the state folder: only the first start
after a change reads it. The file is a cache; what is damaged or cannot be written is read or computed again.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from classifiers.files import atomic_write
from deployments.ledger.database import state_folder
from router.errors import BadConfig

NAME = "file_hashes.json"
READERS = 4  # files at a time; hashing leaves Python's lock free
SLOW_BYTES = 1 << 30  # from here on the wait is told in the log
log = logging.getLogger("stepdown")
Known = dict[str, list[object]]
"""path -> [size, time of change in ns, inode, device, hash]"""


def hashes(files: Sequence[Path]) -> list[str]:
    """The SHA-256 of each file's content, in the order given. Raises OSError."""
    cache, known = cache_file(), {}
    if cache:
        known = remembered(cache)
    stamps = {file: stamp(file) for file in files}
    new = [file for file, made in stamps.items() if known.get(str(file), [])[:-1] != made]
    size = sum(int(str(stamps[file][0])) for file in new)
    if size >= SLOW_BYTES:
        log.warning("hashing %.1f GB of model files for their fingerprints; it is remembered for the next start", size / 1e9)
    with ThreadPoolExecutor(READERS) as pool:
        known |= {str(file): [*stamps[file], made] for file, made in zip(new, pool.map(sha256, new), strict=True)}
    if new and cache:
        with suppress(OSError):  # read-only; the next start hashes again
            atomic_write(cache, json.dumps({**remembered(cache), **{str(file): known[str(file)] for file in new}}))
    return [str(known[str(file)][-1]) for file in files]


def cache_file() -> Path | None:
    try:
        return state_folder() / NAME
    except BadConfig:  # there is no state folder; nothing is remembered
        return None


def remembered(cache: Path) -> Known:
    """What the cache holds; nothing where it is damaged."""
    try:
        found = json.loads(cache.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    good = isinstance(found, dict) and all(isinstance(row, list) and len(row) == 5 for row in found.values())
    return found if good else {}


def stamp(file: Path) -> list[object]:
    """What changes when a file is written or replaced."""
    found = file.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev]


def sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
