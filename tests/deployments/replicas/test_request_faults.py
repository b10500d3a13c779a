"""Whose fault an error of vLLM is: exceptions of its classes, raised where vLLM raises them, without vLLM."""

import asyncio
import json
import re
from types import SimpleNamespace

import jinja2
import pydantic
import pytest

from deployments.replicas.request_faults import UNFOLLOWED, Refusal, refusal_of, refused, told_apart, with_refusals

PLAIN = SimpleNamespace(structured_outputs=None, response_format=None, tool_choice="none")
GRAMMAR = SimpleNamespace(structured_outputs={"grammar": "root ::= root"}, response_format=None, tool_choice="none")
SCHEMA = SimpleNamespace(structured_outputs=None, response_format=SimpleNamespace(type="json_schema"), tool_choice=None)
TOOL = SimpleNamespace(structured_outputs=None, response_format=None, tool_choice="required")
ROLE = 'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
WORD = 'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'


class VLLMError(Exception):
    pass


class VLLMClientError(VLLMError):
    pass


class VLLMValidationError(VLLMClientError):
    def __init__(self, message, parameter=None, value=None):
        super().__init__(message)
        self.parameter, self.value = parameter, value

    def __str__(self):
        return f"{self.args[0]} (parameter={self.parameter}, value={self.value})"


class VLLMServerError(VLLMError):
    pass


class GenerationError(VLLMServerError):
    pass


class EngineGenerateError(VLLMServerError):
    pass


class EngineDeadError(VLLMServerError):
    pass


class Number(pydantic.BaseModel):
    n: int


def invalid():
    with pytest.raises(pydantic.ValidationError) as found:
        Number(n="secret")
    return found.value


def generate_failed(cause, taken_in=True):
    """As vLLM's AsyncLLM.generate wraps what is raised in it."""

    def add_request():
        raise cause

    def output_handler():
        raise cause

    try:
        try:
            (add_request if taken_in else output_handler)()
        except Exception as error:
            raise EngineGenerateError from error
    except EngineGenerateError as error:
        return error


def told(refusal):
    assert isinstance(refusal, Refusal)
    return refusal.status, json.loads(refusal.text)["error"]


REQUESTS = [
    (VLLMValidationError("`tools` must not be an empty array.", "tools"), "`tools` must not be an empty array.", "tools"),
    (VLLMValidationError("`logprobs` must be an integer.", "logprobs", "x"), "`logprobs` must be an integer.", "logprobs"),
    (VLLMClientError("no"), "no", None),
    (invalid(), "n: Input should be a valid integer, unable to parse string as an integer", "n"),
    (ValueError("messages must not be empty"), "messages must not be empty", None),
    (jinja2.exceptions.TemplateError("roles must alternate"), "roles must alternate", None),
    (jinja2.exceptions.UndefinedError("'x' is undefined"), "'x' is undefined", None),
    (TypeError("'int' object is not iterable"), "(TypeError: 'int' object is not iterable)", None),
    (TypeError("<f at 0x7f00> got 'conversation' twice"), "(TypeError: <f> got 'conversation' twice)", None),
    (KeyError("function"), "(KeyError: 'function')", None),
    (AttributeError("'int' object has no attribute 'get'"), "(AttributeError: 'int' object has no attribute 'get')", None),
    (OverflowError("int too big"), "(OverflowError: int too big)", None),
    (NotImplementedError("no beam search here"), "(NotImplementedError: no beam search here)", None),
    (AssertionError(), "(AssertionError: )", None),
    (RecursionError("too deep"), "(RecursionError: too deep)", None),
    (generate_failed(OverflowError("can't serialize ints")), "(OverflowError: can't serialize ints)", None),
    (generate_failed(ValueError("Token id 10 is out of vocabulary")), "Token id 10 is out of vocabulary", None),
]


@pytest.mark.parametrize(("error", "reason", "param"), REQUESTS, ids=lambda value: type(value).__name__)
def test_what_odd_values_cause_is_a_400_with_vllms_reason(error, reason, param):
    status, body = told(refusal_of(error, PLAIN))
    assert (status, body["type"], body["param"]) == (400, "invalid_request_error", param)
    assert body["message"].endswith(reason) and "secret" not in body["message"]


@pytest.mark.parametrize(
    "error",
    [
        EngineDeadError("EngineCore encountered an issue."),
        EngineGenerateError(),
        generate_failed(AttributeError("in the loop that reads the engine"), taken_in=False),
        generate_failed(OSError("socket closed")),
        GenerationError("Internal server error"),
        VLLMServerError("no"),
        MemoryError(),
        OSError("no space left on device"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        ConnectionError("the engine's socket"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_the_engine_or_the_machine_causes_is_the_replicas(error):
    assert refusal_of(error, PLAIN) is None


def rendered(error):
    """As raised in vLLM's code that turns a request into tokens."""

    def render_chat():
        raise error

    with pytest.raises(type(error)) as found:
        render_chat()
    return found.value


@pytest.mark.parametrize("error", [OSError("cannot identify image file"), TimeoutError("http://x"), re.error("bad pattern")])
def test_what_cannot_be_turned_into_tokens_is_the_requests(error):
    assert refusal_of(error, PLAIN) is None
    assert told(refusal_of(rendered(error), PLAIN))[0] == 400


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("cannot schedule new futures after shutdown"), EngineDeadError()])
def test_a_replica_that_stops_or_lacks_memory_is_at_fault_there_too(error):
    assert refusal_of(rendered(error), PLAIN) is None


@pytest.mark.parametrize("request_", [GRAMMAR, SCHEMA, TOOL])
def test_a_grammar_that_the_engine_cannot_follow_is_the_requests(request_):
    status, body = told(refusal_of(GenerationError("Internal server error"), request_))
    assert (status, body["message"]) == (400, UNFOLLOWED)
    assert refusal_of(EngineDeadError(), request_) is None


def test_a_long_reason_is_cut():
    assert len(told(refused(ValueError("x" * 9_000)))[1]["message"]) == 500


async def answers(*items):
    for item in items:
        if isinstance(item, Exception):
            raise item
        yield item


def heard(request, *items):
    async def all_of():
        return [answer async for answer in with_refusals(answers(*items), request)]

    return asyncio.run(all_of())


def error_event(status, message="bad schema"):
    return "data: " + json.dumps({"error": {"message": message, "type": "T", "param": None, "code": status}}) + "\n\n"


@pytest.mark.parametrize("status", [400, 404, 422, 500])
def test_an_error_before_any_content_of_a_stream_is_that_status(status):
    (refusal,) = heard(PLAIN, error_event(status), "data: [DONE]\n\n")
    assert told(refusal) == (status, {"message": "bad schema", "type": "T", "param": None, "code": status})


@pytest.mark.parametrize("request_", [GRAMMAR, SCHEMA, TOOL])
@pytest.mark.parametrize("roles", [0, 1, 2])
def test_a_stream_that_fails_by_its_grammar_is_a_400_though_the_role_came_first(request_, roles):
    (refusal,) = heard(request_, *[ROLE] * roles, error_event(500, "Internal server error"), "data: [DONE]\n\n")
    assert told(refusal)[0] == 400


def test_a_failed_generation_without_a_grammar_is_a_500():
    (refusal,) = heard(PLAIN, error_event(500, "Internal server error"))
    assert told(refusal)[0] == 500


@pytest.mark.parametrize("request_", [PLAIN, GRAMMAR])
def test_good_streams_are_as_they_were(request_):
    pieces = [ROLE, WORD, WORD, "data: [DONE]\n\n"]
    assert heard(request_, *pieces) == pieces
    assert heard(request_, ROLE, "data: [DONE]\n\n") == [ROLE, "data: [DONE]\n\n"]
    assert heard(request_, ROLE) == [ROLE]


def test_an_error_after_content_stays_an_event():
    pieces = [ROLE, WORD, error_event(400), "data: [DONE]\n\n"]
    assert heard(PLAIN, *pieces) == pieces


def test_text_that_looks_like_an_error_is_none():
    odd = 'data: {"error": not json\n\n'
    assert heard(PLAIN, odd, 'data: {"error": 5}\n\n') == [odd, 'data: {"error": 5}\n\n']


def test_an_exception_of_the_request_ends_the_answer_and_others_are_raised():
    (refusal,) = heard(PLAIN, KeyError("function"))
    assert told(refusal)[0] == 400
    with pytest.raises(EngineDeadError):
        heard(PLAIN, EngineDeadError())
    with pytest.raises(TypeError):  # the client has a part of the answer: it cannot get a 400 any more
        heard(PLAIN, WORD, TypeError())


def test_an_error_document_keeps_its_status():
    error = {"message": "The model `x` does not exist.", "type": "NotFoundError", "param": "model", "code": 404}
    document = SimpleNamespace(error=SimpleNamespace(model_dump=lambda: error))
    (refusal,) = heard(PLAIN, document)
    assert told(refusal) == (404, error)


@pytest.mark.parametrize("given", [generate_failed(OverflowError("too big")), KeyError("function"), AttributeError("no")])
def test_vllm_is_told_what_it_would_call_a_500(given):
    made = told_apart(lambda message, *rest, **more: message)
    assert type(made(given)) is ValueError
    assert made("text") == "text"
    for kept in (VLLMValidationError("no"), EngineDeadError(), GenerationError("x")):
        assert made(kept, "more") is kept
