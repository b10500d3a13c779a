"""From candidates to the rows of a data folder: failures and more successes that train, and fair rows that choose and test.

Failures alone make a student forget what it could do, so successes are drawn among its other rows, by hash and seed. Only
training is chosen and capped; dev and test are the drawn requests as they came.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from router.distil.choosing import Candidate, Collector, Judged, rank_of, with_answers
from router.distil.rows import SIDES, Row
from router.distil.splitting import StudentSides, groups_of
from router.errors import BadInput
from router.flywheel.rows.dataset import capped, caps
from router.flywheel.rows.near_duplicates import Groups
from router.flywheel.rows.outcome_rows import line_of
from router.flywheel.served import Answer, Served

FEWEST_FAILURES = 20  # of training
FEWEST_TEST = 20  # rows
SUCCESSES = 2
"""successes at most for each failure. On the pocket ladder 4.7 % of what the student could do was lost with one, 3.3 % with two,
and 13 points were gained in place of 10"""
Ask = Callable[[Sequence[Served]], Mapping[str, Answer]]
"""the student's answers to these requests, by trace id; one that is missing could not be given"""


@dataclass(frozen=True)
class StudentData:
    """What a student is trained on, chosen by, and tested on."""

    train: tuple[Row, ...] = ()
    dev: tuple[Row, ...] = ()
    test: tuple[Row, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    """reason -> requests"""
    notes: tuple[str, ...] = ()
    """what was decided on the way, for people"""
    seed: int = 0

    @property
    def sides(self) -> dict[str, tuple[Row, ...]]:
        return {"train": self.train, "dev": self.dev, "test": self.test}

    @property
    def rows(self) -> tuple[Row, ...]:
        return (*self.train, *self.dev, *self.test)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """side -> kind -> rows"""
        return {side: dict(sorted(Counter(row.kind for row in rows).items())) for side, rows in self.sides.items()}

    @property
    def licences(self) -> dict[str, int]:
        """licence of the answers to learn -> rows"""
        return dict(sorted(Counter(row.licence for row in self.rows).items()))

    @property
    def sha256(self) -> str:
        return sha256_of(self.sides, self.seed)


def sha256_of(sides: Mapping[str, Sequence[Row]], seed: int) -> str:
    """Over rows, sides and seed; the same rows and seed give the same."""
    whole = hashlib.sha256(f"distil {seed}\n".encode())
    for side in SIDES:
        for row in sides[side]:
            whole.update(f"{side} {line_of(row.as_json())}\n".encode("utf-8", "replace"))
    return whole.hexdigest()


def build(collector: Collector, ask: Ask | None = None) -> StudentData:
    """Split, ask the student where it has not answered, grade and choose.

    ask: None: rows without the student's answer are left out. Raises BadInput where too little is left to learn from or to test.
    """
    left, seed = collector.left, collector.seed
    rows = collector.found()
    placed = Placed.of(rows, left)
    answers = ask([row.served for row in placed.rows if collector.pair.student not in row.served.answers]) if ask else {}
    judged = Judged.of(collector.pair, placed.rows, left)
    by_side = placed.judged(judged, with_answers(placed.rows, collector.pair.student, answers))
    train, notes = chosen(by_side["train"], seed, left)
    fair = {side: tuple(row for row in by_side[side] if row.student.score is not None) for side in ("dev", "test")}
    left["a correction that the student's answer cannot be compared with"] += sum(
        len(by_side[side]) - len(rows) for side, rows in fair.items()
    )
    share = collector.others.share
    train = [row if row.drawn or share == 1 else replace(row, weight=row.weight / share) for row in train]
    reasons = {why: count for why, count in sorted(left.items()) if count}
    found = StudentData(tuple(train), fair["dev"], fair["test"], reasons, (placed.said, *notes), seed)
    check_enough(found)
    return found


@dataclass(frozen=True)
class Placed:
    """Candidates that have a side."""

    rows: list[Candidate]
    side: Mapping[str, str]
    """by trace id"""
    group: Mapping[str, str]
    said: str

    @classmethod
    def of(cls, rows: Sequence[Candidate], left: Counter[str]) -> "Placed":
        served = [row.served for row in rows]
        groups = groups_of(served) if rows else Groups(0).found()
        sides = StudentSides(served, groups, None, left)
        side = {one.trace_id: of for one, of in zip(served, sides.side, strict=True) if of in SIDES}
        group = {one.trace_id: f"g{number}" for one, number in zip(served, groups.tolist(), strict=True)}
        return cls([row for row in rows if row.served.trace_id in side], side, group, sides.said)

    def judged(self, judged: Judged, rows: Sequence[Candidate]) -> dict[str, list[Row]]:
        """The rows of each side of which it is known how good the student's answer is."""
        found: dict[str, list[Row]] = {side: [] for side in SIDES}
        for one in rows:
            trace = one.served.trace_id
            known = judged.kept(one)
            if known is None:
                judged.left["the student has not answered it"] += 1
            elif (row := judged.row(one, *known, self.group[trace])) is not None:
                found[self.side[trace]].append(row)
        return found


# -- choosing what trains --------------------------------------------------------------------------------------------------


def chosen(rows: Sequence[Row], seed: int, left: Counter[str]) -> tuple[list[Row], list[str]]:
    """All failures and corrections within the caps, and SUCCESSES for each, if there are; oldest first. Also what to say."""
    failures, notes = within_caps([row for row in rows if row.kind != "success"], seed, left)
    successes, more = within_caps([row for row in rows if row.kind == "success"], seed, left)
    drawn = sorted(successes, key=lambda row: rank_of(row.id, seed))[: SUCCESSES * len(failures)]
    left["a success, and twice as many are drawn as there are failures"] += len(successes) - len(drawn)
    if drawn:
        share = len(drawn) / len(successes)
        drawn = [replace(row, weight=row.weight / share) for row in drawn]
        notes.append(f"{len(failures)} failures and corrections, {len(drawn)} of {len(successes)} successes")
    return sorted([*failures, *drawn], key=lambda row: (row.at_s, row.id)), list(dict.fromkeys([*notes, *more]))


def within_caps(rows: Sequence[Row], seed: int, left: Counter[str]) -> tuple[list[Row], list[str]]:
    """The rows without those beyond what one key, and one template, may teach."""
    found, notes = list(rows), list[str]()
    for limit in caps():
        found, said = capped(found, limit, seed, left, lambda row: row.id)
        notes += [said] if said else []
    return found, notes


def check_enough(found: StudentData) -> None:
    """Raises BadInput."""
    failures = sum(row.kind != "success" for row in found.train)
    reasons = "; ".join(f"{count} {why}" for why, count in sorted(found.left_out.items(), key=lambda pair: -pair[1])[:3])
    left = f" (left out: {reasons})" if reasons else ""
    if failures < FEWEST_FAILURES:
        raise BadInput(
            f"{failures} requests that the student answers worse than its teacher, at least {FEWEST_FAILURES} are needed to "
            f"train on{left}; wait for more traffic, or give a longer --since"
        )
    if len(found.test) < FEWEST_TEST:
        raise BadInput(
            f"{len(found.test)} drawn requests to test on, at least {FEWEST_TEST} are needed{left}; only requests that were "
            f"drawn at random (`learning.fill_share`) are a fair test"
        )


def summary(found: StudentData) -> dict[str, Any]:
    """Counts, for a manifest and for people."""
    times = [row.at_s for row in found.rows]
    return {
        "counts": found.counts,
        "left_out": dict(found.left_out),
        "licences": found.licences,
        "keys": len({row.key_id for row in found.rows}),
        "since_s": min(times, default=0.0),
        "until_s": max(times, default=0.0),
        "notes": list(found.notes),
        "seed": found.seed,
        "dataset_sha256": found.sha256,
    }
