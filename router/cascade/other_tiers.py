"""Which tier answers in place of one that could not, for a request that needs one answer."""

from dataclasses import dataclass, field

from router.errors import NoReplica, RequestFailed, TierCold, TierFailed, WindowExceeded
from router.types import Decision


@dataclass(slots=True)
class OtherTiers:
    """The tiers that are left for one request, best first.

    Where its window is too small for the request, the next wider one is asked, once: a second would say the same.
    """

    left: list[str] = field(default_factory=list)
    """where a tier is down"""
    wider: list[str] = field(default_factory=list)
    """where the window of the chosen one is too small"""
    failed: list[RequestFailed] = field(default_factory=list)
    """what the tiers said that could not answer"""

    @classmethod
    def of(cls, decided: Decision) -> "OtherTiers":
        return cls(list(decided.instead), list(decided.wider))

    def after(self, error: RequestFailed) -> str:
        """The tier to ask after a tier failed so; empty: none is left, or none would answer."""
        self.failed.append(error)
        if isinstance(error, WindowExceeded):
            self.left, self.wider = self.wider, []
        elif not another_may_answer(error):
            return ""
        return self.left.pop(0) if self.left else ""

    def error(self) -> RequestFailed:
        """What the client is told: of tiers that may answer later, of the one that may do so first."""
        last = self.failed[-1]
        later = [error for error in self.failed if error.retry_after_s]
        return min(later, key=lambda error: error.retry_after_s or 0.0) if later and another_may_answer(last) else last


def another_may_answer(error: RequestFailed) -> bool:
    """Whether only this tier cannot answer: it is down, full, asleep or set up wrongly, or its window is too small.

    Else the request itself is wrong, and every tier would say so, or one of the client's limits is reached.
    """
    return isinstance(error, WindowExceeded | TierCold) or (isinstance(error, NoReplica | TierFailed) and error.status >= 500)
