"""Everything the product refuses or fails at, as one tree.

StepdownError
├── BadPlan                what the planning tier wrote is no plan; costs a repair, never a request
├── BadInput               a command was given something it cannot use (exit code 2)
│   └── BadConfig          the YAML file, or what it points to
└── RequestFailed          an HTTP request gets OpenAI's error body
    ├── BadRequest         400  malformed JSON or fields
    │   ├── ContextTooLong 400  no tier's window holds the prompt
    │   ├── NoTierFits     400  no tier can do what the request needs
    │   └── ToolNameConflict 400  a client's function is named like one of ours
    ├── BadKey             401
    ├── NotAllowed         403  the key may not use this tier, target or page
    ├── NotFound           404  no such path
    │   └── UnknownModel   404
    ├── WrongMethod        405
    ├── TooSlow            408  the body did not arrive in time
    ├── TooLarge           413
    ├── DelegationFailed   502  no subtask, and no direct answer either
    ├── DeadlineExceeded   504
    ├── BudgetExceeded     429  the client's own limit of cost
    ├── RateLimited        429  the key's requests or tokens by the minute, with Retry-After
    ├── BudgetSpent        429  the key's budget by the day or month, with Retry-After
    ├── LedgerDown         503  the ledger cannot be written, with Retry-After
    ├── TierFailed         502, or the tier's own status
    ├── TierCold           503  the tier has no replica while nobody asks; one starts, with Retry-After
    ├── Overloaded         503  every tier that may answer is full, with Retry-After
    └── NoReplica          503  with Retry-After
"""

import math
from collections.abc import Mapping
from typing import Any


class StepdownError(Exception):
    """The base of all errors raised on purpose."""

    status = 500
    code = "internal_error"
    type = "server_error"


class BadInput(StepdownError):
    """A command cannot use what it was given; the message says what was found, what was expected, how to mend it."""

    code = "bad_input"


class BadConfig(BadInput):
    """The configuration, or a file it names, stops the start."""

    code = "bad_config"


class BadPlan(StepdownError):
    """A plan that is not JSON, not of the form, or no graph; the message is shown to the tier that mends it."""

    code = "bad_plan"


class RequestFailed(StepdownError):
    """A request that gets an error instead of an answer."""

    param: str | None = None
    retry_after_s: float | None = None

    def body(self) -> dict[str, Any]:
        """OpenAI's error body."""
        error = {"message": str(self), "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    def headers(self) -> dict[str, str]:
        """What goes with the body."""
        return {"retry-after": f"{self.retry_after_s:.0f}"} if self.retry_after_s else {}


class BadRequest(RequestFailed):
    """What the client sent cannot be read or used."""

    status, code, type = 400, "invalid_request", "invalid_request_error"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextTooLong(BadRequest):
    """The prompt and the answer asked for do not fit any permitted tier."""

    code = "context_length_exceeded"

    def __init__(self, tokens: int, answer: int, largest: int) -> None:
        asked = f" and {answer} more were asked for the answer" if answer > 1 else ""
        super().__init__(
            f"the prompt has {tokens} tokens{asked}; the largest window of a permitted tier is {largest} tokens", "messages"
        )


class NoTierFits(BadRequest):
    """Every tier is ruled out by something the request needs."""

    code = "no_tier_fits"

    def __init__(self, excluded: Mapping[str, str]) -> None:
        super().__init__("no tier can take this request: " + "; ".join(f"{t}: {why}" for t, why in excluded.items()))


class ToolNameConflict(BadRequest):
    """A function of the client's has a name that is kept for the server's own."""

    code = "tool_name_conflict"

    def __init__(self, name: str, where: str) -> None:
        super().__init__(f"`{where}`: names that begin with stepdown_ are the server's own; rename {name[:60]!r}", where)


class BadKey(RequestFailed):
    """No key, or one that is not ours."""

    status, code, type = 401, "invalid_api_key", "invalid_request_error"

    def __init__(self) -> None:
        super().__init__("send the API key that `stepdown serve` printed: Authorization: Bearer KEY")

    def headers(self) -> dict[str, str]:
        """How to authenticate."""
        return super().headers() | {"www-authenticate": "Bearer"}


class NotAllowed(RequestFailed):
    """The key is known but may not do this."""

    status, code, type = 403, "not_allowed", "invalid_request_error"


class RateLimited(RequestFailed):
    """The key has used up what it may ask for in a minute."""

    status, code, type = 429, "rate_limit_exceeded", "requests"

    def __init__(self, limit: int, unit: str, retry_after_s: float, needed: int = 0) -> None:
        """needed: of a request that is larger than a whole minute's allowance, so that waiting does not help."""
        self.retry_after_s = max(1.0, math.ceil(retry_after_s))  # a fraction of a second early would be refused again
        again = f"try again in {self.retry_after_s:.0f} s"
        shorten = f"this request may need {needed}: shorten it, or ask for fewer"
        super().__init__(f"this key may use {limit} {unit} a minute; {shorten if needed else again}")


class BudgetSpent(RequestFailed):
    """The key's budget does not hold what this request may cost."""

    status, code, type = 429, "insufficient_quota", "insufficient_quota"

    def __init__(
        self, budget_usd: float, period: str, left_usd: float, needed_usd: float, retry_after_s: float, held_usd: float = 0.0
    ) -> None:
        """held_usd: set aside for requests in flight, where that alone stands in the way."""
        when = f"{retry_after_s / 3600:.1f} h" if retry_after_s >= 360 else f"{retry_after_s:.0f} s"
        held = f"requests in flight hold {held_usd:.3g} USD of it; try again in {when}"
        super().__init__(
            f"this key's budget of {budget_usd:g} USD a {period} has {max(0.0, left_usd):.3g} USD left, "
            f"the request may cost {needed_usd:.3g} USD; " + (held if held_usd else f"it is filled up again in {when}")
        )
        self.retry_after_s = max(1.0, math.ceil(retry_after_s))


class LedgerDown(RequestFailed):
    """No request is answered that could not be written down."""

    status, code = 503, "ledger_unavailable"

    def __init__(self, why: str, retry_after_s: float = 10.0) -> None:
        super().__init__(f"the ledger cannot be written ({why}); try again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class NotFound(RequestFailed):
    """No such path."""

    status, code, type = 404, "not_found", "invalid_request_error"


class UnknownModel(NotFound):
    """The `model` of the request is neither a tier nor a way to ask for routing."""

    code, param = "model_not_found", "model"

    def __init__(self, found: str, tiers: list[str], targets: list[str]) -> None:
        ways = ", ".join(["auto", *(f"auto:{t}" for t in targets), "auto:0.97", *tiers])
        super().__init__(f"unknown model {found[:80]!r}; use one of {ways}")


class WrongMethod(RequestFailed):
    """The path exists, the method does not."""

    status, code, type = 405, "method_not_allowed", "invalid_request_error"


class TooSlow(RequestFailed):
    """The body is still not here."""

    status, code, type = 408, "request_timeout", "invalid_request_error"

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"the body did not arrive within {limit_s:g} s; send it again, faster")


class TooLarge(RequestFailed):
    """The body is larger than the server takes."""

    status, code, type = 413, "request_too_large", "invalid_request_error"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the body is larger than {limit_bytes} bytes, the most this server takes")


class TierFailed(RequestFailed):
    """A tier answered with an error; its own status and body are kept where it is the client's fault."""

    status, code = 502, "tier_failed"

    def __init__(self, tier: str, message: str, status: int = 502, body: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"tier {tier}: {message}")
        self.status = status if 400 <= status < 500 else 502
        self.type = "invalid_request_error" if self.status < 500 else "server_error"
        self.given = body if self.status < 500 else None

    def body(self) -> dict[str, Any]:
        """The tier's own body for a fault of the request, else ours."""
        return dict(self.given) if self.given and "error" in self.given else super().body()


class NoReplica(RequestFailed):
    """The tier has no running replica, or none answered in time.

    lost: one replica went with the request; another of the tier may take it.
    """

    status, code = 503, "tier_unavailable"

    def __init__(self, tier: str, why: str, retry_after_s: float = 10.0, lost: bool = False) -> None:
        super().__init__(f"tier {tier} is not available: {why}; try again in {retry_after_s:.0f} s")
        self.retry_after_s, self.lost = retry_after_s, lost


class TierCold(RequestFailed):
    """The tier had no replica because nobody asked; one is on its way. No fault: it counts against nobody."""

    status, code = 503, "cold"

    def __init__(self, tier: str, retry_after_s: float = 30.0) -> None:
        super().__init__(f"tier {tier} had no replica while nobody asked; one is starting, try again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class Overloaded(RequestFailed):
    """Every tier that is good enough for the request has as much waiting as it may have: `router.load.Full`."""

    status, code = 503, "overloaded"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"every tier that may answer this request is full; try again in {retry_after_s:.0f} s")
        self.retry_after_s = max(1.0, retry_after_s)


class DelegationFailed(RequestFailed):
    """Every subtask failed and nothing is left with which to answer directly."""

    status, code = 502, "delegation_failed"


class DeadlineExceeded(RequestFailed):
    """The time for the whole request is over."""

    status, code = 504, "deadline_exceeded"

    def __init__(self, deadline_s: float) -> None:
        super().__init__(f"no answer within {deadline_s:g} s, the time this request was given")


class BudgetExceeded(RequestFailed):
    """Answering would cost more than the client allowed."""

    status, code = 429, "budget_exceeded"

    def __init__(self, needed_usd: float, left_usd: float) -> None:
        super().__init__(f"an answer costs about {needed_usd:.3g} USD, {left_usd:.3g} USD of the request's limit are left")
