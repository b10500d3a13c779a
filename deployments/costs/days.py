"""Days that are over are read once. What is kept of one is dropped when its sums change: a late row is seen at once."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from weakref import WeakKeyDictionary

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, Engine

from deployments.costs import gpu, sums
from deployments.costs.interval import DAY, Interval
from deployments.costs.sums import Reader
from router.config import Config

MOST_DAYS = 400
FRESH_S = DAY  # days that ended less than that ago are always read

Tables = Mapping[str, pa.Table]


@dataclass
class Days:
    """Of one database, for all who ask. kept: (reader, day) -> (its print, its rows)."""

    kept: dict[tuple[str, int], tuple[object, pa.Table]] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def read(self, connection: Connection, config: Config, when: Interval) -> Tables:
        """`calls`, `requests` and `machines` of an interval, by its step."""
        readers = readers_for(config)
        if when.step_s != DAY:
            return {name: reader(connection, when.since, when.until, when.step_s) for name, reader in readers.items()}
        first, last = -(-when.since // DAY) * DAY, when.until // DAY * DAY  # whole days lie between
        last = max(first, min(last, int((time.time() - FRESH_S) // DAY) * DAY))
        prints = sums.prints(connection, Interval(first, last, (first, last)), DAY) if first < last else {}
        found = {}
        for name, reader in readers.items():
            parts = [*self.whole(connection, name, reader, range(first, last, DAY), prints)]
            edges = [(when.since, min(first, when.until)), (last, when.until)]
            parts += [reader(connection, since, until, DAY) for since, until in edges if since < until]
            found[name] = pa.concat_tables(parts)
        return found

    def whole(
        self, connection: Connection, name: str, reader: Reader, days: range, prints: Mapping[int, object]
    ) -> Iterator[pa.Table]:
        with self.lock:
            known = {day: self.kept.get((name, day)) for day in days}
        missing = [day for day, kept in known.items() if kept is None or kept[0] != prints.get(day)]
        if missing:
            table = reader(connection, missing[0], missing[-1] + DAY, DAY)
            fresh = {day: (prints.get(day), table.filter(pc.equal(table["at"], day))) for day in missing}
            known |= fresh
            with self.lock:
                self.kept |= {(name, day): kept for day, kept in fresh.items()}
                while len(self.kept) > 3 * MOST_DAYS:
                    del self.kept[next(iter(self.kept))]
        yield from (kept[1] for kept in known.values() if kept is not None)


def readers_for(config: Config) -> dict[str, Reader]:
    def calls(connection: Connection, since: int, until: int, step_s: int) -> pa.Table:
        return sums.read(connection, sums.CALLS, since, until, step_s)

    def requests(connection: Connection, since: int, until: int, step_s: int) -> pa.Table:
        return sums.read(connection, sums.REQUESTS, since, until, step_s)

    return {"calls": calls, "requests": requests, "machines": partial(gpu.read, config)}


EVERY: "WeakKeyDictionary[Engine, Days]" = WeakKeyDictionary()


def of(engine: Engine) -> Days:
    return EVERY.setdefault(engine, Days())
