"""Errors of keys, limits and money."""

import math

from router.errors.base import RequestFailed


class BadKey(RequestFailed):
    """The request has no key, or an unknown one."""

    status = 401
    code = "invalid_api_key"

    def __init__(self) -> None:
        ways = "Authorization: Bearer KEY, x-api-key: KEY or api-key: KEY"
        super().__init__(f"send the API key that `stepdown serve` printed, in one of the headers {ways}")

    def headers(self) -> dict[str, str]:
        return super().headers() | {"www-authenticate": "Bearer"}


class NotAllowed(RequestFailed):
    """The key is known but may not do this."""

    status = 403
    code = "not_allowed"


class RateLimited(RequestFailed):
    """The key has used up its requests or tokens a minute."""

    status = 429
    code = "rate_limit_exceeded"
    type = "requests"

    def __init__(self, limit: int, unit: str, retry_after_s: float, needed: int = 0) -> None:
        """needed: tokens of a request that exceeds a whole minute's allowance, so that waiting does not help; else 0."""
        self.retry_after_s = max(1.0, math.ceil(retry_after_s))  # rounded up: a retry a fraction too early is refused again
        again = f"try again in {self.retry_after_s:.0f} s"
        shorten = f"this request may need {needed}: shorten it, or ask for fewer"
        super().__init__(f"this key may use {limit} {unit} a minute; {shorten if needed else again}")
        self.needed = needed


class BudgetSpent(RequestFailed):
    """What is left of the key's budget does not cover what this request may cost."""

    status = 429
    code = "insufficient_quota"
    type = "insufficient_quota"

    def __init__(
        self, budget_usd: float, period: str, left_usd: float, needed_usd: float, retry_after_s: float, held_usd: float = 0.0
    ) -> None:
        """held_usd: reserved for requests in flight, where the budget would suffice without it; else 0."""
        when = f"{retry_after_s / 3600:.1f} h" if retry_after_s >= 360 else f"{retry_after_s:.0f} s"
        held = f"requests in flight hold {held_usd:.3g} USD of it; try again in {when}"
        super().__init__(
            f"this key's budget of {budget_usd:g} USD a {period} has {max(0.0, left_usd):.3g} USD left, "
            f"the request may cost {needed_usd:.3g} USD; " + (held if held_usd else f"it is filled up again in {when}")
        )
        self.retry_after_s = max(1.0, math.ceil(retry_after_s))


class LedgerDown(RequestFailed):
    """The request is refused because it could not be recorded."""

    status = 503
    code = "ledger_unavailable"

    def __init__(self, why: str, retry_after_s: float = 10.0) -> None:
        super().__init__(f"the ledger cannot be written ({why}); try again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class BudgetExceeded(RequestFailed):
    """An answer would cost more than the client's limit."""

    status = 429
    code = "budget_exceeded"
    type = "server_error"

    def __init__(self, needed_usd: float, left_usd: float) -> None:
        super().__init__(f"an answer costs about {needed_usd:.3g} USD, {left_usd:.3g} USD of the request's limit are left")
