"""How long a tier takes to begin an answer, and from when on it is called slow. Pure but for its state."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Slow = float | Literal["p95"] | None
SEEN, FEWEST, AGAIN = 200, 20, 10  # times remembered; fewer say nothing; so many new ones, and it is worked out again


@dataclass(slots=True)
class Pace:
    """Of one kind of call. slow: seconds, or `p95`: longer than all but one in twenty of the last calls; None: never."""

    slow: Slow = None
    times: "deque[float]" = field(default_factory=lambda: deque(maxlen=SEEN))
    new: int = 0
    p95: float | None = None

    def took(self, seconds: float) -> None:
        """Until the answer began, or until nobody waited for it any longer."""
        if self.slow != "p95":
            return
        self.times.append(seconds)
        self.new += 1
        if self.new >= AGAIN and len(self.times) >= FEWEST:
            self.new, self.p95 = 0, nineteen_of_twenty(self.times)

    @property
    def slow_s(self) -> float | None:
        """None: not to be told."""
        return self.p95 if self.slow == "p95" else self.slow


def nineteen_of_twenty(times: Sequence[float]) -> float:
    return sorted(times)[-(-len(times) * 19 // 20) - 1]
