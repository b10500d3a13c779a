"""Splits prompts into those to learn from, to certify with and to try live. What resembles each other stays together.

What near-duplicates are: router/flywheel/rows/near_duplicates.py.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal

from classifiers import prompt_text
from router.flywheel.rows.near_duplicates import near_duplicates
from router.learn.chats import chat_of

Row = dict[str, Any]
Part = Literal["teach", "certify", "live"]
SHARES: dict[Part, float] = {"teach": 0.60, "certify": 0.25, "live": 0.15}
GROUPS = ("stem_sha256", "conversation", "group")
"""columns by which the operator says what belongs together; the first that a row has counts"""
LARGEST_GROUP = 0.05
"""share of the prompts; a larger group is a template that many requests share, not one prompt again and again"""


def text_of(row: Mapping[str, Any]) -> str:
    """What a classifier sees of the row."""
    return prompt_text(chat_of(row))


def split(rows: Sequence[Row], seed: int) -> dict[Part, list[Row]]:
    """The rows by part, each with its `stem_sha256`. The same rows and seed give the same parts; the order does not count."""
    groups = groups_of(rows)
    size: dict[str, int] = {}
    for group in groups:
        size[group] = size.get(group, 0) + 1
    part_of: dict[str, Part] = {}
    before = 0
    for group in sorted(size, key=lambda name: digest(f"{seed}/{name}")):
        part_of[group] = part_at((before + size[group] / 2) / len(rows))
        before += size[group]
    found: dict[Part, list[Row]] = {part: [] for part in SHARES}
    for row, group in zip(rows, groups, strict=True):
        found[part_of[group]].append({**row, "stem_sha256": group})
    return {part: sorted(members, key=lambda row: digest(f"{seed}/{row['id']}")) for part, members in found.items()}


def part_at(place: float) -> Part:
    """The part at a place from 0 to 1."""
    for part, share in SHARES.items():
        if place < share:
            return part
        place -= share
    return "live"


def drawn(rows: Sequence[Row], n: int, seed: int) -> list[Row]:
    """At most `n` of the rows, chosen by their ids."""
    return sorted(rows, key=lambda row: digest(f"drawn/{seed}/{row['id']}"))[:n]


def digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()


def groups_of(rows: Sequence[Row]) -> list[str]:
    """A name of each row's group: the operator's own, else that of its near-duplicates."""
    texts = [text_of(row) for row in rows]
    found = duplicates(texts)
    return [
        next((str(row[name]) for name in GROUPS if row.get(name) is not None), digest(texts[first]))
        for row, first in zip(rows, found, strict=True)
    ]


def duplicates(texts: Sequence[str]) -> list[int]:
    """For each text the place of the first that it belongs to."""
    found = firsts(near_duplicates([folded(text) for text in texts]).tolist())
    same = firsts([folded(text) for text in texts])
    most = max(2.0, LARGEST_GROUP * len(texts))
    sizes = Counter(found)
    return [group if sizes[group] <= most else same[i] for i, group in enumerate(found)]


def firsts(names: Sequence[Any]) -> list[int]:
    """For each name its first place."""
    places: dict[Any, int] = {}
    return [places.setdefault(name, i) for i, name in enumerate(names)]


def folded(text: str) -> str:
    """The text without what does not make it another prompt: case, spaces, marks at its end."""
    return " ".join(text.casefold().split()).rstrip(".!?")
