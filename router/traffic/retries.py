"""Trying once more: only where that helps, not all at once, and never so much that it becomes the load. Pure but for its state.

A budget for the process: every request puts a part of a token in, every second try takes a whole one out. So where single
replicas die, nobody notices; where all do, tries add at most that part to the load.
"""

from collections.abc import Callable
from dataclasses import dataclass

SHARE = 0.1  # of the requests may be tried again
MOST = 10.0  # tokens that may be saved up: as many can be tried again at one stroke
WAIT_S = 0.05  # on average, before trying again


@dataclass(slots=True)
class Retries:
    """chance: in [0, 1), for the jitter."""

    chance: Callable[[], float]
    share: float = SHARE
    most: float = MOST
    left: float = MOST

    def asked(self) -> None:
        """A request is sent for the first time."""
        self.left = min(self.most, self.left + self.share)

    def may(self) -> bool:
        """Take a token, if there is one."""
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def wait_s(self) -> float:
        """Between no time at all and twice the mean, so that those who saw the same fault spread out."""
        return 2 * WAIT_S * self.chance()
