"""Reloads targets and artefact while requests go on.

A reload makes a whole new router and swaps it in with one assignment; a request under way keeps its decision and its flow. A
file that cannot be used is refused, its reason is logged and shown on /v1/status, and the old router stays.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deployments.daemon import Daemon
from router.config import Config, describe, find_config, load_config
from router.decide.promises import Promises
from router.engine import Router
from router.errors import BadConfig

SECTIONS = ("routing", "escalation", "delegation")
NEED_RESTART = ("tiers", "services", "ledger", "learning", "flywheel")
LOOK_EVERY_S = 1.0
log = logging.getLogger("stepdown")
FileStamp = tuple[str, str, int, int, int]
"""path, where its links lead, inode, time of change, bytes: links are swapped, and a copy may keep time and size"""
Stamp = tuple[FileStamp, ...]


@dataclass
class Reloader:
    """Reloads the router of this process, on request or when its files change.

    file: the configuration. make: builds the router for a configuration and checks its artefact; raises BadConfig. What audits
    have found goes over to the new router's promises, whatever else has changed.
    """

    file: str
    router: Router
    make: Callable[[Config], Router]
    swap: Callable[[Router], None]
    refresh: Callable[[Promises], None] = lambda promises: None
    """tells new promises what all processes' audits have found"""
    beside: Callable[[Router], None] = lambda router: None
    """builds what goes with a new router before it is used, in a thread; raises BadConfig"""
    times: int = 0
    last: dict[str, Any] = field(default_factory=dict)
    """the last reload: `at` (Unix time), `error` or none, `needs_restart`: sections that changed and need a restart"""
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.at_start = self.router.config
        self.read: FileStamp | None = None
        """the file's stamp when `named`, the artefact it names, was read from it"""
        self.named: str | None = None
        self.watching = Daemon(self.watch)

    async def from_file(self) -> dict[str, Any]:
        """Read the file and its artefact again. Raises BadConfig; nothing is changed then."""
        return await self.guarded(lambda: same_ladder(load_config(self.file), self.at_start))

    async def from_sections(self, sections: Mapping[str, Any]) -> dict[str, Any]:
        """The same with sections that Serve sent. Raises BadConfig."""
        return await self.guarded(lambda: with_sections(self.at_start, sections))

    async def guarded(self, read: Callable[[], Config]) -> dict[str, Any]:
        async with self.one_at_a_time:
            try:
                found = await asyncio.to_thread(read)
                router = await asyncio.to_thread(self.prepared, found)
            except BadConfig as error:
                self.last = {"at": time.time(), "error": str(error), "times": self.times}
                log.error("not reloaded, the old settings stay: %s", error)
                raise
            return self.use(router, found)

    def prepared(self, found: Config) -> Router:
        """Build the new router. Runs in a thread, since reading an artefact takes a while."""
        made = self.make(self.at_start.model_copy(update={name: getattr(found, name) for name in SECTIONS}))
        made.flows.promises.inherit(self.router.flows.promises)  # reading an artefact again must not revive what audits retired
        self.refresh(made.flows.promises)
        self.beside(made)
        return made

    def use(self, router: Router, found: Config) -> dict[str, Any]:
        self.router, self.times = router, self.times + 1
        self.swap(router)
        left = [name for name in NEED_RESTART if getattr(found, name) != getattr(self.at_start, name)]
        self.last = {"at": time.time(), "error": None, "times": self.times, "needs_restart": left}
        log.warning("reloaded: %s%s", self.file, f"; a restart is needed for {', '.join(left)}" if left else "")
        return self.last

    # -- watching ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.watching.start()

    async def close(self) -> None:
        await self.watching.stop()

    async def watch(self) -> None:
        """Reload when a file has changed and has stopped changing: files are not written at once."""
        used = await asyncio.to_thread(self.stamp)
        if await asyncio.to_thread(self.is_older):  # a restarted replica starts with the settings of the first start
            await self.tried()
        before = used
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = await asyncio.to_thread(self.stamp)
            if now != used and now == before:
                used = now
                await self.tried()
            before = now

    async def tried(self) -> None:
        with suppress(BadConfig):  # logged already
            await self.from_file()

    def is_older(self) -> bool:
        try:
            found = load_config(self.file)
        except BadConfig:
            return False
        return any(getattr(found, name) != getattr(self.at_start, name) for name in SECTIONS)

    def stamp(self) -> Stamp:
        """A value that changes when the file, the artefact it names or the one in use does."""
        file = find_config(self.file)
        if (stamp := stamped(file)) != self.read:  # reading it each time would block the event loop for 5 ms each second
            self.read, self.named = stamp, None
            with suppress(BadConfig):
                self.named = load_config(self.file).routing.artefact
        files = {file, *in_folder(self.named), *in_folder(self.router.config.routing.artefact)}
        return tuple(stamped(file) for file in sorted(files))


def in_folder(folder: str | None) -> list[Path]:
    try:
        return [Path(folder), *Path(folder).iterdir()] if folder else []
    except OSError:
        return [Path(folder)] if folder else []


def stamped(file: Path) -> FileStamp:
    try:
        found = file.stat()
        return str(file), os.path.realpath(file), found.st_ino, found.st_mtime_ns, found.st_size
    except OSError:
        return str(file), "", 0, 0, 0


def same_ladder(found: Config, running: Config) -> Config:
    """The found configuration. Raises BadConfig where its tiers differ from those that run."""
    if found.names != running.names:
        shown = f"{' < '.join(running.names)} is served, the file lists {' < '.join(found.names)}"
        raise BadConfig(f"tiers: {shown}; tiers are changed by a restart")
    return found


def with_sections(running: Config, sections: Mapping[str, Any]) -> Config:
    """The running configuration with these sections. Raises BadConfig."""
    if other := sorted(set(sections) - set(SECTIONS)):
        raise BadConfig(f"{other[0]}: only {', '.join(SECTIONS)} can be changed while it is serving; restart for the rest")
    try:
        return Config.model_validate(running.model_dump(mode="json") | dict(sections))
    except ValidationError as error:
        raise BadConfig(describe(Path("user_config"), error)) from None
