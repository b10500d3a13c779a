"""Hashed word n-grams of many texts at once, with numpy only.

Each text becomes UTF-8 bytes; tokens are runs of letters, runs of digits and single signs. A token's hash is a
polynomial of its bytes modulo 2**64; a bucket is the hash of a token or of two neighbours, mixed and cut to BITS.
Character n-grams took four times as long and decided no better (docs/experiments.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifiers.arrays import Ints

_PRIME = np.uint64(0x100000001B3)
MIX = np.uint64(0x9E3779B97F4A7C15)
BITS = 17
N_BUCKETS = 1 << BITS
_LONGEST = 64  # bytes of a token that count towards its hash
with np.errstate(over="ignore"):
    POWERS = np.cumprod(np.full(_LONGEST, _PRIME, dtype=np.uint64))

# Classes of bytes, and of the tokens that consist of them.
SPACE = 0
LETTER = 1
DIGIT = 2
SIGN = 3


def _byte_classes() -> NDArray[np.uint8]:
    table = np.full(256, SIGN, dtype=np.uint8)
    table[[9, 10, 11, 12, 13, 32, 0]] = SPACE
    table[ord("a") : ord("z") + 1] = LETTER
    table[ord("A") : ord("Z") + 1] = LETTER
    table[128:] = LETTER  # other scripts: every byte above ASCII belongs to a word
    table[ord("0") : ord("9") + 1] = DIGIT
    return table


CLASS_OF_BYTE = _byte_classes()
_LOWER = np.arange(256, dtype=np.uint8)
_LOWER[ord("A") : ord("Z") + 1] += 32
# N-grams see every digit as 0: a number's length says more than its value.
FOLD = _LOWER.copy()
FOLD[ord("0") : ord("9") + 1] = ord("0")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Texts cut into tokens: one flat array of bytes, and where tokens and texts begin in it.

    raw: (n_bytes,) the bytes, with a space after each text. starts, lengths: (n_tokens,). kind: (n_tokens,) the token's
    class. doc: (n_tokens,) the index of its text. bounds: (n_texts + 1,) where each text's bytes begin.
    """

    raw: NDArray[np.uint8]
    starts: Ints
    lengths: Ints
    kind: NDArray[np.uint8]
    doc: Ints
    bounds: Ints


def tokenize(texts: Sequence[str]) -> Tokens:
    """Cut texts into tokens. Lone surrogates become '?'."""
    pieces = [text.encode("utf-8", "replace") + b" " for text in texts]
    raw = np.frombuffer(b"".join(pieces), dtype=np.uint8)
    bounds = np.zeros(len(pieces) + 1, dtype=np.int64)
    np.cumsum([len(piece) for piece in pieces], out=bounds[1:])
    kinds = CLASS_OF_BYTE[raw]
    begins = np.empty(len(raw), dtype=bool)
    begins[:1] = True
    np.not_equal(kinds[1:], kinds[:-1], out=begins[1:])
    begins |= kinds == SIGN
    edges = np.flatnonzero(begins)
    ends = np.append(edges[1:], len(raw))
    keep = kinds[edges] != SPACE
    starts = edges[keep]
    doc = np.searchsorted(bounds, starts, side="right") - 1
    return Tokens(raw, starts, ends[keep] - starts, kinds[starts], doc, bounds)


def token_hashes(tokens: Tokens) -> NDArray[np.uint64]:
    """(n_tokens,) a hash of each token's folded bytes."""
    begin = np.zeros(len(tokens.raw), dtype=np.int64)
    begin[tokens.starts] = tokens.starts
    offset = np.arange(len(tokens.raw)) - np.maximum.accumulate(begin)
    total = np.zeros(len(tokens.raw) + 1, dtype=np.uint64)
    np.cumsum(FOLD[tokens.raw] * POWERS[np.minimum(offset, _LONGEST - 1)], out=total[1:])
    return np.asarray(total[tokens.starts + tokens.lengths] - total[tokens.starts])


def _bucket(hashes: NDArray[np.uint64]) -> Ints:
    """Mix the hash and keep its top bits; the low bits of a polynomial would collide."""
    mixed = (hashes ^ (hashes >> np.uint64(29))) * MIX
    return (mixed >> np.uint64(64 - BITS)).astype(np.int64)


def word_grams(tokens: Tokens, hashes: NDArray[np.uint64]) -> tuple[Ints, Ints]:
    """(text, bucket) of each token and of each pair of neighbours within a text."""
    same = tokens.doc[1:] == tokens.doc[:-1]
    pairs = (hashes[:-1] * np.uint64(31) + hashes[1:])[same]
    doc = np.concatenate([tokens.doc, tokens.doc[1:][same]])
    return doc, _bucket(np.concatenate([hashes, pairs]))


@dataclass(frozen=True, slots=True)
class Counts:
    """Sparse counts of n-grams by text. starts: (n_texts + 1,) into bucket and count, both (n_entries,)."""

    starts: Ints
    bucket: Ints
    count: Ints

    @property
    def text(self) -> Ints:
        """(n_entries,) the text of each entry."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def take(self, rows: Ints) -> "Counts":
        """The counts of some texts, in that order."""
        sizes = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        at = np.arange(starts[-1]) + np.repeat(self.starts[rows] - starts[:-1], sizes)
        return Counts(starts, self.bucket[at], self.count[at])


def count_grams(tokens: Tokens, hashes: NDArray[np.uint64]) -> Counts:
    """How often each n-gram occurs in each text."""
    doc, bucket = word_grams(tokens, hashes)
    keys = np.sort((doc << BITS) | bucket)
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    keys, count = keys[first], np.diff(np.append(first, len(keys)))
    starts = np.searchsorted(keys >> BITS, np.arange(len(tokens.bounds)))
    return Counts(starts, keys & (N_BUCKETS - 1), count)


def stack(parts: Sequence[Counts]) -> Counts:
    """The counts of several groups of texts, joined in order."""
    offsets = np.cumsum([0, *(part.starts[-1] for part in parts)])
    starts = [part.starts[:-1] + offset for part, offset in zip(parts, offsets, strict=False)]
    return Counts(
        np.concatenate([*starts, offsets[-1:]]),
        np.concatenate([part.bucket for part in parts]),
        np.concatenate([part.count for part in parts]),
    )
