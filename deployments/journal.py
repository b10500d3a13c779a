"""The journal of a work in steps: which are done, from what, and what they left. A killed run goes on from there.

`steps.json` holds for each finished step the hashes of its inputs, its result, and the hashes of its files. A step whose inputs
have changed, or whose files have, is done again, and so are those that depend on it; the run says why.
"""

import fcntl
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from classifiers.files import atomic_write
from router.errors import BadInput

JOURNAL = "steps.json"
LOCK = ".lock"
Json = dict[str, Any]


def hash_of(value: Any) -> str:
    """A hash of what JSON can express."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]


def hash_of_files(places: Iterable[Path]) -> str:
    """A hash of files, and of all files in folders, with their names; of what is missing, nothing."""
    whole = hashlib.sha256()
    for place in places:
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            with suppress(FileNotFoundError, IsADirectoryError):
                whole.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()[:32]


class Steps:
    """The steps of one folder. say: told what is done again, and why. Raises BadInput where another run has the folder."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say
        self.done: dict[str, Json] = {}

    def __enter__(self) -> "Steps":
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = (self.folder / LOCK).open("a")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.lock.close()
            raise BadInput(f"{self.folder}: another run works there; wait for it, or give another folder") from None
        with suppress(FileNotFoundError, ValueError):
            self.done = dict(json.loads((self.folder / JOURNAL).read_text("utf-8")))
        return self

    def __exit__(self, *raised: object) -> None:
        self.lock.close()

    def result(self, name: str) -> Json:
        """What a finished step said; empty: it is not done."""
        return dict(self.done.get(name, {}).get("result", {}))

    def took(self) -> dict[str, float]:
        """Seconds of each finished step, by name."""
        return {name: float(record["took_s"]) for name, record in self.done.items()}

    def forget(self, name: str, why: str) -> None:
        """The step is to be done again."""
        if self.done.pop(name, None):
            self.say(f"{name}: goes on, {why}")

    def run(self, name: str, inputs: Mapping[str, Any], files: Sequence[str], make: Callable[[], Json]) -> Json:
        """The step's result; `make` is called only where it is not done yet for these inputs. files: what it leaves."""
        wanted = {key: hash_of(value) for key, value in inputs.items()}
        record = self.done.get(name)
        if record and not (changed := self.changed(record, wanted, files)):
            self.say(f"{name}: done before")
            return dict(record["result"])
        if record:
            self.say(f"{name}: done again, for {', '.join(changed)} changed since")
        self.done.pop(name, None)
        began = time.time()
        result = make()
        self.done[name] = {
            "inputs": wanted,
            "result": result,
            "files": self.hashes(files),
            "ended_s": round(time.time(), 1),
            "took_s": round(time.time() - began, 1),
        }
        atomic_write(self.folder / JOURNAL, json.dumps(self.done, indent=1) + "\n")
        return result

    def changed(self, record: Json, wanted: Mapping[str, str], files: Sequence[str]) -> list[str]:
        """The inputs and files that are not as when the step was done."""
        inputs = record.get("inputs", {})
        found = [key for key in {**inputs, **wanted} if inputs.get(key) != wanted.get(key)]
        here = self.hashes(files)
        return found + [file for file in files if record.get("files", {}).get(file) != here[file]]

    def hashes(self, files: Sequence[str]) -> dict[str, str]:
        return {file: hash_of_files([self.folder / file]) for file in files}
