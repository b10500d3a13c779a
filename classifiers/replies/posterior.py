"""Better chances once there are answers: for the tiers that answered and for those that have not.

Before anything is generated, a classifier gives each tier's chance p. An answer's token log-probabilities, its length,
whether it ends in a final answer, and whether another tier gave the same answer change p far more than a better classifier
would. They change the larger tiers' chances too: a prompt on which two small tiers disagree is often too hard for the largest.
So for each set of tiers that may have answered there is one head a tier: a logistic regression on the log-odds of p, the
signals of each answer and the agreement of each pair, calibrated on rows it was not trained on.

Features follow cascade routing (arXiv 2410.10347) and token-level deferral (2404.10136: quantiles, not the mean alone).
Answers without log-probabilities have heads of their own; they are never given a chance of 0 or 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from classifiers.arrays import Floats, Ints
from classifiers.errors import BadTraining
from classifiers.models.base import sigmoid
from classifiers.replies.heads import CostHead, Head, cost_design, cross_costs, fit_calibrated, fit_cost_head
from classifiers.replies.signals import N_LOGPROB, PREFIX, Answered, Evidence, Seen, agreement, answered_sets, design, row_of

MOST_ROWS = 3000  # training rows kept for planning


@dataclass(frozen=True)
class Known:
    """Training rows for planning, once a set of tiers has answered.

    p, cost: (m, n_tiers) chances and guessed costs, by heads that were not trained on the row.
    """

    p: Floats
    cost: Floats

    def state(self) -> dict[str, Any]:
        return {"p": self.p.astype(np.float32), "cost": self.cost.astype(np.float32)}


def key(tiers: Answered) -> str:
    """The name of a set of tiers in an artefact."""
    return ",".join(map(str, tiers))


@dataclass(frozen=True)
class Posterior:
    """All heads of one ladder. Made by `fit_posterior`, or from an artefact by `restore`."""

    n_tiers: int
    heads: Mapping[str, Head]  # by view and answered tiers: `full:0,1`, `bare:0,1` (without log-probabilities), `prefix:0`
    cost_heads: Mapping[str, CostHead]
    known: Mapping[str, Known]  # by answered tiers; `""`: none yet
    truth: Known  # the same rows' true scores and costs
    prefix: int = PREFIX
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)  # values derived from this one, such as plans

    @cached_property
    def sets(self) -> frozenset[Answered]:
        return frozenset(answered_sets(self.n_tiers))

    def reduce(self, tiers: Answered) -> Answered:
        """The answered tiers to judge by: all, or the two largest if there is no head for all."""
        return tiers if not tiers or tiers in self.sets else tiers[-2:]

    def chance(self, tier: int, prior: Floats, evidence: Evidence, prefix: int | None = None) -> float:
        """The chance in [0, 1] that `tier` is right given its own answer. prior: (n_tiers,). prefix: see `chances`."""
        return float(self.chances(prior, {tier: evidence}, prefix)[tier])

    def chances(self, prior: Floats, answered: Mapping[int, Evidence], prefix: int | None = None) -> Floats:
        """(n_tiers,) chances of all tiers given the answers so far.

        prefix: the (one) answer consists of this many tokens so far, and only their log-probabilities are used. For another
        number than the heads were trained on, `self.prefix`, or without log-probabilities, the prior is returned.
        """
        if prefix is not None:
            tier = max(answered)
            seen = row_of({tier: answered[tier]}, self.n_tiers, prefix)
            return np.asarray(self.prefix_chances_of(prior[None], seen, tier)[0])
        tiers = self.comparable(answered)
        if not tiers:
            return prior
        full = f"full:{key(tiers)}"
        is_full = full in self.heads and all(answered[j].scored for j in tiers)
        head = self.heads.get(full if is_full else f"bare:{key(tiers)}")
        if head is None:
            return prior
        seen = row_of({j: answered[j] for j in tiers}, self.n_tiers)
        x = design(prior[None], tiers, seen.signals, seen.agree, 0 if is_full else N_LOGPROB)
        return np.asarray(sigmoid(head.logits(x))[0])

    def prefix_chances_of(self, prior: Floats, seen: Seen, tier: int) -> Floats:
        """As `chances` with a prefix of one tier's answer, for n rows. prior: (n, n_tiers)."""
        head = self.heads.get(f"prefix:{tier}")
        if head is None or seen.prefix is None or seen.prefix_tokens != self.prefix:
            return prior
        has = np.isfinite(seen.prefix[:, tier, 0])
        x = design(prior, (tier,), seen.prefix[..., :N_LOGPROB], seen.agree, 0)
        return np.where(has[:, None], sigmoid(head.logits(x)), prior)

    def comparable(self, answered: Mapping[int, Evidence]) -> Answered:
        """The answered tiers to judge by: all, or only the largest if two free texts cannot be compared."""
        tiers = self.reduce(tuple(sorted(answered)))
        for i, j in combinations(tiers, 2):
            unknown = agreement(answered[i], answered[j]) is None
            if unknown and answered[i].has_answer and answered[j].has_answer:
                return tiers[-1:]
        return tiers

    def costs(self, guessed: Floats, answered: Mapping[int, Evidence]) -> Floats:
        """(n_tiers,) costs guessed anew: a long answer of one tier predicts long answers of the others."""
        tiers = self.reduce(tuple(sorted(answered)))
        head = self.cost_heads.get(key(tiers))
        if head is None:
            return guessed
        lengths = [np.log1p(answered[j].output_tokens) for j in tiers]
        return np.asarray(head.costs(np.concatenate([np.log(np.maximum(guessed, 1e-9)), lengths])[None])[0])

    def chances_of(self, prior: Floats, seen: Seen, tiers: Answered) -> Floats:
        """As `chances`, for n rows on which exactly `tiers` have answered. prior: (n, n_tiers)."""
        tiers = self.reduce(tiers)
        if not tiers:
            return prior
        full, bare = self.heads.get(f"full:{key(tiers)}"), self.heads[f"bare:{key(tiers)}"]
        p = sigmoid(bare.logits(design(prior, tiers, seen.signals, seen.agree, N_LOGPROB)))
        if full is None:
            return p
        has = _has_logprobs(seen, tiers)
        return np.where(has[:, None], sigmoid(full.logits(design(prior, tiers, seen.signals, seen.agree, 0))), p)

    def costs_of(self, guessed: Floats, seen: Seen, tiers: Answered) -> Floats:
        """As `costs`, for n rows."""
        tiers = self.reduce(tiers)
        return self.cost_heads[key(tiers)].costs(cost_design(guessed, tiers, seen.signals)) if tiers else guessed

    def state(self) -> dict[str, Any]:
        """Plain arrays and numbers, for `restore`."""
        return {
            "n_tiers": self.n_tiers,
            "prefix": self.prefix,
            "heads": {name: dict(vars(head)) for name, head in self.heads.items()},
            "cost_heads": {name: dict(vars(head)) for name, head in self.cost_heads.items()},
            "known": {name: known.state() for name, known in self.known.items()},
            "truth": self.truth.state(),
        }


def restore(state: Mapping[str, Any]) -> Posterior:
    """The posterior that `Posterior.state` described."""
    return Posterior(
        n_tiers=int(state["n_tiers"]),
        heads={name: Head(**arrays) for name, arrays in state["heads"].items()},
        cost_heads={name: CostHead(**arrays) for name, arrays in state["cost_heads"].items()},
        known={name: _known(arrays) for name, arrays in state["known"].items()},
        truth=_known(state["truth"]),
        prefix=int(state["prefix"]),
    )


def _known(arrays: Mapping[str, Any]) -> Known:
    return Known(arrays["p"].astype(np.float64), arrays["cost"].astype(np.float64))


def _has_logprobs(seen: Seen, tiers: Answered) -> NDArray[np.bool_]:
    """(n,) whether each of `tiers` gave log-probabilities."""
    return np.asarray(np.isfinite(seen.signals[:, list(tiers), 0]).all(axis=1))


def fit_posterior(
    prior: Floats, guessed: Floats, seen: Seen, y: Floats, costs: Floats, fold: Ints, weight: Floats | None = None
) -> Posterior:
    """Learn all heads.

    prior, guessed, y, costs: (n, n_tiers): out-of-fold chances, guessed costs, scores in [0, 1], and costs with the top
    tier's mean = 1 (NaN where unknown). fold: (n,); near-duplicates share one.
    """
    n, n_tiers = y.shape
    if n < 20:
        raise BadTraining(f"{n} rows with answers: at least 20 are needed to learn from answers")
    weight = np.ones(n) if weight is None else weight
    kept = np.sort(np.random.default_rng(0).choice(n, min(n, MOST_ROWS), replace=False))
    heads, cost_heads, known = {}, {}, {"": Known(prior[kept], guessed[kept])}
    with threadpool_limits(1, "blas"):  # small products: threads only wait for each other
        for tiers in answered_sets(n_tiers):
            made, p = _fit_set(prior, seen, y, weight, fold, tiers)
            heads.update(made)
            x = cost_design(guessed, tiers, seen.signals)
            cost_heads[key(tiers)] = fit_cost_head(x, costs)
            known[key(tiers)] = Known(p[kept], cross_costs(x, costs, fold)[kept])
    truth = Known(np.where(np.isnan(y), prior, y)[kept], np.where(np.isnan(costs), guessed, costs)[kept])
    return Posterior(n_tiers, heads, cost_heads, known, truth, seen.prefix_tokens)


def _fit_set(prior: Floats, seen: Seen, y: Floats, weight: Floats, fold: Ints, tiers: Answered) -> tuple[dict[str, Head], Floats]:
    """The heads of one set of answered tiers, and the best head's out-of-fold chances (n, n_tiers)."""
    found = {}
    x = design(prior, tiers, seen.signals, seen.agree, N_LOGPROB)
    found[f"bare:{key(tiers)}"], p = fit_calibrated(x, y, weight, fold)
    has = _has_logprobs(seen, tiers)
    if has.sum() >= max(20, len(p) / 2):
        x = design(prior, tiers, seen.signals, seen.agree, 0)
        found[f"full:{key(tiers)}"], p[has] = fit_calibrated(x[has], y[has], weight[has], fold[has])
    if len(tiers) == 1 and seen.prefix is not None:
        has = np.isfinite(seen.prefix[:, tiers[0], 0])
        if has.sum() >= 20:
            x = design(prior[has], tiers, seen.prefix[has][..., :N_LOGPROB], seen.agree[has], 0)
            found[f"prefix:{tiers[0]}"], _ = fit_calibrated(x, y[has], weight[has], fold[has])
    return found, p
