"""Splits kept requests into what trains, what certifies and what tests: by conversation and near-duplicates, then by time."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from classifiers.text.prompt import clip, content_text
from router.flywheel.rows.near_duplicates import Groups, plain
from router.flywheel.served import Served

TRAIN = 0.55  # of the drawn rows, the oldest
CERTIFY = 0.30  # of them, the next; the rest tests
GAP_S = 3_600.0  # left out between the sides, at most
GAP_SHARE = 0.01  # of the log's time, at most
HELD_OUT = 8  # one conversation in eight is never trained on
TEMPLATE_SHARE = 0.05  # a group of near-duplicates with more of the rows is a template: many tasks in the same long words
TEMPLATE_ROWS = 20  # and with at least so many

Ints = NDArray[np.int64]


class Asked(Protocol):
    """What was asked, whatever else is known of it."""

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]: ...


def asked_text(row: Asked) -> str:
    """What near-duplicates are told by: all that was said, without instructions, which a whole application may share."""
    said = [m for m in row.messages if m.get("role") not in ("system", "developer")] or list(row.messages)
    return clip("\n".join(content_text(message.get("content")) for message in said))


def grouped(rows: Sequence[Served], alike: Ints) -> Ints:
    """(n,) the group of each row: what shares a conversation or is alike, and what shares one with that.

    alike: (n,) as `near_duplicates` gives it. Of a template only the same text is alike: else an application that asks in one
    long form would be a single group, and nothing of it could be tested.
    """
    groups, first = Groups(len(rows)), dict[str, int]()
    templates = np.bincount(alike, minlength=1) > max(TEMPLATE_ROWS, TEMPLATE_SHARE * len(rows))
    for i, (row, j) in enumerate(zip(rows, alike.tolist(), strict=True)):
        groups.join(i, first.setdefault(f"text {plain(asked_text(row))}", i) if templates[j] else j)
        if row.conversation:
            groups.join(i, first.setdefault(row.conversation, i))
    return groups.found()


def held_out(row: Served) -> bool:
    """Whether a row is never trained on, in no run: by its conversation, else by its text."""
    name = row.conversation or plain(asked_text(row))
    return hashlib.sha256(f"held out {name}".encode("utf-8", "replace")).digest()[0] % HELD_OUT == 0


def begin_between(out: NDArray[np.bool_], first: int, second: int) -> int:
    """Where the side between begins: it has `second - first` rows and an eighth of the older ones, a third of its own time.

    More than an eighth of a student's requests are held out: the others of its training's time are not its router's.
    out: (n,) which rows are held out, oldest first; those before it are its own too. Returns an index of [first, second].
    """
    wanted, latest = second - first + first // HELD_OUT, second - (second - first) // 3
    has = np.cumsum(out)[first:latest] + second - 1 - np.arange(first, latest)
    return first + int((has >= wanted).sum())


class Sides:
    """The side of each row. rows: oldest first. groups: (n,) see `grouped`. Subclasses split by other shares."""

    shares = (TRAIN, CERTIFY)
    """of the drawn rows, the oldest: what trains, and what comes between"""
    between = "certify"
    """the name of the side between training and test"""
    counts_held_out = True
    """where more than an eighth of the rows of the training's time are held out, the side between begins later"""

    def __init__(self, rows: Sequence[Served], groups: Ints, since_s: float | None, left: Counter[str]) -> None:
        self.all, self.groups, self.since_s, self.left = rows, groups, since_s, left
        self.fair = [row.drawn and row.wanted.partition(":")[0] == "auto" for row in rows]
        """a fair sample of the requests that a router decides: others may teach, but prove nothing"""
        self.recent = [i for i, row in enumerate(rows) if self.fair[i] and (since_s is None or row.at_s >= since_s)]
        self.begin_between_s, self.begin_test_s, self.gap_s = self.boundaries()
        self.side = [self.by_time(i) for i in range(len(rows))]
        self.separate()
        self.left.update(side for side in self.side if side not in ("train", self.between, "test"))

    def boundaries(self) -> tuple[float, float, float]:
        """When the second and the third side begin, and the gap before each, in s."""
        if not self.recent:
            return np.inf, np.inf, 0.0
        times = np.array([self.all[i].at_s for i in self.recent])
        first, second = (min(int(len(times) * share), len(times) - 1) for share in (self.shares[0], sum(self.shares)))
        if self.counts_held_out:
            out = np.array([held_out(self.all[i]) for i in self.recent], bool)
            first = begin_between(out, first, second)
        return float(times[first]), float(times[second]), min(GAP_S, GAP_SHARE * float(times[-1] - times[0]))

    def by_time(self, i: int) -> str:
        """The side, or why there is none."""
        row, fair = self.all[i], self.fair[i]
        if any(0 < begin - row.at_s <= self.gap_s for begin in (self.begin_between_s, self.begin_test_s)):
            return "in the gap between two sides"
        if row.at_s < self.begin_between_s:
            if not held_out(row):
                return "train"
            old = self.since_s is not None and row.at_s < self.since_s
            return self.between if fair and not old else "of a conversation that is never trained on"
        if not fair:
            return "new, but no fair sample: not drawn, or a tier was asked for by name"
        return self.between if row.at_s < self.begin_test_s else "test"

    def separate(self) -> None:
        """Take out what depends on rows of another side: what certifies stays whole."""
        self.one_a_conversation()
        self.part("test", ("certify",), "like one that certifies")
        self.part("train", ("certify", "test"), "like one that certifies or tests")

    def one_a_conversation(self) -> None:
        """Keep one row of each conversation among those that certify, by hash: the others depend on it."""
        best: dict[str, tuple[bytes, int]] = {}
        for i, row in enumerate(self.all):
            if self.side[i] != "certify" or not row.conversation:
                continue
            rank = (hashlib.sha256(row.trace_id.encode()).digest(), i)
            kept = min(rank, best.get(row.conversation, rank))
            for _, j in {rank, best.get(row.conversation, rank)} - {kept}:
                self.side[j] = "of a conversation that certifies already"
            best[row.conversation] = kept

    def part(self, side: str, others: tuple[str, ...], why: str) -> None:
        """Take out of a side what has near-duplicates or its conversation on the others."""
        there = {int(group) for group, of in zip(self.groups, self.side, strict=True) if of in others}
        for i, group in enumerate(self.groups.tolist()):
            if self.side[i] == side and group in there:
                self.side[i] = why

    def rows(self, side: str) -> list[Served]:
        """The rows of one side, oldest first."""
        return [row for row, of in zip(self.all, self.side, strict=True) if of == side]

    @property
    def said(self) -> str:
        """How the rows were split, for people."""
        if not self.recent:
            return "no drawn request to certify with"
        return f"{len(self.recent)} drawn requests; {self.gap_s:.0f} s left out between the sides"

    @property
    def requests_a_day(self) -> float:
        """Requests that the drawn rows stand for, in 86,400 s."""
        if len(self.recent) < 2:
            return 0.0
        span = self.all[self.recent[-1]].at_s - self.all[self.recent[0]].at_s
        return sum(1 / self.all[i].chance for i in self.recent) * 86_400 / max(span, 1.0)
