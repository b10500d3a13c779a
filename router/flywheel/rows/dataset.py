"""From kept requests to the three sides that a router is trained, certified and tested on.

train    the oldest; also those that were not drawn, with the weight of one request
certify  a fair sample of newer ones, none like those that were trained on: the certificate is made of these alone
test     a fair sample of the newest ones, like none of the others: the offline gates look at them once

Requests of one conversation, and near-duplicates, stand on one side. See docs/flywheel.md for why the shares are as
they are.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from router.flywheel.rows.cleaning import clean
from router.flywheel.rows.near_duplicates import FACTS, near_duplicates, plain
from router.flywheel.rows.outcome_rows import line_of, outcome_row
from router.flywheel.rows.sides import Asked, Sides, asked_text, grouped
from router.flywheel.served import Served

OLD_WEIGHT = 0.25  # in training, of rows before a certificate was retired
KEY_SHARE = 0.20  # most of the training rows that one key may give
FEWEST_KEYS = 5  # with fewer there is nobody else to learn from
KEY_FLOOR = 200  # rows that a key may always give
TEMPLATE_SHARE = 0.05  # most of the training rows of one template
FEWEST_TEMPLATES = 20
TEMPLATE_FLOOR = 1_000  # what is asked most is also where most is saved
FEW = 20  # rows of a key or template that counts among the fewest
R = TypeVar("R")


@dataclass(frozen=True)
class Dataset:
    """What a router is made of."""

    tiers: tuple[str, ...]
    """cheapest first"""
    train: tuple[Served, ...] = ()
    certify: tuple[Served, ...] = ()
    test: tuple[Served, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    """by trace id: the number of requests that it stands for; of what is old only a part of that"""
    groups: Mapping[str, str] = field(default_factory=dict)
    """by trace id: conversation and near-duplicates; none stands on two sides"""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """reason -> number of rows"""
    notes: tuple[str, ...] = ()
    """what was decided on the way, for people"""
    digest: str = ""
    """SHA-256 of all of it; the same rows and seed give the same"""
    seed: int = 0
    requests_a_day: float = 0.0
    """that rows were drawn from"""

    @property
    def trace_ids(self) -> tuple[str, ...]:
        """Of the rows that the router is made of: trained on, or in its certificate."""
        return tuple(row.trace_id for row in (*self.train, *self.certify))

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each side."""
        return {"train": len(self.train), "certify": len(self.certify), "test": len(self.test)}

    @property
    def rests_on(self) -> dict[str, float]:
        """Share of the grades of smaller tiers' answers by where they came from."""
        rows = (*self.train, *self.certify, *self.test)
        found = Counter(row.grades[tier].source for row in rows for tier in self.tiers[:-1])
        return {source: count / found.total() for source, count in sorted(found.items())}


def build(
    rows: Sequence[Served], tiers: tuple[str, ...], now_s: float, seed: int, since_certify_s: float | None = None
) -> Dataset:
    """Clean and split.

    now_s: rows after it are left out, so that the same run gives the same sides later. since_certify_s: when the certificate in
    use was retired; only rows after it may certify and test, since the traffic before it was another.
    """
    left: Counter[str] = Counter()
    kept = clean(rows, tuple(tiers), now_s, left)
    groups = grouped(kept, near_duplicates([asked_text(row) for row in kept]))
    sides = Sides(kept, groups, since_certify_s, left)
    notes = [sides.said]
    train = sides.rows("train")
    for limit in caps():
        train, note = capped(train, limit, seed, left, lambda row: row.trace_id)
        notes += [note] if note else []
    certify, test = sides.rows("certify"), sides.rows("test")
    used = (*train, *certify, *test)
    weights = {row.trace_id: weight_of(row, since_certify_s) for row in used}
    named = {row.trace_id: f"g{group}" for row, group in zip(kept, groups.tolist(), strict=True)}
    found = Dataset(
        tuple(tiers),
        tuple(train),
        tuple(certify),
        tuple(test),
        weights,
        {row.trace_id: named[row.trace_id] for row in used},
        {why: count for why, count in sorted(left.items()) if count},
        tuple(notes),
        seed=seed,
        requests_a_day=sides.requests_a_day,
    )
    return with_digest(found)


def weight_of(row: Served, since_certify_s: float | None) -> float:
    """The number of requests that a row stands for."""
    old = since_certify_s is not None and row.at_s < since_certify_s
    return (1 / row.chance if row.drawn else 1.0) * (OLD_WEIGHT if old else 1.0)


def with_digest(found: Dataset) -> Dataset:
    """The dataset with the hash of its rows, sides, weights and seed."""
    whole = hashlib.sha256(json.dumps([found.tiers, found.seed]).encode())
    for side, rows in (("train", found.train), ("certify", found.certify), ("test", found.test)):
        for row in rows:
            head = json.dumps([side, found.weights[row.trace_id], found.groups[row.trace_id], row.at_s])
            whole.update(f"{head}\n{line_of(outcome_row(row, found.tiers))}\n".encode("utf-8", "replace"))
    return replace(found, digest=whole.hexdigest())


# -- caps -----------------------------------------------------------------------------------------------------------------------


def template_of(row: Asked) -> str:
    """The request with a mark for each number and quoted string."""
    return plain(FACTS.sub("#", asked_text(row)))


@dataclass(frozen=True)
class Cap(Generic[R]):
    """How much of the training rows may come from one key, or one template."""

    what: str
    name: Callable[[R], str]
    """of a row's key or template"""
    share: float
    fewest: int
    """with fewer keys or templates there is no cap: nobody else could be learned from"""
    floor: int
    """rows that each may always give"""


def capped(rows: list[R], limit: Cap[R], seed: int, left: Counter[str], id_of: Callable[[R], str]) -> tuple[list[R], str]:
    """The rows within the cap; those beyond it go by hash. Also returns what is to be said.

    Only training is capped: who sends many requests shall not teach alone. What certifies and tests stays a fair sample.
    """
    of = [limit.name(row) for row in rows]
    count = Counter(of)
    if sum(n >= FEW for n in count.values()) < limit.fewest:
        return rows, f"fewer than {limit.fewest} {limit.what}s with {FEW} training rows, so no {limit.what} is capped"
    most = max(limit.floor, cap(sorted(count.values()), limit.share))
    if max(count.values()) <= most:
        return rows, ""
    rank = {id: hashlib.sha256(f"{seed} {id}".encode()).digest() for id in map(id_of, rows)}
    by_name: dict[str, list[str]] = {}
    for row, one in zip(rows, of, strict=True):
        by_name.setdefault(one, []).append(id_of(row))
    chosen = {trace for mine in by_name.values() for trace in sorted(mine, key=rank.__getitem__)[:most]}
    left[f"beyond what one {limit.what} may teach"] += len(rows) - len(chosen)
    return [row for row in rows if id_of(row) in chosen], f"at most {most} training rows of one {limit.what}"


def caps() -> tuple[Cap[Any], ...]:
    """Those of training rows; a row has `key_id` and `messages`."""
    return (
        Cap("key", lambda row: row.key_id, KEY_SHARE, FEWEST_KEYS, KEY_FLOOR),
        Cap("template", template_of, TEMPLATE_SHARE, FEWEST_TEMPLATES, TEMPLATE_FLOOR),
    )


def cap(counts: Sequence[int], share: float) -> int:
    """The largest number c such that c is at most `share` of what is left if every count is cut to c. counts: rising."""
    below, best = 0, 0
    for i, n in enumerate(counts):
        rest = len(counts) - i  # names with at least n rows, each cut to c
        c = n if share * rest >= 1 else min(n, int(share * below / (1 - share * rest)))
        if c >= (counts[i - 1] if i else 0):
            best = max(best, c)
        below += n
    return best
