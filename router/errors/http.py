"""Errors of paths, headers and how a body is sent."""

from router.errors.base import RequestFailed


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


class ServerStopping(RequestFailed):
    """The server stops: it takes no further requests, or has given an answer under way the time that it had."""

    status = 503
    code = "server_stopping"
    retry_after_s = 1.0

    def __init__(self) -> None:
        super().__init__("this server is stopping; try again in 1 s, and another may answer")

    def headers(self) -> dict[str, str]:
        return super().headers() | {"connection": "close"}
