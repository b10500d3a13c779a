"""The roots of the tree, and the errors of commands and plans."""

from typing import Any


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
