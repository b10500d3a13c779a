"""How long a tier takes to begin an answer, and after how many seconds it counts as slow."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Slow = float | Literal["p95"] | None
KEPT = 200  # samples kept
FEWEST = 20  # samples needed for a p95
RENEW_AFTER = 10  # new samples after which the p95 is computed again


@dataclass(slots=True)
class Pace:
    """Start times of one kind of call. slow: seconds, or `p95`: slower than 95 % of the last calls; None: never slow."""

    slow: Slow = None
    times: "deque[float]" = field(default_factory=lambda: deque(maxlen=KEPT))
    new: int = 0
    p95: float | None = None

    def took(self, seconds: float) -> None:
        """Add a sample: seconds until the answer began, or until its caller gave up."""
        if self.slow != "p95":
            return
        self.times.append(seconds)
        self.new += 1
        if self.new >= RENEW_AFTER and len(self.times) >= FEWEST:
            self.new, self.p95 = 0, p95_of(self.times)

    @property
    def slow_s(self) -> float | None:
        """Seconds after which a call counts as slow; None: never, or not known yet."""
        return self.p95 if self.slow == "p95" else self.slow


def p95_of(times: Sequence[float]) -> float:
    return sorted(times)[-(-len(times) * 19 // 20) - 1]
