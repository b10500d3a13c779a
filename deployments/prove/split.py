"""Splits prompts into those to learn from, to certify with and to try live. What resembles each other stays together.

Two prompts are near-duplicates where their character 5-grams overlap by 0.8 (Jaccard) and their numbers and quoted strings are
the same: "12 plus 34" and "13 plus 34" are two tasks.
"""

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
from scipy.sparse import csr_matrix

from classifiers import prompt_text
from router.learn.chats import chat_of

Row = dict[str, Any]
Part = Literal["teach", "certify", "live"]
SHARES: dict[Part, float] = {"teach": 0.60, "certify": 0.25, "live": 0.15}
GROUPS = ("stem_sha256", "conversation", "group")
"""columns by which the operator says what belongs together; the first that a row has counts"""
GRAM = 5
ALIKE = 0.8
LARGEST_GROUP = 0.05
"""share of the prompts; a larger group is a template that many requests share, not one prompt again and again"""
AT_ONCE = 512
"""prompts that are compared with all others in one product"""

_FIXED = re.compile(r"\d+(?:\.\d+)?|\"[^\"]*\"|'[^']*'|`[^`]*`")


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
    parent = list(range(len(texts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in alike(texts):
        a, b = sorted((root(i), root(j)))
        parent[b] = a
    roots = [root(i) for i in range(len(texts))]
    sizes = np.bincount(roots, minlength=len(texts)) if texts else np.zeros(0)
    most = max(2.0, LARGEST_GROUP * len(texts))
    same: dict[str, int] = {}
    firsts = [same.setdefault(folded(text), i) for i, text in enumerate(texts)]
    return [found if sizes[found] <= most else firsts[i] for i, found in enumerate(roots)]


def folded(text: str) -> str:
    """The text without what does not make it another prompt: case, spaces, marks at its end."""
    return " ".join(text.casefold().split()).rstrip(".!?")


def alike(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of near-duplicates, the first place lower."""
    grams, fixed = incidence(texts), [tuple(_FIXED.findall(text.casefold())) for text in texts]
    sizes = np.asarray(grams.sum(axis=1)).ravel()
    found: list[tuple[int, int]] = []
    for start in range(0, len(texts), AT_ONCE):
        shared = (grams[start : start + AT_ONCE] @ grams.T).tocoo()
        rows, columns = shared.row + start, shared.col
        jaccard = shared.data / (sizes[rows] + sizes[columns] - shared.data)
        close = (jaccard >= ALIKE) & (rows < columns)
        pairs = zip(rows[close].tolist(), columns[close].tolist(), strict=True)
        found += [(i, j) for i, j in pairs if fixed[i] == fixed[j]]
    return found


def incidence(texts: Sequence[str]) -> csr_matrix:
    """(n, number of different 5-grams) ones where a text has a 5-gram."""
    places: dict[str, int] = {}
    columns: list[int] = []
    starts = [0]
    for text in texts:
        plain = f" {folded(text)} "
        columns += {places.setdefault(plain[k : k + GRAM], len(places)) for k in range(max(1, len(plain) - GRAM + 1))}
        starts.append(len(columns))
    shape = (len(texts), max(1, len(places)))
    return csr_matrix((np.ones(len(columns), dtype=np.float32), np.array(columns, dtype=np.int64), np.array(starts)), shape=shape)
