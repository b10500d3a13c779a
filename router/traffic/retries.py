"""A retry budget for the process, so that retries never become the load.

Every request adds a fraction of a token and every retry takes a whole one. Where single replicas die, clients notice
nothing; where all die, retries add at most that fraction to the load.
"""

from collections.abc import Callable
from dataclasses import dataclass

SHARE = 0.1  # share of requests that may be tried again
MOST = 10.0  # tokens that can be saved up, so the most retries at once
WAIT_S = 0.05  # mean wait before a retry


@dataclass(slots=True)
class Retries:
    """chance: returns a random number in [0, 1), for the jitter."""

    chance: Callable[[], float]
    share: float = SHARE
    most: float = MOST
    left: float = MOST

    def asked(self) -> None:
        """Count a request that is sent for the first time."""
        self.left = min(self.most, self.left + self.share)

    def may(self) -> bool:
        """Whether a retry is allowed; takes its token."""
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def wait_s(self) -> float:
        """A random wait of 0 to twice the mean, so that callers that saw the same fault spread out."""
        return 2 * WAIT_S * self.chance()
