"""Hand-made features of texts: length, numbers, options, mathematics, code, key words.

They are counted on the bytes and tokens that the n-grams need anyway (ngrams.Tokens), without regular expressions.
"""

import tomllib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from classifiers.arrays import Floats, Ints
from classifiers.text.ngrams import CLASS_OF_BYTE, DIGIT, LETTER, SIGN, Tokens, token_hashes, tokenize

_GROUPS = tomllib.loads(Path(__file__).with_name("groups.toml").read_text("utf-8"))
SIGN_GROUPS: dict[str, str] = _GROUPS["signs"]
WORD_GROUPS: dict[str, str] = _GROUPS["words"]
_SHAPE = (
    "log_bytes log_tokens log_lines words_per_line mean_word longest_word upper_share digit_share sign_share "
    "other_script_share distinct_share numbers log_numbers longest_number mean_number_digits all_number_digits "
    "second_number one_digit_numbers decimals options single_letters long_words last_line_share first_is_upper "
    "repeated_letters"
).split()
FEATURES: tuple[str, ...] = (*_SHAPE, *SIGN_GROUPS, *WORD_GROUPS)


def _set_of(signs: str) -> NDArray[np.bool_]:
    """(256,) true for the bytes of the signs."""
    table = np.zeros(256, dtype=bool)
    table[[ord(sign) for sign in signs]] = True
    return table


OPENS_OPTION = _set_of("\n( ")
CLOSES_OPTION = _set_of(".):")
_DIGITS = _set_of("0123456789")
_WORDS = sorted({word for group in WORD_GROUPS.values() for word in group.split()})
_WORD_HASHES = token_hashes(tokenize([" ".join(_WORDS)]))
_ORDER = np.argsort(_WORD_HASHES)
WORDS = _WORD_HASHES[_ORDER]  # rising
# Membership in groups, 1 or 0: (n_words, n_word_groups) of WORDS, and (256, n_sign_groups) of bytes.
WORD_MEMBER = np.array([[word in group.split() for group in WORD_GROUPS.values()] for word in _WORDS], dtype=float)[_ORDER]
SIGN_MEMBER = np.stack([_set_of(signs) for signs in SIGN_GROUPS.values()], axis=1).astype(np.float64)


def _sum_by(index: Ints, weights: Floats | None, n: int) -> Floats:
    return np.bincount(index, weights=weights, minlength=n)[:n].astype(np.float64)


def _word_themes(tokens: Tokens, hashes: NDArray[np.uint64], n: int) -> Floats:
    """(n, n_word_groups) how often words of each group occur."""
    at = np.minimum(np.searchsorted(WORDS, hashes), len(WORDS) - 1)
    hit = WORDS[at] == hashes
    per_word = np.bincount(tokens.doc[hit] * len(WORDS) + at[hit], minlength=n * len(WORDS))
    return np.asarray(per_word.reshape(n, len(WORDS)) @ WORD_MEMBER)


def _top_two(doc: Ints, value: Floats, n: int) -> tuple[Floats, Floats]:
    """The largest and second largest value of each text, or 0."""
    order = np.lexsort((value, doc))
    doc, value = doc[order], value[order]
    count = np.bincount(doc, minlength=n)
    ends = np.cumsum(count)
    padded = np.append(value, [0.0, 0.0])
    first = np.where(count > 0, padded[ends - 1], 0.0)
    second = np.where(count > 1, padded[ends - 2], 0.0)
    return first, second


def _number_features(tokens: Tokens, n: int) -> list[Floats]:
    """From `numbers` to `decimals`: how many numbers there are, and how long they are."""
    is_number = tokens.kind == DIGIT
    doc, digits = tokens.doc[is_number], tokens.lengths[is_number].astype(np.float64)
    count, total = _sum_by(doc, None, n), _sum_by(doc, digits, n)
    longest, second = _top_two(doc, digits, n)
    single = _sum_by(doc[digits == 1], None, n)
    after = tokens.starts + tokens.lengths
    padded = np.append(tokens.raw, np.zeros(2, dtype=np.uint8))
    decimal = is_number & (padded[after] == ord(".")) & _DIGITS[padded[after + 1]]
    decimals = _sum_by(tokens.doc[decimal], None, n)
    return [count, np.log1p(count), longest, total / np.maximum(count, 1), np.log1p(total), second, single, decimals]


def _letter_features(tokens: Tokens, n: int) -> list[Floats]:
    """From `options` to `long_words`: "A." or "(B)" at a line's start, lone letters, words of nine letters or more."""
    before = tokens.raw[np.maximum(tokens.starts - 1, 0)]
    after = tokens.raw[tokens.starts + tokens.lengths]
    lone = (tokens.kind == LETTER) & (tokens.lengths == 1)
    option = lone & OPENS_OPTION[before] & CLOSES_OPTION[after]
    long_words = (tokens.kind == LETTER) & (tokens.lengths >= 9)
    return [_sum_by(tokens.doc[mask], None, n) for mask in (option, lone, long_words)]


def _distinct_share(tokens: Tokens, hashes: NDArray[np.uint64], n: int, count: Floats) -> Floats:
    """Distinct tokens as a share of all tokens."""
    order = np.lexsort((hashes, tokens.doc))
    doc, ordered = tokens.doc[order], hashes[order]
    new = np.ones(len(doc), dtype=bool)
    new[1:] = (doc[1:] != doc[:-1]) | (ordered[1:] != ordered[:-1])
    return np.asarray(_sum_by(doc[new], None, n) / np.maximum(count, 1))


def _shape_features(tokens: Tokens, hashes: NDArray[np.uint64], histogram: Floats, text_of_byte: Ints) -> list[Floats]:
    """All of _SHAPE, in order. histogram: (n, 256) bytes of each text."""
    n = len(histogram)
    size = np.maximum(np.diff(tokens.bounds) - 1, 1).astype(np.float64)
    count = _sum_by(tokens.doc, None, n)
    words = tokens.kind == LETTER
    word_count = np.maximum(_sum_by(tokens.doc[words], None, n), 1)
    word_length = tokens.lengths * words.astype(np.float64)
    longest = np.zeros(n)
    np.maximum.at(longest, tokens.doc, word_length)
    lines = histogram[:, 10] + 1
    upper, digits = histogram[:, 65:91].sum(1), histogram[:, 48:58].sum(1)
    signs = _sum_by(tokens.doc[tokens.kind == SIGN], None, n)
    newline = np.flatnonzero(tokens.raw == 10)
    last_break = tokens.bounds[:-1].copy()
    np.maximum.at(last_break, text_of_byte[newline], newline)
    first = tokens.raw[tokens.bounds[:-1]]
    same = np.flatnonzero((tokens.raw[1:] == tokens.raw[:-1]) & (CLASS_OF_BYTE[tokens.raw[1:]] == LETTER))
    doubled = _sum_by(text_of_byte[same], None, n)
    return [
        np.log1p(size),
        np.log1p(count),
        np.log1p(lines),
        word_count / lines,
        _sum_by(tokens.doc, word_length, n) / word_count,
        longest,
        upper / size,
        digits / size,
        signs / size,
        histogram[:, 128:].sum(1) / size,
        _distinct_share(tokens, hashes, n, count),
        *_number_features(tokens, n),
        *_letter_features(tokens, n),
        (tokens.bounds[1:] - last_break) / (size + 1),
        ((first >= 65) & (first <= 90)).astype(np.float64),
        doubled,
    ]


def hand_features(tokens: Tokens, hashes: NDArray[np.uint64]) -> Floats:
    """(n_texts, len(FEATURES)) in the order of FEATURES; counts of signs and words on a logarithmic scale."""
    n = len(tokens.bounds) - 1
    text_of_byte = np.repeat(np.arange(n), np.diff(tokens.bounds))
    histogram = np.bincount(text_of_byte * 256 + tokens.raw, minlength=n * 256).reshape(n, 256).astype(np.float64)
    shape = np.stack(_shape_features(tokens, hashes, histogram, text_of_byte), axis=1)
    counts = np.concatenate([histogram @ SIGN_MEMBER, _word_themes(tokens, hashes, n)], axis=1)
    return np.concatenate([shape, np.log1p(counts)], axis=1)
