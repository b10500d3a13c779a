"""From chances and costs to a tier: pure functions for one request or many.

A rule is one of
  chance    the cheapest tier with p >= value; where none reaches it, the tier with the highest p
  relative  the cheapest tier with p >= value * (highest p of all tiers)
  utility   the tier with the highest p - value * cost, cost as a share of the top tier's
  tier      always tier number `value` (0 is the cheapest): the router is switched off
  cascade   as utility, and decides again after each answer (router/cascade/next_step.py)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from classifiers.arrays import Floats as Floats
from classifiers.arrays import Ints
from classifiers.errors import ClassifierError

RuleKind = Literal["chance", "relative", "utility", "tier", "cascade"]
Reason = Literal["good enough", "best we have", "worth its cost", "fixed"]


@dataclass(frozen=True, slots=True)
class Rule:
    """How to choose, and the cost and quality that this is expected to give, relative to always taking the top tier."""

    kind: RuleKind
    value: float
    expected_cost: float = math.nan
    expected_quality: float = math.nan
    quality_bound: float = math.nan  # lower confidence bound on expected_quality
    threshold: float = math.nan  # cascade: the lowest chance at which a smaller tier's answer is accepted; NaN: any

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; NaN (unknown) becomes None."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Rule":
        """The rule that `to_dict` described."""
        filled: dict[str, Any] = {key: math.nan if value is None else value for key, value in data.items()}
        return cls(**filled)

    def describe(self, tiers: Sequence[str]) -> str:
        """One line for humans."""
        choice = f"always {tiers[int(self.value)]}" if self.kind == "tier" else f"{self.kind} {self.value:.4g}"
        if math.isnan(self.expected_quality):
            return choice
        return (
            f"{choice}; quality {self.expected_quality:.3f} (at least {self.quality_bound:.3f}) at cost "
            f"{self.expected_cost:.3f} of always {tiers[-1]}"
        )


def explicit(target: float) -> Rule:
    """The rule behind `auto:0.97`: the cheapest tier with at least that chance of being good enough."""
    if not 0 <= target <= 1:
        raise ClassifierError(f"target {target}: expected a chance between 0 and 1")
    return Rule("chance", target)


def _first_reaching(p: Floats, bar: Floats) -> Ints:
    """Index of the first tier with p at or above `bar` (n, 1), else of the tier with the highest p."""
    good = p >= bar
    return np.where(good.any(axis=1), good.argmax(axis=1), p.argmax(axis=1))


def choose_many(p: Floats, cost: Floats, rule: Rule) -> Ints:
    """(n,) the tier of each request. p: (n, n_tiers); cost: (n_tiers,) or (n, n_tiers), the top tier's mean = 1."""
    if rule.kind == "tier":
        return np.full(len(p), int(rule.value))
    if rule.kind in ("utility", "cascade"):
        return np.asarray((p - rule.value * cost).argmax(axis=1))
    if rule.kind == "relative":
        return _first_reaching(p, rule.value * p.max(axis=1, keepdims=True))
    return _first_reaching(p, np.full((len(p), 1), rule.value))


def choose(p: Floats, cost: Floats, rule: Rule) -> tuple[int, Reason]:
    """The tier of one request, and why. p, cost: (n_tiers,), cheapest first."""
    # As `choose_many`, in plain numbers: a fifth of numpy's time for one request.
    if rule.kind == "tier":
        return int(rule.value), "fixed"
    chances = p.tolist()
    if rule.kind in ("utility", "cascade"):
        worth = [chance - rule.value * spent for chance, spent in zip(chances, cost.tolist(), strict=True)]
        return worth.index(max(worth)), "worth its cost"
    bar = rule.value * (max(chances) if rule.kind == "relative" else 1.0)
    first = next((k for k, chance in enumerate(chances) if chance >= bar), None)
    return (chances.index(max(chances)), "best we have") if first is None else (first, "good enough")
