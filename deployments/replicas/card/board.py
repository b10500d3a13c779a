"""Files by which replicas on one card take turns: each says how it is, and who needs room asks others to doze.

A folder for each group. In it, by replica: `NAME.json`, how it is; `NAME.alive`, locked by its process, so that who was
killed no longer counts; `NAME.ask`, touched by who wants it to doze. Decisions are made under the machine's lock (node_lock.py).
"""

import fcntl
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from router.doze_settings import Card
from router.traffic.card_turns import Holder, who_dozes

ASKED_S = 5.0  # for so long a request to doze counts; who still waits asks again
GONE = ("alive", "json", "ask")


class CardBoard:
    """One replica's part in it: to be made, and asked, under the machine's lock. folder: its group's. name: the replica's.

    clock: seconds of the wall clock.
    """

    def __init__(self, folder: Path, name: str, card: Card, clock: Callable[[], float] = time.time) -> None:
        self.folder, self.name, self.card, self.clock = folder, name, card, clock
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.alive = os.open(self.file("alive"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self.alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.told: Holder | None = None

    def file(self, kind: str, name: str = "") -> Path:
        return self.folder / f"{name or self.name}.{kind}"

    def tell(self, awake: bool, calls: int, idle_s: float) -> None:
        """Written only where something changed that others decide by. Raises OSError."""
        last_s = self.clock() - idle_s
        before = self.told
        if before and (before.awake, before.calls) == (awake, calls) and abs(before.last_s - last_s) < 1.0:
            return
        self.told = Holder(self.name, self.card.gib, self.card.kept_gib, awake, calls, last_s)
        written = self.file("new")
        written.write_text(json.dumps(asdict(self.told)))
        written.replace(self.file("json"))
        if not awake:
            self.file("ask").unlink(missing_ok=True)

    def may_wake(self) -> bool:
        """See `dozer.Turns`. Raises OSError."""
        dozing = who_dozes(self.card.gib, self.card.of_gib, self.others())
        for name in dozing or ():
            self.file("ask", name).touch()
        return dozing == []

    def others(self) -> list[Holder]:
        """All other replicas on this card that live."""
        names = sorted(path.stem for path in self.folder.glob("*.alive") if path.stem != self.name)
        return [holder for name in names if self.lives(name) and (holder := self.read(name))]

    def lives(self, name: str) -> bool:
        """False, and its files are removed, if its process has ended."""
        try:
            handle = os.open(self.file("alive", name), os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            self.remove(name)
            return False
        finally:
            os.close(handle)

    def read(self, name: str) -> Holder | None:
        """None: it has not started yet, so it holds nothing."""
        with suppress(FileNotFoundError):
            return Holder(**json.loads(self.file("json", name).read_text()))
        return None

    def wanted(self) -> bool:
        with suppress(FileNotFoundError):
            asked = self.file("ask")
            if time.time() - asked.stat().st_mtime < ASKED_S:
                return True
            asked.unlink()
        return False

    def remove(self, name: str) -> None:
        for kind in GONE:
            self.file(kind, name).unlink(missing_ok=True)

    def close(self) -> None:
        self.remove(self.name)
        os.close(self.alive)


def folder_of(group: str, locks: Path) -> Path:
    """The board of a group on this machine. locks: the folder of the machine's lock."""
    return locks / f"card-{group}"
