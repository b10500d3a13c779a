"""Hashed word and character n-grams of many texts at once, with numpy only.

Each text becomes UTF-8 bytes; tokens are runs of letters, runs of digits and single signs. An n-gram's hash is a
polynomial of its bytes modulo 2**64, mixed and cut to `bits`. Word grams (one and two tokens) and character grams
(3 to 5 bytes) live in separate ranges of buckets, so that each block can be scaled to length 1 by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_PRIME = np.uint64(0x100000001B3)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_LONGEST = 64  # bytes of a token that count towards its hash
with np.errstate(over="ignore"):
    _POWERS = np.cumprod(np.full(_LONGEST, _PRIME, dtype=np.uint64))

SPACE, LETTER, DIGIT, SIGN = 0, 1, 2, 3


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
# Digits are one letter to the n-grams: how long a number is tells more than which it is.
_FOLD = _LOWER.copy()
_FOLD[ord("0") : ord("9") + 1] = ord("0")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Texts cut into tokens: one flat array of bytes with the places where tokens and texts begin.

    raw: (n_bytes,) the bytes, a space after each text. starts, lengths: (n_tokens,). kind: (n_tokens,) class of each
    token. doc: (n_tokens,) which text. bounds: (n_texts + 1,) where each text's bytes begin.
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
    np.cumsum(_FOLD[tokens.raw] * _POWERS[np.minimum(offset, _LONGEST - 1)], out=total[1:])
    return total[tokens.starts + tokens.lengths] - total[tokens.starts]


def _bucket(hashes: NDArray[np.uint64], bits: int) -> Ints:
    """Mix the hash and keep its top `bits`; a polynomial's low bits alone would collide."""
    mixed = (hashes ^ (hashes >> np.uint64(29))) * _MIX
    return (mixed >> np.uint64(64 - bits)).astype(np.int64)


def word_grams(tokens: Tokens, bits: int) -> tuple[Ints, Ints]:
    """(text, bucket) of each token and of each pair of neighbours, and of the first pair of each text as such."""
    hashes = token_hashes(tokens)
    same = tokens.doc[1:] == tokens.doc[:-1]
    pairs = (hashes[:-1] * np.uint64(31) + hashes[1:])[same]
    doc = np.concatenate([tokens.doc, tokens.doc[1:][same]])
    return doc, _bucket(np.concatenate([hashes, pairs]), bits)


def char_grams(tokens: Tokens, bits: int, longest: int = 5) -> tuple[Ints, Ints]:
    """(text, bucket) of each run of 3 to `longest` bytes within a text, white space counting as one space each."""
    folded = np.where(CLASS_OF_BYTE[tokens.raw] == SPACE, np.uint8(32), _FOLD[tokens.raw]).astype(np.uint64)
    ends = np.repeat(tokens.bounds[1:], np.diff(tokens.bounds))
    text = np.repeat(np.arange(len(tokens.bounds) - 1), np.diff(tokens.bounds))
    at = np.arange(len(folded))
    running = folded * _POWERS[0]
    docs, buckets = [], []
    for n in range(2, longest + 1):
        running = running[:-1] + folded[n - 1 :] * _POWERS[n - 1]
        if n >= 3:
            whole = at[: len(running)] + n <= ends[: len(running)]
            docs.append(text[: len(running)][whole])
            buckets.append(_bucket(running[whole], bits))
    return np.concatenate(docs), np.concatenate(buckets)


@dataclass(frozen=True, slots=True)
class Counts:
    """Sparse counts of n-grams, sorted by text, then bucket. text, bucket, count: (n_entries,)."""

    text: Ints
    bucket: Ints
    count: Ints


def count_grams(tokens: Tokens, bits: int, chars: bool = True) -> Counts:
    """Words in buckets [0, 2**bits), characters in [2**bits, 2**(bits + 1))."""
    doc, bucket = word_grams(tokens, bits)
    if chars:
        char_doc, char_bucket = char_grams(tokens, bits)
        doc, bucket = np.concatenate([doc, char_doc]), np.concatenate([bucket, char_bucket + (1 << bits)])
    keys, count = np.unique((doc << (bits + 1)) | bucket, return_counts=True)
    return Counts(keys >> (bits + 1), keys & ((1 << (bits + 1)) - 1), count)
