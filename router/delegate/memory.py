"""What past delegations were like: the prior for the estimate of the next one."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from classifiers.parts.cut import Kind

PRIOR_WEIGHT = 4.0  # delegations that a prior counts for
MAX_WEIGHT = 256.0  # delegations that a mean remembers; it forgets older ones


@dataclass(frozen=True, slots=True)
class DelegationStats:
    """One delegation in figures, or the mean of several."""

    plan_tokens: float
    """output tokens of the plan"""
    part_tokens: float
    """output tokens per job"""
    retries: float
    """calls per job beyond the first, at the same tier"""
    escalations: float
    """share of jobs that a larger tier did again"""
    merged: float
    """share of delegations that needed a final call"""
    join: float
    """output tokens of the final call as a share of all jobs' output"""


PRIORS: dict[Kind, DelegationStats] = {
    "numbered": DelegationStats(16, 60, 0.05, 0.1, 0.1, 0.5),
    "bullets": DelegationStats(24, 60, 0.05, 0.1, 0.2, 0.5),
    "files": DelegationStats(60, 80, 0.05, 0.1, 0.7, 0.5),
    "sections": DelegationStats(60, 80, 0.05, 0.1, 0.7, 0.5),
    "paragraphs": DelegationStats(60, 60, 0.05, 0.1, 0.9, 0.5),
}


@dataclass(slots=True)
class Memory:
    """What a router learns while it runs; all its requests share it, and only the methods here change it."""

    refused: dict[str, int] = field(default_factory=dict)
    """tier -> how many of `shared.JSON_FIELDS` its backend has refused, the best first"""
    means: dict[Kind, DelegationStats] = field(default_factory=lambda: dict(PRIORS))
    weights: dict[Kind, float] = field(default_factory=dict)

    def refuse(self, tier: str, json_field: int) -> None:
        """Note that the tier's backend refused this one of `shared.JSON_FIELDS`."""
        self.refused[tier] = max(self.refused.get(tier, 0), json_field + 1)

    def learn(self, kind: Kind, seen: Mapping[str, float | None]) -> None:
        """Add one delegation to the means. seen: `DelegationStats` by field; None or no value leaves a mean unchanged."""
        weight = self.weights[kind] = min(self.weights.get(kind, PRIOR_WEIGHT) + 1, MAX_WEIGHT)
        old = self.means[kind]
        known = {name: value for name, value in seen.items() if value is not None}
        moved = {name: getattr(old, name) + (value - getattr(old, name)) / weight for name, value in known.items()}
        self.means[kind] = replace(old, **moved)
