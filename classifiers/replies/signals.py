"""The features of an answer: its token log-probabilities, its length and end, and whether another answer agrees.

`design` joins them with the prior chances, and `posterior.py` learns heads on that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifiers.arrays import Floats
from classifiers.models.base import logit
from classifiers.replies.answers import same

Answered = tuple[int, ...]  # indices of the tiers that have answered, in rising order
STATISTICS = ("mean", "min", "q10", "q25", "q50")
LOGPROB_SIGNALS = (*STATISTICS, *(f"log_{name}" for name in STATISTICS), "first_margin")
PLAIN_SIGNALS = ("length", "has_answer", "answer_size", "truncated")
SIGNALS = (*LOGPROB_SIGNALS, *PLAIN_SIGNALS)
AGREEMENT = ("agree", "comparable", "agree_odds_a", "agree_odds_b", "agree_length_a", "agree_length_b")
N_LOGPROB = len(LOGPROB_SIGNALS)
LENGTH = SIGNALS.index("length")
ALL_SETS_UP_TO = 4  # tiers; longer ladders have heads for two answers at most
PREFIX = 16  # tokens of an answer's beginning that heads are trained on


@dataclass(frozen=True, slots=True)
class Evidence:
    """The facts about one tier's answer to a request."""

    output_tokens: int
    finish_reason: str = "stop"
    has_answer: bool = True  # whether a final answer was found; also true for free text, which has none
    answer: str | None = None  # as `answers.final_answer` gives it; None: cannot be compared
    logprobs: tuple[float, ...] = ()  # one per token, at most 0; empty: the tier gave none
    first_margin: float | None = None  # log-probability of the first token minus that of its best alternative, at least 0
    agrees: bool | None = None  # whether the two answers agree, if the caller compared them itself; None: compare `answer`
    usable: bool = True  # false if empty, against its schema, or cut off by the model's own limit; then never accepted
    stats: tuple[float, ...] = ()  # STATISTICS of all log-probabilities, where `logprobs` has only the first ones; else empty

    @property
    def scored(self) -> bool:
        """Whether the tier gave log-probabilities."""
        return bool(self.logprobs or self.stats)


def statistics(values: Sequence[float]) -> tuple[float, ...]:
    """STATISTICS of token log-probabilities: mean, minimum, and the lower 10, 25 and 50 % quantiles."""
    ordered = sorted(values)
    return (sum(ordered) / len(ordered), ordered[0], *(ordered[int(len(ordered) * share)] for share in (0.10, 0.25, 0.50)))


def logprob_signals(stats: Floats, margin: Floats) -> Floats:
    """(n, N_LOGPROB). stats: (n, 5), at most 0, NaN where unknown. margin: (n,).

    Confident tokens differ in the order of magnitude of their log-probability, doubtful ones in its value: both are features.
    """
    raw = np.clip(stats, -10, 0)
    return np.concatenate([raw, -np.log(1e-4 - raw), np.log1p(np.maximum(margin, 0))[:, None]], axis=1)


def plain_signals(tokens: Floats, has_answer: Floats, answer_size: Floats, truncated: Floats) -> Floats:
    """(n, 4). Each argument is (n,): output tokens, 0 or 1, characters of the final answer, 0 or 1."""
    return np.stack([np.log1p(tokens), has_answer, np.sqrt(answer_size), truncated], axis=1)


def signals(evidence: Evidence, prefix: int | None = None) -> Floats:
    """(n_signals,) of one answer; with `prefix`, of that many first tokens, and NaN for PLAIN_SIGNALS."""
    values = evidence.logprobs if prefix is None else evidence.logprobs[:prefix]
    known = () if prefix is not None else evidence.stats
    stats = np.array([known or (statistics(values) if values else (np.nan,) * len(STATISTICS))])
    margin = np.array([np.nan if evidence.first_margin is None else evidence.first_margin])
    if prefix is not None:
        plain = np.full((1, len(PLAIN_SIGNALS)), np.nan)
    else:
        size = float(len(evidence.answer or ""))
        said = (evidence.output_tokens, evidence.has_answer, size, evidence.finish_reason == "length")
        plain = plain_signals(*(np.array([float(v)]) for v in said))
    return np.asarray(np.concatenate([logprob_signals(stats, margin), plain], axis=1)[0])


@dataclass(frozen=True)
class Seen:
    """The signals of all tiers' answers to n prompts.

    signals: (n, n_tiers, n_signals), NaN where unknown. prefix: the same for each answer's first tokens, or None.
    agree: (n, n_tiers, n_tiers): 1 same, 0 different, NaN not comparable.
    """

    signals: Floats
    agree: Floats
    prefix: Floats | None = None
    prefix_tokens: int = PREFIX

    def take(self, rows: NDArray[Any]) -> "Seen":
        """Some rows, by mask or positions."""
        prefix = None if self.prefix is None else self.prefix[rows]
        return Seen(self.signals[rows], self.agree[rows], prefix, self.prefix_tokens)

    def longer_than(self, tier: int, tokens: int) -> NDArray[np.bool_]:
        """(n,) whether a tier's answer has more than `tokens` tokens; false where unknown."""
        return np.asarray(np.round(np.expm1(self.signals[:, tier, LENGTH])) > tokens)


def answered_sets(n_tiers: int) -> list[Answered]:
    """Every set of tiers that there are heads for."""
    most = n_tiers if n_tiers <= ALL_SETS_UP_TO else 2
    return [tiers for size in range(1, most + 1) for tiers in combinations(range(n_tiers), size)]


def design(prior: Floats, tiers: Answered, found: Floats, agree: Floats, first: int) -> Floats:
    """Features of n rows: log-odds of the prior, each answer's signals from number `first` on, agreement of each pair.

    prior: (n, n_tiers). found: (n, n_tiers, n_signals). agree: (n, n_tiers, n_tiers). NaN stays NaN.
    """
    parts = [logit(np.clip(prior, 1e-4, 1 - 1e-4)), *(found[:, j, first:] for j in tiers)]
    parts += [_agreement_features(parts[0], found, agree, i, j) for i, j in combinations(tiers, 2)]
    return np.concatenate(parts, axis=1)


def design_width(view: str, n_tiers: int, n_answered: int) -> int:
    """The number of columns of `design`. view: `full`, `bare` (no log-probabilities) or `prefix` (only those)."""
    each = {"full": len(SIGNALS), "bare": len(PLAIN_SIGNALS), "prefix": N_LOGPROB}[view]
    return n_tiers + n_answered * each + len(AGREEMENT) * (n_answered * (n_answered - 1) // 2)


def _agreement_features(odds: Floats, found: Floats, agree: Floats, i: int, j: int) -> Floats:
    """(n, 6), AGREEMENT: whether two answers agree (0: unknown), whether that is known, and its products with odds and lengths.

    Agreement on an easy prompt adds little to p; agreement of long answers, which is rarely a coincidence, adds more.
    """
    agrees = np.nan_to_num(agree[:, i, j] - 0.5)
    lengths = np.nan_to_num(found[:, [i, j], LENGTH])
    alone = np.stack([agrees, np.isfinite(agree[:, i, j])], axis=1)
    return np.concatenate([alone, agrees[:, None] * odds[:, [i, j]], agrees[:, None] * lengths], axis=1)


def agreement(a: Evidence, b: Evidence) -> bool | None:
    """Whether two answers are the same; None if they cannot be compared."""
    equal = same(a.answer, b.answer)
    if equal is None and a.has_answer and b.has_answer:
        return a.agrees if a.agrees is not None else b.agrees
    return equal


def row_of(answered: Mapping[int, Evidence], n_tiers: int, prefix: int | None = None) -> Seen:
    """One request's answers, by tier, as one row; with `prefix`, of that many first tokens."""
    found = np.full((1, n_tiers, len(SIGNALS)), np.nan)
    agree = np.full((1, n_tiers, n_tiers), np.nan)
    for tier, evidence in answered.items():
        found[0, tier] = signals(evidence, prefix)
    for i, j in combinations(sorted(answered), 2):
        agrees = agreement(answered[i], answered[j])
        agree[0, i, j] = np.nan if agrees is None else agrees
    return Seen(found, agree) if prefix is None else Seen(found, agree, found, prefix)
