"""What is looked at in an answer, as numbers: its token log-probabilities, its length and end, whether another says the same.

`design` puts them beside what was thought before; `posterior.py` learns heads on that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifiers.arrays import Floats
from classifiers.models.base import logit
from classifiers.replies.answers import same

Answered = tuple[int, ...]  # tiers that answered, rising
STATISTICS = ("mean", "min", "q10", "q25", "q50")
LOGPROB_SIGNALS = (*STATISTICS, *(f"log_{name}" for name in STATISTICS), "first_margin")
PLAIN_SIGNALS = ("length", "has_answer", "answer_size", "truncated")
SIGNALS = (*LOGPROB_SIGNALS, *PLAIN_SIGNALS)
AGREEMENT = ("agree", "comparable", "agree_odds_a", "agree_odds_b", "agree_length_a", "agree_length_b")
N_LOGPROB, LENGTH = len(LOGPROB_SIGNALS), SIGNALS.index("length")
ALL_SETS_UP_TO = 4  # tiers; longer ladders know sets of two answers at most
PREFIX = 16  # tokens


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one tier's answer to a request."""

    output_tokens: int
    finish_reason: str = "stop"
    has_answer: bool = True
    """a final answer was found; true as well for free text, which has none to find"""
    answer: str | None = None
    """the final answer as `answers.final_answer` gives it; None: not comparable"""
    logprobs: tuple[float, ...] = ()
    """of each token of the answer, at most 0; empty: the tier gave none"""
    first_margin: float | None = None
    """log-probability of the first token less that of the next best, at least 0"""
    agrees: bool | None = None
    """with the other answer, where the caller compared them itself; None: by `answer`"""
    usable: bool = True
    """false: empty, failed its schema, cut off by the model's own limit; never accepted"""


def statistics(values: Sequence[float]) -> tuple[float, ...]:
    """STATISTICS of token log-probabilities: mean, least, and the 10, 25 and 50 % quantiles (lower ones)."""
    ordered = sorted(values)
    return (sum(ordered) / len(ordered), ordered[0], *(ordered[int(len(ordered) * share)] for share in (0.10, 0.25, 0.50)))


def logprob_signals(stats: Floats, margin: Floats) -> Floats:
    """(n, N_LOGPROB): stats (n, 5) at most 0, NaN where none; margin (n,).

    Confident tokens differ in the exponent of their log-probability, doubtful ones in the value: both are given.
    """
    raw = np.clip(stats, -10, 0)
    return np.concatenate([raw, -np.log(1e-4 - raw), np.log1p(np.maximum(margin, 0))[:, None]], axis=1)


def plain_signals(tokens: Floats, has_answer: Floats, answer_size: Floats, truncated: Floats) -> Floats:
    """(n, 4), all inputs (n,): output tokens, 0 or 1, characters of the final answer, 0 or 1."""
    return np.stack([np.log1p(tokens), has_answer, np.sqrt(answer_size), truncated], axis=1)


def signals(evidence: Evidence, prefix: int | None = None) -> Floats:
    """(n_signals,) of one answer; of its first `prefix` tokens alone, the rest being unknown (NaN)."""
    values = evidence.logprobs if prefix is None else evidence.logprobs[:prefix]
    stats = np.array([statistics(values) if values else (np.nan,) * len(STATISTICS)])
    margin = np.array([np.nan if evidence.first_margin is None else evidence.first_margin])
    if prefix is not None:
        plain = np.full((1, len(PLAIN_SIGNALS)), np.nan)
    else:
        size = float(len(evidence.answer or ""))
        known = (evidence.output_tokens, evidence.has_answer, size, evidence.finish_reason == "length")
        plain = plain_signals(*(np.array([float(v)]) for v in known))
    return np.asarray(np.concatenate([logprob_signals(stats, margin), plain], axis=1)[0])


@dataclass(frozen=True)
class Seen:
    """Training rows: what each tier's answer looked like. All arrays have one row a prompt.

    signals: (n, n_tiers, n_signals), NaN where unknown. prefix: the same of the first tokens alone, or None.
    agree: (n, n_tiers, n_tiers) 1 same, 0 different, NaN not comparable.
    """

    signals: Floats
    agree: Floats
    prefix: Floats | None = None
    prefix_tokens: int = PREFIX

    def take(self, rows: NDArray[Any]) -> "Seen":
        """The rows given by a mask or by positions."""
        prefix = None if self.prefix is None else self.prefix[rows]
        return Seen(self.signals[rows], self.agree[rows], prefix, self.prefix_tokens)

    def longer_than(self, tier: int, tokens: int) -> NDArray[np.bool_]:
        """(n,) whether a tier's answer has more than that many tokens; false where it is not known."""
        return np.asarray(np.round(np.expm1(self.signals[:, tier, LENGTH])) > tokens)


def answered_sets(n_tiers: int) -> list[Answered]:
    """Every set of tiers there are heads for."""
    most = n_tiers if n_tiers <= ALL_SETS_UP_TO else 2
    return [tiers for size in range(1, most + 1) for tiers in combinations(range(n_tiers), size)]


def design(prior: Floats, tiers: Answered, found: Floats, agree: Floats, first: int) -> Floats:
    """Features of n rows: log-odds of the prior, signals of each answer from number `first` on, agreement of each two.

    prior: (n, n_tiers). found: (n, n_tiers, n_signals). agree: (n, n_tiers, n_tiers). NaN stays NaN.
    """
    parts = [logit(np.clip(prior, 1e-4, 1 - 1e-4)), *(found[:, j, first:] for j in tiers)]
    parts += [_agreement_features(parts[0], found, agree, i, j) for i, j in combinations(tiers, 2)]
    return np.concatenate(parts, axis=1)


def design_width(view: str, n_tiers: int, n_answered: int) -> int:
    """The number of columns that `design` makes. view: `full`, `bare` (no log-probabilities) or `prefix` (these alone)."""
    each = {"full": len(SIGNALS), "bare": len(PLAIN_SIGNALS), "prefix": N_LOGPROB}[view]
    return n_tiers + n_answered * each + len(AGREEMENT) * (n_answered * (n_answered - 1) // 2)


def _agreement_features(odds: Floats, found: Floats, agree: Floats, i: int, j: int) -> Floats:
    """(n, 6), AGREEMENT: do two answers agree (0: it cannot be told), is that known, and the same times what it weighs more on.

    Agreement on an easy prompt says little that p had not said; that of two long answers, less likely by chance, says more.
    """
    told = np.nan_to_num(agree[:, i, j] - 0.5)
    lengths = np.nan_to_num(found[:, [i, j], LENGTH])
    alone = np.stack([told, np.isfinite(agree[:, i, j])], axis=1)
    return np.concatenate([alone, told[:, None] * odds[:, [i, j]], told[:, None] * lengths], axis=1)


def agreement(a: Evidence, b: Evidence) -> bool | None:
    """Whether two answers are the same; None where they cannot be compared."""
    told = same(a.answer, b.answer)
    if told is None and a.has_answer and b.has_answer:
        return a.agrees if a.agrees is not None else b.agrees
    return told
