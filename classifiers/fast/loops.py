"""The default classifier for one text, as loops that numba compiles; functions are named after the numpy ones they equal.

Arrays are arguments, not module globals: compiled code is cached on disk and must not contain another module's tables.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

from classifiers.text.ngrams import DIGIT, LETTER, SIGN, SPACE

F = TypeVar("F", bound=Callable[..., Any])

NO_GROUP = 255  # a byte that belongs to no group of signs


def jit(function: F) -> F:
    """Compile at the first call, and cache the result on disk if a cache folder can be written."""
    try:
        return cast(F, njit(cache=True)(function))
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return cast(F, njit(function))


@jit
def tokenize(raw: Any, classes: Any, fold: Any, powers: Any) -> Any:
    """(starts, lengths, kinds, hashes) of the tokens of one text: ngrams.tokenize and ngrams.token_hashes."""
    n = len(raw)
    starts, lengths = np.empty(n, np.int64), np.empty(n, np.int64)
    kinds, hashes = np.empty(n, np.uint8), np.empty(n, np.uint64)
    count, at = 0, 0
    while at < n:
        kind, begin = classes[raw[at]], at
        hashed = fold[raw[at]] * powers[0]
        at += 1
        if kind != SIGN:
            while at < n and classes[raw[at]] == kind:
                hashed += fold[raw[at]] * powers[min(at - begin, len(powers) - 1)]
                at += 1
        if kind != SPACE:
            starts[count], lengths[count], kinds[count], hashes[count] = begin, at - begin, kind, hashed
            count += 1
    return starts[:count], lengths[:count], kinds[:count], hashes[:count]


@jit
def count_distinct(ordered: Any) -> Any:
    """How many different values there are in a sorted array."""
    count = 0
    for i in range(len(ordered)):
        if i == 0 or ordered[i] != ordered[i - 1]:
            count += 1
    return count


@jit
def count_bytes(raw: Any, classes: Any, group_of: Any, n_groups: Any) -> Any:
    """(counts by group of signs (n_groups,), lines, upper, digits, other scripts, doubled letters, last line break)."""
    signs = np.zeros(n_groups)
    lines, upper, digits, other, doubled, last_break = 1, 0, 0, 0, 0, 0
    for i in range(len(raw)):
        byte = raw[i]
        if byte == 10:
            lines += 1
            last_break = i
        elif 65 <= byte <= 90:
            upper += 1
        elif 48 <= byte <= 57:
            digits += 1
        elif byte >= 128:
            other += 1
        if group_of[byte] != NO_GROUP:
            signs[group_of[byte]] += 1
        if i and byte == raw[i - 1] and classes[byte] == LETTER:
            doubled += 1
    return signs, lines, upper, digits, other, doubled, last_break


@jit
def count_words(raw: Any, starts: Any, lengths: Any, kinds: Any, opens: Any, closes: Any) -> Any:
    """(words, their letters, longest, options, lone letters, long words, signs), counted in tokens."""
    words, letters, longest, options, lone, long_words, signs = 0, 0, 0, 0, 0, 0, 0
    for t in range(len(starts)):
        length = lengths[t]
        if kinds[t] == SIGN:
            signs += 1
        elif kinds[t] == LETTER:
            words += 1
            letters += length
            longest = max(longest, length)
            lone += length == 1
            long_words += length >= 9
            options += length == 1 and opens[raw[max(starts[t] - 1, 0)]] and closes[raw[starts[t] + length]]
    return words, letters, longest, options, lone, long_words, signs


@jit
def count_numbers(raw: Any, starts: Any, lengths: Any, kinds: Any) -> Any:
    """(numbers, their digits, longest, second longest, one-digit numbers, decimals)."""
    numbers, digits, longest, second, single, decimals = 0, 0, 0, 0, 0, 0
    for t in range(len(starts)):
        length, after = lengths[t], starts[t] + lengths[t]
        if kinds[t] == DIGIT:
            numbers += 1
            digits += length
            second = max(second, min(longest, length))
            longest = max(longest, length)
            single += length == 1
            decimals += raw[after] == 46 and after + 1 < len(raw) and 48 <= raw[after + 1] <= 57
    return numbers, digits, longest, second, single, decimals


@jit
def count_themes(hashes: Any, words: Any, member: Any) -> Any:
    """(n_themes,) how often words of each theme occur."""
    out = np.zeros(member.shape[1])
    for hashed in hashes:
        at = np.searchsorted(words, hashed)
        if at < len(words) and words[at] == hashed:
            out += member[at]
    return out


@jit
def hand_features(raw: Any, starts: Any, lengths: Any, kinds: Any, hashes: Any, tables: Any) -> Any:
    """(len(FEATURES),) of one text: features.hand_features."""
    classes, group_of, opens, closes, known, member, n_groups = tables
    signs, lines, upper, digits, other, doubled, last_break = count_bytes(raw, classes, group_of, n_groups)
    words, letters, longest_word, options, lone, long_words, marks = count_words(raw, starts, lengths, kinds, opens, closes)
    numbers, number_digits, longest, second, single, decimals = count_numbers(raw, starts, lengths, kinds)
    n, tokens, size, counted = len(raw), len(starts), max(len(raw) - 1, 1), max(words, 1)
    sizes = (np.log1p(float(size)), np.log1p(float(tokens)), np.log1p(float(lines)))
    word_lengths = (counted / lines, letters / counted, float(longest_word))
    shares = (upper / size, digits / size, marks / size, other / size, count_distinct(np.sort(hashes)) / max(tokens, 1))
    number_counts = (float(numbers), np.log1p(float(numbers)))
    number_lengths = (float(longest), number_digits / max(numbers, 1), np.log1p(float(number_digits)), float(second))
    kinds_of_number = (float(single), float(decimals))
    letter_counts = (float(options), float(lone), float(long_words))
    ends = ((n - last_break) / (size + 1), 1.0 if 65 <= raw[0] <= 90 else 0.0, float(doubled))
    shape = sizes + word_lengths + shares + number_counts + number_lengths + kinds_of_number + letter_counts + ends
    out = np.empty(len(shape))
    for j in range(len(shape)):
        out[j] = shape[j]
    return np.concatenate((out, np.log1p(signs), np.log1p(count_themes(hashes, known, member))))


@jit
def count_grams(hashes: Any, mix: Any, shift: Any) -> Any:
    """(buckets, counts) of the tokens and of each pair of neighbours: ngrams.count_grams."""
    n = len(hashes)
    every = np.empty(max(2 * n - 1, 0), np.int64)
    for i in range(n):
        mixed = (hashes[i] ^ (hashes[i] >> np.uint64(29))) * mix
        every[i] = np.int64(mixed >> shift)
        if i + 1 < n:
            pair = hashes[i] * np.uint64(31) + hashes[i + 1]
            mixed = (pair ^ (pair >> np.uint64(29))) * mix
            every[n + i] = np.int64(mixed >> shift)
    every = np.sort(every)
    bucket, count, found = np.empty(len(every), np.int64), np.empty(len(every), np.int64), 0
    for i in range(len(every)):
        if i and every[i] == every[i - 1]:
            count[found - 1] += 1
        else:
            bucket[found], count[found] = every[i], 1
            found += 1
    return bucket[:found], count[:found]


@jit
def project(bucket: Any, count: Any, column: Any, rarity: Any, coef: Any) -> Any:
    """(m,) the text's TF-IDF row, scaled to length 1, times coef (n_columns, m): rarity.WordWeights.project."""
    out, total = np.zeros(coef.shape[1]), 0.0
    for i in range(len(bucket)):
        at = column[bucket[i]]
        if at >= 0:
            value = (1 + np.log(float(count[i]))) * rarity[at]
            total += value * value
            for j in range(len(out)):
                out[j] += value * coef[at, j]
    if total > 0:
        out /= np.sqrt(total)
    return out


@jit
def walk_average(x: Any, roots: Any, feature: Any, threshold: Any, child: Any, value: Any) -> Any:
    """(n_tiers,) mean of the leaves that x falls into: trees.walk_average. feature: for a leaf, -1 - its row of value."""
    out = np.zeros(value.shape[1])
    for t in range(len(roots)):
        at = roots[t]
        while feature[at] >= 0:
            at = child[at, 1 if x[feature[at]] > threshold[at] else 0]
        leaf = -1 - feature[at]
        for k in range(len(out)):
            out[k] += value[leaf, k]
    return out / len(roots)


@jit
def scaled(x: Any, mean: Any, scale: Any, reach: Any) -> Any:
    """(x - mean) / scale, clipped to ± reach."""
    out = np.empty(len(x))
    for j in range(len(x)):
        out[j] = min(max((x[j] - mean[j]) / scale[j], -reach), reach)
    return out


@jit
def add_product(x: Any, matrix: Any, out: Any) -> Any:
    """out + x @ matrix, in place. The matrices are too small for BLAS to pay off."""
    for i in range(len(x)):
        for k in range(len(out)):
            out[k] += x[i] * matrix[i, k]
    return out


@jit
def unfamiliar(x: Any, bucket: Any, familiar: Any) -> Any:
    """From 0 to 1: familiar.unfamiliar."""
    seen, mean, reach, whiten, middle, edge = familiar
    unknown = 0
    for i in range(len(bucket)):
        unknown += 1 - ((seen[bucket[i] >> 3] >> (7 - (bucket[i] & 7))) & 1)
    share = unknown / len(bucket) if len(bucket) else 1.0
    off = np.empty(len(x))
    for j in range(len(x)):
        off[j] = min(max(x[j] - mean[j], -reach[j]), reach[j])
    distance = np.sqrt((add_product(off, whiten, np.zeros(whiten.shape[1])) ** 2).mean())
    beyond = max((share - edge[0]) / (edge[0] - middle[0]), (distance - edge[1]) / (edge[1] - middle[1]))
    return min(max(beyond, 0.0), 1.0)


@jit
def assess(raw: Any, fitted: Any) -> Any:
    """(log-odds (n_tiers,), costs (n_tiers,), unfamiliarity) of one text: Sufficiency.assess of an Ensemble.

    fitted: `one_text.Compiled.fitted`.
    """
    cutting, tables, mixing, linear, latent, trees, calibration, costs, familiar = fitted
    starts, lengths, kinds, hashes = tokenize(raw, *cutting)
    x = hand_features(raw, starts, lengths, kinds, hashes, tables)
    bucket, count = count_grams(hashes, *mixing)

    column, rarity, coef, mean, scale, hand_weight, by_hand, bias = linear
    from_words = project(bucket, count, column, rarity, coef) + bias
    z = add_product(hand_weight * scaled(x, mean, scale, 4.0), by_hand, from_words)

    column, rarity, axes = latent
    position = project(bucket, count, column, rarity, axes)
    position /= max(np.sqrt((position * position).sum()), 1e-9)
    seen = np.concatenate((x, position)).astype(np.float32)
    p = np.minimum(np.maximum(walk_average(seen, *trees), 0.01), 0.99)
    z = (z + np.log(p) - np.log1p(-p)) / 2

    slope, offset, prior, trusted = calibration
    strange = unfamiliar(x, bucket, familiar)
    share = min(max((strange - trusted) / (1 - trusted), 0.0), 1.0)
    z = (1 - share) * (z * slope + offset) + share * prior

    mean, scale, coef, bias, low, high = costs
    cost = add_product(scaled(x, mean, scale, 4.0), coef, bias.copy())
    return z, np.exp(np.minimum(np.maximum(cost, low), high)), strange
