"""Errors of the tiers, and of answers that came to nothing."""

import math
from collections.abc import Mapping
from typing import Any

from router.errors.base import RequestFailed

REQUESTS_OWN = frozenset({400, 409, 413, 415, 422})  # statuses by which a tier says that the request is wrong


class TierFailed(RequestFailed):
    """A tier answered with an error.

    status: the tier's own. 422 stays, and the other statuses in REQUESTS_OWN become 400: the request itself is wrong, any tier
    would say so, and the tier did not fail. All others become 502. body: OpenAI's error body, for the client of a wrong request.
    """

    status = 502
    code = "tier_failed"

    def __init__(self, tier: str, message: str, status: int = 502, body: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"tier {tier}: {message}")
        self.tier = tier
        self.status = 502 if status not in REQUESTS_OWN else (422 if status == 422 else 400)
        self.given = body if self.status < 500 else None

    @property
    def outcome(self) -> str:
        return "request_refused" if type(self) is TierFailed and self.status < 500 else self.code

    def body(self) -> dict[str, Any]:
        """The tier's own body where the request is wrong, else ours."""
        return dict(self.given) if self.given and "error" in self.given else super().body()


class TierSilent(TierFailed):
    """A stream that has begun came to no end, and nothing more came either."""

    status = 504
    code = "tier_silent"

    def __init__(self, tier: str, silent_s: float) -> None:
        super().__init__(tier, f"its answer broke off: nothing more came for {silent_s:g} s")
        self.status = 504


class WindowExceeded(TierFailed):
    """The request and its answer do not fit the tier's window, by the tier's own count."""

    status = 400
    code = "context_length_exceeded"
    param = "messages"

    def __init__(self, tier: str) -> None:
        super().__init__(tier, "the request exceeds its maximum context length; shorten it, or ask for a shorter answer", 400)


class TierMisconfigured(TierFailed):
    """The operator's fault: the client hears only that the tier failed. mend: one line for the log, without any secret."""

    status = 502
    code = "tier_misconfigured"

    def __init__(self, tier: str, mend: str) -> None:
        super().__init__(tier, "it is not set up correctly; the server's log says how to mend it")
        self.mend = mend


class NoReplica(RequestFailed):
    """The tier has no running replica, or none answered in time.

    lost: the request's replica died; another replica of the tier may take the request.
    """

    status = 503
    code = "tier_unavailable"

    def __init__(self, tier: str, why: str, retry_after_s: float = 10.0, lost: bool = False) -> None:
        super().__init__(f"tier {tier} is not available: {why}; try again in {retry_after_s:.0f} s")
        self.retry_after_s, self.lost = retry_after_s, lost


class TierBusy(NoReplica):
    """The tier cannot take the request now. It is no failure, so the circuit breaker only waits as long as it is told.

    told_s: seconds that the tier asked to be left alone; 0: it named none.
    """

    code = "tier_busy"

    def __init__(self, tier: str, why: str, told_s: float = 0.0, retry_after_s: float = 2.0) -> None:
        super().__init__(tier, why, math.ceil(told_s or retry_after_s))
        self.told_s = told_s


class TierCold(RequestFailed):
    """The tier was scaled to zero, and a replica is starting. It is no failure, so the circuit breaker ignores it."""

    status = 503
    code = "cold"

    def __init__(self, tier: str, retry_after_s: float = 30.0) -> None:
        super().__init__(
            f"tier {tier} was scaled to zero and has no replica; one is starting, try again in {retry_after_s:.0f} s"
        )
        self.retry_after_s = retry_after_s


class Overloaded(RequestFailed):
    """Every tier that is good enough for the request has a full queue: `router.traffic.load.Full`."""

    status = 503
    code = "overloaded"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"every tier that may answer this request is full; try again in {retry_after_s:.0f} s")
        self.retry_after_s = max(1.0, retry_after_s)


class DelegationFailed(RequestFailed):
    """Every subtask failed, and the budget or the time left does not allow a direct answer."""

    status = 502
    code = "delegation_failed"


class DeadlineExceeded(RequestFailed):
    """The whole request's time is over."""

    status = 504
    code = "deadline_exceeded"

    def __init__(self, deadline_s: float) -> None:
        super().__init__(f"no answer within {deadline_s:g} s, the time that this request has")
