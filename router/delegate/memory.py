"""What past delegations cost and how long their parts were: the prior for the next one."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from classifiers.parts.cut import Kind


@dataclass(frozen=True, slots=True)
class Seen:
    """What one delegation, or their mean, was like."""

    plan_tokens: float
    """output tokens of the plan"""
    part_tokens: float
    """output tokens per job"""
    again: float
    """calls per job beyond the first, at the same tier"""
    upward: float
    """share of jobs that a larger tier did again"""
    merged: float
    """share of delegations that needed a final call"""
    join: float
    """output tokens of the final call as a share of all jobs' output"""


PRIORS: dict[Kind, Seen] = {
    "numbered": Seen(16, 60, 0.05, 0.1, 0.1, 0.5),
    "bullets": Seen(24, 60, 0.05, 0.1, 0.2, 0.5),
    "files": Seen(60, 80, 0.05, 0.1, 0.7, 0.5),
    "sections": Seen(60, 80, 0.05, 0.1, 0.7, 0.5),
    "paragraphs": Seen(60, 60, 0.05, 0.1, 0.9, 0.5),
}


WEIGHT, MOST = 4.0, 256.0  # delegations that a prior counts for; a mean forgets what is older than that many


@dataclass(slots=True)
class Memory:
    """What a router learns while it runs, shared by its requests and changed only by the methods here."""

    refused: dict[str, int] = field(default_factory=dict)
    """tier -> how many ways to ask for JSON its backend has refused, in the order of `delegation.FORMATS`"""
    means: dict[Kind, Seen] = field(default_factory=lambda: dict(PRIORS))
    weights: dict[Kind, float] = field(default_factory=dict)

    def refuse(self, tier: str, way: int) -> None:
        """The backend of the tier took no body of that way."""
        self.refused[tier] = max(self.refused.get(tier, 0), way + 1)

    def learn(self, kind: Kind, seen: Mapping[str, float | None]) -> None:
        """Take one delegation into the means; what it did not show is left out."""
        weight = min(self.weights.get(kind, WEIGHT) + 1, MOST)
        old = self.means[kind]
        shown = {name: value for name, value in seen.items() if value is not None}
        moved = {name: getattr(old, name) + (value - getattr(old, name)) / weight for name, value in shown.items()}
        self.weights[kind] = weight
        self.means[kind] = Seen(**{name: moved.get(name, getattr(old, name)) for name in Seen.__slots__})
