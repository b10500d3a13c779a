"""Errors in what a request says."""

from collections.abc import Mapping

from router.errors.base import RequestFailed


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
