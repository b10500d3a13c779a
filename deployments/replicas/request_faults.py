"""Decides whose fault an error of vLLM is. A request's own fault gets a 400 with vLLM's reason; all else is the replica's.

vLLM's server tells them apart by the class of the exception, and so do we, by its name, as this file knows no vLLM:

- Whatever is raised while the body becomes vLLM's type of a request is the request's: nothing else was asked yet.
- vLLM's own code around its engine (chat template, tools, tokens, sampling, the answer's form) depends on the request alone:
  the errors that odd values cause in it (`ODD`) are the request's, and so is all but a lack of memory while it turns the request
  into tokens (`RENDERS`). Others, for example of files or the engine's socket, are the replica's.
- Errors from inside the engine are the replica's, but for two: one raised while the engine took the request in (`TAKES_IN`),
  and a failed generation of a request that demands a grammar which the engine could not follow.
"""

import json
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

ODD = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, NotImplementedError, RecursionError)
"""the errors that an unexpected value causes in Python code; pydantic's ValidationError is a ValueError"""

CLIENTS = {"VLLMClientError", "TemplateError"}  # vLLM's base class for a request's fault; jinja's for a chat template's
RENDERS = {"render_chat", "render_completion"}  # vLLM's methods that turn messages, pictures and tools into tokens
TAKES_IN = {"add_request"}  # the method of vLLM's engine client that turns a request into the engine's own and sends it
DEMANDS = {"json_schema", "structural_tag"}  # types of `response_format` with a grammar of the client
UNFOLLOWED = "the engine could not follow the grammar, the schema or the tools that this request demands"
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
MOST_CHARS = 500  # of a reason


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error in place of an answer: its status, and OpenAI's error body as JSON."""

    status: int
    text: str


def names_of(error: BaseException) -> set[str]:
    """The names of its class and of all base classes."""
    return {kind.__name__ for kind in type(error).__mro__}


def is_odd(error: BaseException) -> bool:
    """Whether an unexpected value caused it."""
    return isinstance(error, ODD) or not CLIENTS.isdisjoint(names_of(error))


def through(error: BaseException, methods: set[str]) -> bool:
    """Whether its traceback leads through one of these methods."""
    at = error.__traceback__
    while at:
        if at.tb_frame.f_code.co_name in methods:
            return True
        at = at.tb_next
    return False


def unrendered(error: BaseException) -> bool:
    """Whether the request could not be turned into tokens, for example as a picture is none or cannot be fetched.

    A plain RuntimeError is how a thread pool says that the replica is stopping.
    """
    ill = isinstance(error, MemoryError) or type(error) is RuntimeError or "VLLMServerError" in names_of(error)
    return not ill and through(error, RENDERS)


def demanding(request: Any) -> bool:
    """Whether the answer has to follow a grammar of the client."""
    form = getattr(getattr(request, "response_format", None), "type", None)
    choice = getattr(request, "tool_choice", None)
    named = choice == "required" or hasattr(choice, "function")
    return bool(getattr(request, "structured_outputs", None)) or form in DEMANDS or named


def blamed(error: BaseException) -> BaseException | None:
    """The error that the request caused; None: the fault is the replica's."""
    if is_odd(error) or unrendered(error):
        return error
    cause = error.__cause__
    if "EngineGenerateError" in names_of(error) and cause and is_odd(cause) and through(cause, TAKES_IN):
        return cause
    return None


def refusal_of(error: BaseException, request: Any = None) -> Refusal | None:
    """A 400 with vLLM's reason; None: the fault is the replica's."""
    found = blamed(error)
    if found is not None:
        return refused(found)
    return refused(ValueError(UNFOLLOWED)) if "GenerationError" in names_of(error) and demanding(request) else None


def refused(error: BaseException) -> Refusal:
    """The 400 of a request whose values caused `error`."""
    return Refusal(400, json.dumps({"error": openai_error(error)}))


def openai_error(error: BaseException) -> dict[str, Any]:
    """OpenAI's error object: which field is wrong and why, without its value."""
    details: list[Any] = getattr(error, "errors", list)()
    if details:
        where = ".".join(str(part) for part in details[0]["loc"]) or None
        message = f"{where}: {details[0]['msg']}" if where else str(details[0]["msg"])
    else:
        where = getattr(error, "parameter", None)
        message = reason_of(error)
    return {"message": message[:MOST_CHARS], "type": "invalid_request_error", "param": where, "code": "invalid_request"}


def reason_of(error: BaseException) -> str:
    """What vLLM says. Python's own errors name a value but not what it is for, so their class goes with them."""
    own = "VLLMError" in names_of(error)
    said = ADDRESS.sub("", str(error.args[0] if own and error.args else error))
    worded = bool(said) and (own or "TemplateError" in names_of(error) or type(error) is ValueError)
    return said if worded else f"vLLM cannot read this request ({type(error).__name__}: {said})"


def told_apart(create: Callable[..., Any]) -> Callable[..., Any]:
    """vLLM's `create_error_response`, which calls a request's fault a 400 too where vLLM would call it a 500.

    In a stream the exception does not reach us, only what this function makes of it.
    """

    def created(message: Any, *arguments: Any, **more: Any) -> Any:
        found = blamed(message) if isinstance(message, Exception) else None
        if found is None or not CLIENTS.isdisjoint(names_of(found)):
            return create(message, *arguments, **more)
        return create(ValueError(reason_of(found)), *arguments, **more)

    return created


async def with_refusals(answers: AsyncGenerator[Any], request: Any) -> AsyncGenerator[Any]:
    """vLLM's answers, with a Refusal in place of the error of a request, and of a stream that is an error before any content.

    Exceptions that are the replica's fault are raised.
    """
    held: list[str] = []
    begun = False
    try:
        async with aclosing(answers):
            async for answer in answers:
                refusal = None if begun else refusal_in(answer, request)
                if refusal:
                    yield refusal
                    return
                if not begun and demanding(request) and is_role(answer):
                    held.append(answer)  # vLLM sends the role before it looks whether the generation failed
                    continue
                begun = True
                for piece in held:
                    yield piece
                held.clear()
                yield answer
            for piece in held:
                yield piece
    except Exception as error:
        refusal = None if begun else refusal_of(error, request)
        if refusal is None:
            raise
        yield refusal


def is_role(answer: Any) -> bool:
    """Whether it is the piece of a stream that comes before all content."""
    return isinstance(answer, str) and '"role":' in answer and '"content":""' in answer


def refusal_in(answer: Any, request: Any) -> Refusal | None:
    """The error that an event of a stream, or an error document, tells; None: it is no error."""
    error = error_of(answer)
    if error is None:
        return None
    status = status_of(error) or 500
    if status >= 500 and error.get("message") == "Internal server error" and demanding(request):
        return refused(ValueError(UNFOLLOWED))
    return Refusal(status, json.dumps({"error": dict(error)}))


def status_of(error: Any) -> int:
    """The HTTP status that an error object tells, in 400 to 599; 0: none."""
    for key in ("code", "status", "status_code") if isinstance(error, Mapping) else ():
        told = error.get(key)
        if isinstance(told, int | str) and re.fullmatch("[45][0-9][0-9]", str(told)):
            return int(told)
    return 0


def error_of(answer: Any) -> Mapping[str, Any] | None:
    """The error object of an answer that is nothing else."""
    if not isinstance(answer, str):
        return dict(answer.error.model_dump()) if hasattr(answer, "error") else None
    if not answer.startswith('data: {"error"'):
        return None
    try:
        error = json.loads(answer.removeprefix("data: ")).get("error")
    except ValueError:
        return None
    return error if isinstance(error, dict) else None
