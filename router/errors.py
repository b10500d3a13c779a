"""All errors that the product raises on purpose, as one tree.

StepdownError
├── BadPlan                the planning tier's output is no valid plan; costs a repair, never a request
├── BadInput               a command got input that it cannot use (exit code 2)
│   └── BadConfig          the YAML file, or a file that it names
└── RequestFailed          an HTTP request gets OpenAI's error body
    ├── BadRequest         400  malformed JSON or fields
    │   ├── ContextTooLong 400  no tier's window holds the prompt
    │   ├── NoTierFits     400  no tier has the features that the request needs
    │   ├── Unsupported    400  a part of a protocol that is not offered here
    │   ├── NoPreviousResponse 400  the response that a request continues is not kept
    │   ├── NoThread       400  only the newest messages of a thread, which is not kept
    │   ├── ToolNameConflict 400  a client's function has a reserved name
    │   └── UnsupportedTool 400  the request demands a tool that only its vendor can run
    ├── BadKey             401
    ├── NotAllowed         403  the key may not use this tier, target or page
    ├── ForeignRequest     403  no key is asked for, and a web page from elsewhere could have sent it
    ├── NotFound           404  no such path
    │   ├── UnknownModel   404
    │   ├── NoService      404  no service of that kind, or of that name
    │   └── WrongKind      404  a service is asked for a chat, or a tier for embeddings
    ├── WrongMethod        405
    ├── TooSlow            408  the body did not arrive in time
    ├── TooLarge           413
    ├── UnknownEncoding    415  the body is compressed in a way that we do not read
    ├── NotJson            415  no key is asked for, and the body is not said to be JSON
    ├── NoWebSocket        426
    ├── HeadersTooLarge    431
    ├── DelegationFailed   502  no subtask succeeded, and no direct answer is possible
    ├── DeadlineExceeded   504
    ├── BudgetExceeded     429  the client's own cost limit
    ├── RateLimited        429  the key's requests or tokens a minute, with Retry-After
    ├── BudgetSpent        429  the key's budget for the day or month, with Retry-After
    ├── LedgerDown         503  the ledger cannot be written, with Retry-After
    ├── ServerStopping     503  with Retry-After
    ├── TierFailed         502, or 400 or 422 where the tier says that the request is wrong
    │   ├── TierSilent     504  its stream fell silent
    │   ├── WindowExceeded 400  the tier says that its window does not hold the request; a wider one may answer
    │   └── TierMisconfigured 502  the upstream refuses this server's key, account, address or model
    ├── TierCold           503  the tier was scaled to zero; a replica is starting, with Retry-After
    ├── Overloaded         503  every tier that may answer is full, with Retry-After
    └── NoReplica          503  with Retry-After
        └── TierBusy       503  the tier is full, or asked to be left alone for a while; no failure, with Retry-After
"""

import math
from collections.abc import Mapping
from typing import Any

REQUESTS_OWN = frozenset({400, 409, 413, 415, 422})  # statuses by which a tier says that the request is wrong


class StepdownError(Exception):
    """The base of all errors raised on purpose."""

    status = 500
    code = "internal_error"


class BadInput(StepdownError):
    """A command cannot use its input; the message says what was found, what was expected, and how to fix it."""

    code = "bad_input"


class BadConfig(BadInput):
    code = "bad_config"


class BadPlan(StepdownError):
    """A plan that is not JSON, breaks the schema, or has a cycle; the tier that repairs it sees the message."""

    code = "bad_plan"


class RequestFailed(StepdownError):
    """A request that gets an error instead of an answer."""

    type = ""  # OpenAI's type of the error; empty: it follows from the status
    param: str | None = None
    retry_after_s: float | None = None

    def body(self) -> dict[str, Any]:
        """OpenAI's error body."""
        kind = self.type or ("invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    @property
    def outcome(self) -> str:
        """What the ledger says of the call that ended so."""
        return self.code

    def headers(self) -> dict[str, str]:
        return {"retry-after": f"{self.retry_after_s:.0f}"} if self.retry_after_s else {}


class BadRequest(RequestFailed):
    """The request's body or a field of it is invalid."""

    status = 400
    code = "invalid_request"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextTooLong(BadRequest):
    code = "context_length_exceeded"

    def __init__(self, tokens: int, largest: int, at_least: bool = False) -> None:
        """at_least: the prompt was so long that its tokens were not counted one by one.

        Clients look for OpenAI's words in the message, and compact the conversation.
        """
        has = f"at least {tokens}" if at_least else f"{tokens}"
        super().__init__(
            f"This model's maximum context length is {largest} tokens: the largest window of a permitted tier. "
            f"Your prompt has {has} tokens; shorten it",
            "messages",
        )
        self.tokens, self.largest = tokens, largest


class NoTierFits(BadRequest):
    code = "no_tier_fits"

    def __init__(self, excluded: Mapping[str, str]) -> None:
        super().__init__("no tier can take this request: " + "; ".join(f"{t}: {why}" for t, why in excluded.items()))


class Unsupported(BadRequest):
    """A part of a protocol that is not offered here."""

    code = "unsupported"


class NoPreviousResponse(BadRequest):
    """What a request of the Responses protocol continues is not kept: to go on without it would lose the conversation."""

    code = "previous_response_not_found"
    param = "previous_response_id"

    def __init__(self, found: str, why: str) -> None:
        super().__init__(f"the response {found[:80]!r} cannot be continued: {why}; send the whole conversation", self.param)


class NoThread(BadRequest):
    """A request of the Messages protocol has only the newest messages of a thread, which is not kept here.

    Anthropic's SDKs know the code, and send the whole conversation again.
    """

    code = "thread_not_found"
    param = "thread"

    def __init__(self) -> None:
        super().__init__("threads are not kept here; send the whole conversation in `messages`, without `thread`", self.param)


class ToolNameConflict(BadRequest):
    code = "tool_name_conflict"

    def __init__(self, name: str, where: str) -> None:
        super().__init__(f"`{where}`: names that begin with stepdown_ are reserved for the server; rename {name[:60]!r}", where)


class UnsupportedTool(BadRequest):
    code = "unsupported_tool"


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


class ServerStopping(RequestFailed):
    """The server stops: it takes no further requests, or has given an answer under way the time that it had."""

    status = 503
    code = "server_stopping"
    retry_after_s = 1.0

    def __init__(self) -> None:
        super().__init__("this server is stopping; try again in 1 s, and another may answer")

    def headers(self) -> dict[str, str]:
        return super().headers() | {"connection": "close"}


class NotFound(RequestFailed):
    """No such path."""

    status = 404
    code = "not_found"


class UnknownModel(NotFound):
    """The request's `model` is neither a tier nor `auto` with a known target."""

    code = "model_not_found"
    param = "model"

    def __init__(self, found: str, tiers: list[str], targets: list[str]) -> None:
        ways = ", ".join(["auto", *(f"auto:{t}" for t in targets), "auto:0.97", *tiers])
        super().__init__(f"unknown model {found[:80]!r}; use one of {ways}")


class NoService(NotFound):
    """The request's `model` names no service of the kind that its path asks for, or there is none."""

    code = "model_not_found"
    param = "model"


class WrongKind(NotFound):
    """The request's `model` is there, and does something else than its path asks for."""

    code = "model_not_found"
    param = "model"


class WrongMethod(RequestFailed):
    """The path exists but does not take this method."""

    status = 405
    code = "method_not_allowed"


class TooSlow(RequestFailed):
    status = 408
    code = "request_timeout"

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"the body did not arrive within {limit_s:g} s; send it again, faster")


class TooLarge(RequestFailed):
    """The body is larger than the server accepts."""

    status = 413
    code = "request_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the body is larger than {limit_bytes} bytes, the most this server takes")


class UnknownEncoding(RequestFailed):
    """The body's `content-encoding` is none that we read."""

    status = 415
    code = "unsupported_encoding"

    def __init__(self, found: str, known: str) -> None:
        super().__init__(f"content-encoding {found[:60]!r} is not read here; send the body as it is, or in one of: {known}")
        self.known = known

    def headers(self) -> dict[str, str]:
        return super().headers() | {"accept-encoding": self.known}


class NotJson(RequestFailed):
    """A body whose `content-type` is not JSON, where no key tells our clients from web pages."""

    status = 415
    code = "unsupported_media_type"

    def __init__(self, found: str) -> None:
        super().__init__(f"send content-type: application/json, found {found[:60]!r}: this server asks for no key")


class NoWebSocket(RequestFailed):
    """A request to speak WebSocket. By this status clients know at once that they have to use HTTP."""

    status = 426
    code = "upgrade_required"

    def __init__(self) -> None:
        super().__init__("this server speaks no WebSocket; send the request by POST, and stream its answer")


class HeadersTooLarge(RequestFailed):
    """The request's headers are larger than the server accepts."""

    status = 431
    code = "headers_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the headers are larger than {limit_bytes} bytes, the most this server takes; send fewer cookies")


class ForeignRequest(RequestFailed):
    """A request that a web page from elsewhere could have sent, where no key tells our clients from it."""

    status = 403
    code = "foreign_request"

    def __init__(self, found: str, setting: str) -> None:
        super().__init__(
            f"{found} is not this server, which asks for no key: use http://127.0.0.1 or http://localhost, "
            f"list the name in {setting}, or start the server with keys"
        )


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


class BudgetExceeded(RequestFailed):
    """An answer would cost more than the client's limit."""

    status = 429
    code = "budget_exceeded"
    type = "server_error"

    def __init__(self, needed_usd: float, left_usd: float) -> None:
        super().__init__(f"an answer costs about {needed_usd:.3g} USD, {left_usd:.3g} USD of the request's limit are left")
