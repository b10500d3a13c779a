"""One decision compiled: the default classifier on one text, in a tenth of the time of numpy's calls.

A text of 500 characters is 110 tokens: too few for numpy, whose 250 calls then take a millisecond whatever they do. Here the
same steps (ngrams, features, rarity, latent, trees, familiar, costs) are loops that numba compiles. The results equal theirs to
1e-9 (tests/classifiers/test_compiled.py); batches and training stay with numpy, and so does everything where numba is missing.

Arrays are handed in rather than taken from modules: what is compiled is kept on disk, and must not keep another module's tables.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from classifiers import features, ngrams
from classifiers.base import logit
from classifiers.ensemble import Ensemble
from classifiers.sufficiency import TRUSTED, Sufficiency
from classifiers.text import clip

Floats = NDArray[np.float64]
F = TypeVar("F", bound=Callable[..., Any])

N_SHAPE = len(features.FEATURES) - len(features.SIGN_GROUPS) - len(features.WORD_GROUPS)
SPACE, LETTER, DIGIT, SIGN = ngrams.SPACE, ngrams.LETTER, ngrams.DIGIT, ngrams.SIGN
NO_GROUP = 255


def jit(function: F) -> F:
    """Compiled at the first call, and kept on disk where a folder for it can be written."""
    try:
        return cast(F, njit(cache=True)(function))
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return cast(F, njit(function))


@jit
def cut(raw: Any, classes: Any, fold: Any, powers: Any) -> Any:
    """(starts, lengths, kinds, hashes) of the tokens of one text: ngrams.tokenize and token_hashes."""
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
def distinct(ordered: Any) -> Any:
    """How many different values there are in a sorted array."""
    count = 0
    for i in range(len(ordered)):
        if i == 0 or ordered[i] != ordered[i - 1]:
            count += 1
    return count


@jit
def hand(raw: Any, starts: Any, lengths: Any, kinds: Any, hashes: Any, tables: Any) -> Any:
    """(len(FEATURES),) of one text: features.hand_features."""
    classes, group_of, opens, closes, words, member, n_groups = tables
    n, tokens = len(raw), len(starts)
    out = np.zeros(N_SHAPE + n_groups + member.shape[1])
    size = max(n - 1, 1)
    lines, upper, digits, other, doubled, last_break = 1, 0, 0, 0, 0, 0
    for i in range(n):
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
            out[N_SHAPE + group_of[byte]] += 1
        if i and byte == raw[i - 1] and classes[byte] == LETTER:
            doubled += 1
    n_words, letters, longest_word, signs = 0, 0, 0, 0
    numbers, number_digits, longest, second, single, decimals = 0, 0, 0, 0, 0, 0
    options, lone, long_words = 0, 0, 0
    for t in range(tokens):
        start, length, kind = starts[t], lengths[t], kinds[t]
        after = start + length
        if kind == LETTER:
            n_words += 1
            letters += length
            longest_word = max(longest_word, length)
            if length == 1:
                lone += 1
                if opens[raw[max(start - 1, 0)]] and closes[raw[after]]:
                    options += 1
            elif length >= 9:
                long_words += 1
        elif kind == DIGIT:
            numbers += 1
            number_digits += length
            if length >= longest:
                longest, second = length, longest
            elif length > second:
                second = length
            if length == 1:
                single += 1
            if raw[after] == 46 and after + 1 < n and 48 <= raw[after + 1] <= 57:
                decimals += 1
        else:
            signs += 1
        at = np.searchsorted(words, hashes[t])
        if at < len(words) and words[at] == hashes[t]:
            out[N_SHAPE + n_groups :] += member[at]
    for j in range(N_SHAPE, len(out)):
        out[j] = np.log1p(out[j])
    counted = max(n_words, 1)
    shape = (
        np.log1p(float(size)), np.log1p(float(tokens)), np.log1p(float(lines)), counted / lines,
        letters / counted, float(longest_word), upper / size, digits / size, signs / size, other / size,
        distinct(np.sort(hashes)) / max(tokens, 1),
        float(numbers), np.log1p(float(numbers)), float(longest), number_digits / max(numbers, 1),
        np.log1p(float(number_digits)), float(second), float(single), float(decimals),
        float(options), float(lone), float(long_words),
        (n - last_break) / (size + 1), 1.0 if 65 <= raw[0] <= 90 else 0.0, float(doubled),
    )  # fmt: skip
    for j in range(len(shape)):
        out[j] = shape[j]
    return out


@jit
def grams(hashes: Any, mix: Any, shift: Any) -> Any:
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
    """(m,) the text's row of TF-IDF, of length 1, times coef (n_columns, m): rarity.WordWeights.project."""
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
def forest(x: Any, roots: Any, feature: Any, threshold: Any, child: Any, value: Any) -> Any:
    """(n_tiers,) mean of the leaves that x falls into: trees.walk_average. feature: of a leaf, -1 - its row of value."""
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
    """(x - mean) / scale, no further from 0 than reach."""
    out = np.empty(len(x))
    for j in range(len(x)):
        out[j] = min(max((x[j] - mean[j]) / scale[j], -reach), reach)
    return out


@jit
def times(x: Any, matrix: Any, out: Any) -> Any:
    """out + x @ matrix, in place; no BLAS for so few numbers."""
    for i in range(len(x)):
        for k in range(len(out)):
            out[k] += x[i] * matrix[i, k]
    return out


@jit
def strangeness(x: Any, bucket: Any, familiar: Any) -> Any:
    """From 0 to 1: familiar.unfamiliar."""
    seen, mean, reach, whiten, middle, edge = familiar
    unknown = 0
    for i in range(len(bucket)):
        unknown += 1 - ((seen[bucket[i] >> 3] >> (7 - (bucket[i] & 7))) & 1)
    share = unknown / len(bucket) if len(bucket) else 1.0
    off = np.empty(len(x))
    for j in range(len(x)):
        off[j] = min(max(x[j] - mean[j], -reach[j]), reach[j])
    distance = np.sqrt((times(off, whiten, np.zeros(whiten.shape[1])) ** 2).mean())
    beyond = max((share - edge[0]) / (edge[0] - middle[0]), (distance - edge[1]) / (edge[1] - middle[1]))
    return min(max(beyond, 0.0), 1.0)


@jit
def assess(
    raw: Any, cutting: Any, tables: Any, mixing: Any, linear: Any, latent: Any, trees: Any, calibration: Any,
    costs: Any, familiar: Any,
) -> Any:  # fmt: skip
    """(log-odds (n_tiers,), costs (n_tiers,), unfamiliarity) of one text: Sufficiency.assess of an Ensemble."""
    starts, lengths, kinds, hashes = cut(raw, *cutting)
    x = hand(raw, starts, lengths, kinds, hashes, tables)
    bucket, count = grams(hashes, *mixing)

    column, rarity, coef, mean, scale, hand_weight, by_hand, bias = linear
    from_words = project(bucket, count, column, rarity, coef) + bias
    z = times(hand_weight * scaled(x, mean, scale, 4.0), by_hand, from_words)

    column, rarity, axes = latent
    position = project(bucket, count, column, rarity, axes)
    position /= max(np.sqrt((position * position).sum()), 1e-9)
    seen = np.concatenate((x, position)).astype(np.float32)
    p = np.minimum(np.maximum(forest(seen, *trees), 0.01), 0.99)
    z = (z + np.log(p) - np.log1p(-p)) / 2

    slope, offset, prior, trusted = calibration
    strange = strangeness(x, bucket, familiar)
    share = min(max((strange - trusted) / (1 - trusted), 0.0), 1.0)
    z = (1 - share) * (z * slope + offset) + share * prior

    mean, scale, coef, bias, low, high = costs
    cost = times(scaled(x, mean, scale, 4.0), coef, bias.copy())
    return z, np.exp(np.minimum(np.maximum(cost, low), high)), strange


def groups_of_bytes() -> NDArray[np.uint8]:
    """(256,) which group of signs a byte is in; NO_GROUP where in none."""
    table = np.full(256, NO_GROUP, dtype=np.uint8)
    for at, signs in enumerate(features.SIGN_GROUPS.values()):
        table[[ord(sign) for sign in signs]] = at
    return table


def flat_trees(forest: dict[str, Any]) -> tuple[NDArray[Any], ...]:
    """roots, feature, threshold, child, value as the function `forest` takes them."""
    feature = np.where(forest["leaf"] >= 0, -1 - forest["leaf"], forest["feature"]).astype(np.int32)
    child = forest["child"].reshape(-1, 2).astype(np.int32)
    return forest["roots"].astype(np.int32), feature, forest["threshold"], child, forest["value"]


def ready(array: Any, kind: type) -> NDArray[Any]:
    """As what is compiled takes it: of that kind, in one piece, writable; copied only where it is not so."""
    return np.require(array, dtype=kind, requirements=["C", "W"])


def all_ready(*pairs: tuple[Any, type]) -> tuple[NDArray[Any], ...]:
    return tuple(ready(array, kind) for array, kind in pairs)


class Compiled:
    """A fitted Sufficiency of the default kind, to be asked about one text at a time."""

    def __init__(self, model: Sufficiency) -> None:
        """Raises TypeError where the model is of another kind, which is not compiled."""
        if type(model.inner_) is not Ensemble:
            raise TypeError(f"{type(model.inner_).__name__} is not compiled, only Ensemble")
        f8, f4, i4 = np.float64, np.float32, np.int32
        line, trees, near, cost = model.inner_.linear_, model.inner_.forest_, model.familiar_, model.cost_
        tables = (
            *all_ready((ngrams.CLASS_OF_BYTE, np.uint8), (groups_of_bytes(), np.uint8), (features.OPENS_OPTION, np.bool_)),
            *all_ready((features.CLOSES_OPTION, np.bool_), (features.WORDS, np.uint64), (features.MEMBER, f8)),
            len(features.SIGN_GROUPS),
        )
        linear = (
            *all_ready((line.words_["column"], i4), (line.words_["rarity"], f4), (line.coef_, f4), (line.mean_, f8)),
            ready(line.scale_, f8), float(line.hand_weight), ready(line.hand_, f8), ready(line.bias_, f8),
        )  # fmt: skip
        words = trees.latent_["words"]
        roots, feature, threshold, child, value = flat_trees(trees.forest_)
        reach = np.broadcast_to(near.get("reach", np.inf), np.shape(near["mean"]))  # older artefacts set no limit
        self.fitted = (
            all_ready((ngrams.CLASS_OF_BYTE, np.uint8), (ngrams.FOLD, np.uint64), (ngrams.POWERS, np.uint64)),
            tables,
            (ngrams.MIX, np.uint64(64 - ngrams.BITS)),
            linear,
            all_ready((words["column"], i4), (words["rarity"], f4), (trees.latent_["axes"], f4)),
            all_ready((roots, i4), (feature, i4), (threshold, f4), (child, i4), (value, f4)),
            (*all_ready((model.slope_, f8), (model.offset_, f8), (logit(np.clip(model.prior_, 0.01, 0.99)), f8)), TRUSTED),
            all_ready(*((cost[key], f8) for key in ("mean", "scale", "coef", "bias", "low", "high"))),
            all_ready((near["seen"], np.uint8), (near["mean"], f8), (reach, f8), (near["whiten"], f4),
                      (near["middle"], f8), (near["edge"], f8)),
        )  # fmt: skip
        self.assess("")  # compiles, or takes what was compiled before

    def assess(self, text: str) -> tuple[Floats, Floats, float]:
        """(n_tiers,) log-odds, (n_tiers,) costs with the top tier's mean = 1, how unfamiliar: Sufficiency.assess's row."""
        raw = np.frombuffer(bytearray(clip(text).encode("utf-8", "replace") + b" "), dtype=np.uint8)
        found: tuple[Floats, Floats, float] = assess(raw, *self.fitted)
        return found


def is_kept() -> bool:
    """Whether something compiled lies on disk; it may be of an older version."""
    folder = getattr(getattr(assess, "_cache", None), "cache_path", "")
    return bool(folder) and any(Path(folder).glob("compiled.assess*.nbi"))


def compile_apart(folder: str) -> None:
    """Compile for the artefact in `folder` in a process of its own, where nothing is kept yet.

    The compiler would hold this one's lock for 15 s, and 100 MB for good.
    """
    if not is_kept():
        subprocess.run([sys.executable, "-m", "classifiers.compiled", folder], check=False, timeout=300)


if __name__ == "__main__":
    from classifiers.artifact import load

    load(sys.argv[1]).model.compile()
