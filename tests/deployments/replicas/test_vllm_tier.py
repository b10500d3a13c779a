"""A request's own fault at a vLLM tier, by lane and by handle, with vLLM's own types of requests and Ray's own replica class.

The engine behind them is made up: it raises what vLLM's raises. tests/e2e/test_request_faults.py asks the real one.
"""

import asyncio
import json
import os
import random
import time
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from deployments.lane import server
from deployments.lane.client import Lane
from deployments.lane.server import LaneServer
from deployments.replicas.meter import ReplicaMeter
from deployments.replicas.replica_health import FAILURES_IN_A_ROW, health_of
from deployments.tiers.serve_tier import CallPolicy, ServeTier
from deployments.traffic.watched_tier import Watched
from router.config import VllmTier
from router.errors import BadConfig, NoReplica, RequestFailed, TierFailed
from router.traffic.breaker import FAILURES, Breaker

pytestmark = pytest.mark.slow  # importing Ray's replica and vLLM's types takes ten seconds
USER = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
NAMED = {"type": "function", "function": {"name": "f"}}
ODD_CHATS = [
    ({"tools": []}, "`tools` must not be an empty array"),
    ({"stream_options": {"include_usage": True}}, "Stream options can only be defined when `stream=True`"),
    ({"top_logprobs": 2}, "when using `top_logprobs`, `logprobs` must be set to true"),
    ({"continue_final_message": True, "add_generation_prompt": True}, "Cannot set both `continue_final_message`"),
    ({"messages": [*USER, {"role": "assistant", "tool_calls": 5}]}, "'int' object is not iterable"),
    ({"tool_choice": "auto"}, "When using `tool_choice`, `tools` must be set"),
    ({"response_format": {"type": "json_schema"}}, "the 'json_schema' field must be provided"),
    ({"response_format": {"type": "structural_tag", "structures": 5, "triggers": []}}, "Invalid response_format structural_tag"),
    ({"structured_outputs": 5}, "'int' object has no attribute 'get'"),
    ({"structured_outputs": {}}, "You must use one kind of structured outputs constraint"),
    ({"structured_outputs": {"json": {}, "regex": "a"}}, "You can only use one kind of constraints"),
    ({"tools": [{"type": "function"}], "tool_choice": NAMED}, "KeyError: 'function'"),
    ({"tools": 5, "tool_choice": NAMED}, "'int' object is not iterable"),
    ({"tools": TOOLS, "tool_choice": "always"}, "Invalid value for `tool_choice`: always"),
    ({"messages": 5}, "'int' object is not iterable"),
    ({"prompt_logprobs": -5}, "`prompt_logprobs` must be a positive value or -1"),
    ({"logprob_token_ids": [1]}, "`logprobs` must be set to true"),
    ({"repetition_detection": {"max_pattern_size": -1}}, "max_pattern_size"),
    ({"seed": 2**70}, "seed: Input should be less than or equal to"),
    ({"stop": 5}, "stop"),
]
ODD_PROMPTS = [
    ({"prompt": ""}, "Either prompt or prompt_embeds must be provided and non-empty"),
    ({}, "Either prompt or prompt_embeds must be provided and non-empty"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": "a", "logprobs": -5}, "`logprobs` must be a positive value or -1"),
    ({"prompt": "a", "structured_outputs": 5}, "'int' object has no attribute 'get'"),
    ({"prompt": "a", "stream_options": {"include_usage": True}}, "Stream options can only be defined when `stream=True`"),
]
ODD = [("chat/completions", {"messages": USER, **body}, why) for body, why in ODD_CHATS]
ODD += [("completions", body, why) for body, why in ODD_PROMPTS]
GOOD = {"model": "it", "messages": USER}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(server.tempfile, "gettempdir", lambda: "/tmp" if len(str(tmp_path)) > 60 else str(tmp_path))


class Engine:
    """Raises `fault`, or answers."""

    def __init__(self) -> None:
        self.fault, self.events, self.asked = None, [], 0

    async def chat(self, request, _):
        from ray.serve.llm.openai_api_models import ChatCompletionResponse

        self.asked += 1
        if self.fault:
            raise self.fault
        for event in self.events:
            yield event
        if not self.events:
            message = {"role": "assistant", "content": "good"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            yield ChatCompletionResponse(model="it", choices=[choice], usage=usage)

    completions = chat


class Handle:
    """Serve's: each call is one of the replica's generator."""

    deployment_name = "tier-faults"

    def __init__(self, replica) -> None:
        self.replica = replica

    def options(self, **_):
        return self

    def remote(self, *arguments):
        return Items(self.replica.openai(*arguments))


class Items:
    """What a handle gives back. As Ray does, it turns an exception of the replica into its own."""

    def __init__(self, items) -> None:
        self.items = items

    def __aiter__(self):
        return self

    async def __anext__(self):
        from ray.exceptions import RayTaskError
        from vllm.exceptions import VLLMError

        try:
            return await anext(self.items)
        except (VLLMError, LookupError, TypeError) as error:
            raise RayTaskError("openai", "", error) from None

    def cancel(self):
        pass


async def one():
    return 1


def replica():
    from deployments.replicas.vllm_tier import PlainServer

    made = object.__new__(type("Replica", (PlainServer,), {"__del__": lambda self: None}))
    made.engine = Engine()
    made.__dict__["meter"] = ReplicaMeter("r")
    return made


@asynccontextmanager
async def served(way):
    """(tier with its circuit, replica)."""
    made = replica()
    end = LaneServer(made.openai, f"test-{os.getpid()}-{time.monotonic_ns()}")
    await end.start()

    async def where():
        return "here", end.path

    line = Lane(where, "here") if way == "lane" else None
    tier = Watched(ServeTier("it", Handle(made), one, CallPolicy(10.0), lane=line), Breaker(time.monotonic, random.random))
    if line:
        await line.connection()
        await line.looking
    try:
        yield tier, made
    finally:
        await tier.close()
        await end.close(1.0)


async def failed(tier, path, body) -> RequestFailed:
    """The error of a request, whole or streamed."""
    with pytest.raises(RequestFailed) as found:
        if body.get("stream"):
            [_ async for _ in tier.stream(path, body)]
        else:
            await tier.complete(path, body)
    return found.value


def well(tier, made) -> bool:
    return not tier.breaker.circuits and not health_of("tier-faults").breaker.circuits and made.streak.failed == 0


def go(scenario):
    async def limited():
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(limited())


@pytest.mark.parametrize("way", ["lane", "handle"])
def test_a_body_that_vllm_refuses_is_a_400_and_nobody_else_notices(way):
    async def scenario():
        async with served(way) as (tier, made):
            for path, body, why in ODD:
                error = await failed(tier, path, {"model": "it", **body})
                told = error.body()["error"]
                assert isinstance(error, TierFailed) and (error.status, told["type"]) == (400, "invalid_request_error"), body
                assert why in told["message"], (body, told)
            assert len(ODD) > 10 and well(tier, made) and made.engine.asked == 0
            assert json.loads(await tier.complete("chat/completions", GOOD))["choices"][0]["message"]["content"] == "good"

    go(scenario)


def raised(name):
    from vllm.exceptions import GenerationError, VLLMValidationError

    return {
        "template": TypeError("safe_apply_chat_template() got multiple values for argument 'conversation'"),
        "refused": VLLMValidationError("Invalid grammar specification.", parameter="structured_outputs"),
        "missing": KeyError("image_url"),
        "grammar": GenerationError("Internal server error"),
    }[name]


@pytest.mark.parametrize("way", ["lane", "handle"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["template", "refused", "missing", "grammar"])
def test_ten_requests_whose_values_vllm_stumbles_over_are_ten_400s(way, stream, name):
    async def scenario():
        async with served(way) as (tier, made):
            made.engine.fault = raised(name)
            body = {**GOOD, "stream": stream, "structured_outputs": {"grammar": "root ::= root"}}
            for _ in range(10):
                error = await failed(tier, "chat/completions", body)
                assert error.status == 400 and error.body()["error"]["message"]
            assert well(tier, made) and made.engine.asked == 10 and not made.meter.late
            made.engine.fault = None
            assert b"good" in await tier.complete("chat/completions", GOOD)

    go(scenario)


@pytest.mark.parametrize("way", ["lane", "handle"])
def test_a_stream_that_begins_with_an_error_of_the_request_is_a_400(way):
    async def scenario():
        async with served(way) as (tier, made):
            error = {"message": "Invalid schema", "type": "BadRequestError", "param": None, "code": 400}
            made.engine.events = ["data: " + json.dumps({"error": error}) + "\n\n", "data: [DONE]\n\n"]
            for _ in range(10):
                found = await failed(tier, "chat/completions", {**GOOD, "stream": True})
                told = {"type": "invalid_request_error", "code": "invalid_request"}  # OpenAI's words for vLLM's
                assert (found.status, found.body()) == (400, {"error": error | told})
            assert well(tier, made)

    go(scenario)


@pytest.mark.parametrize("way", ["lane", "handle"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_died_is_the_replicas_fault(way, stream):
    async def scenario():
        from vllm.v1.engine.exceptions import EngineDeadError

        async with served(way) as (tier, made):
            made.engine.fault = EngineDeadError()
            for _ in range(FAILURES_IN_A_ROW):
                with pytest.raises(Exception, match="EngineCore"):
                    [_ async for _ in made.openai("chat/completions", json.dumps(GOOD))]
            with pytest.raises(RuntimeError, match="5 times in a row"):
                made.streak.check()
            for _ in range(FAILURES):
                assert isinstance(await failed(tier, "chat/completions", {**GOOD, "stream": stream}), NoReplica)
            assert tier.breaker.left_s("it") > 0

    go(scenario)


def test_vllm_and_ray_still_have_what_whose_fault_is_told_by():
    import inspect

    from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
    from vllm import exceptions
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.renderers.online_renderer import OnlineRenderer
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    from deployments.replicas import request_faults
    from deployments.replicas.vllm_tier import SERVINGS

    assert all(f"self.{name}" in inspect.getsource(VLLMEngine.__init__) for name in SERVINGS)
    assert all(callable(getattr(AsyncLLM, name)) for name in request_faults.TAKES_IN)
    assert all(callable(getattr(OnlineRenderer, name)) for name in request_faults.RENDERS)
    assert callable(OpenAIServingChat.create_error_response)
    assert exceptions.VLLMClientError.__name__ in request_faults.CLIENTS
    assert exceptions.GenerationError.__name__ == "GenerationError" and EngineGenerateError.__name__ == "EngineGenerateError"
    assert not request_faults.is_odd(EngineDeadError()) and not request_faults.is_odd(exceptions.GenerationError())


# -- promises ------------------------------------------------------------------------------------------------------------------

TIER = {"name": "it", "engine": "vllm", "source": "a/b", "context": 100, "price": {"usd_per_accelerator_hour": 1}}


@pytest.mark.parametrize(
    "options", [{}, {"tool_call_parser": "nonsense"}, {"tool_call_parser": "hermes", "enable_auto_tool_choice": True}]
)
def test_a_parser_that_vllm_knows_or_that_is_not_used_is_no_mistake(options):
    from deployments.replicas.vllm_tier import check_parser

    check_parser("it", options)


def test_a_parser_that_vllm_does_not_know_is_found_before_the_model_is_loaded():
    from deployments.replicas.vllm_tier import check_parser

    with pytest.raises(BadConfig, match="tiers.it.engine_kwargs.tool_call_parser: found 'nonsense'.* hermes"):
        check_parser("it", {"tool_call_parser": "nonsense", "enable_auto_tool_choice": True})


@pytest.mark.parametrize("promise", [{}, {"tools": True}, {"tools": False}])
def test_a_replica_becomes_ready_only_if_it_keeps_its_promises(monkeypatch, promise):
    from ray.serve.llm.deployment import LLMServer

    from deployments.replicas import vllm_tier

    async def nothing(self) -> None:
        return None

    async def tried(model, ask) -> dict[str, str]:
        return {"chat": "", "tools": "it has no tool parser"}

    monkeypatch.setattr(LLMServer, "start", nothing)
    monkeypatch.setattr(vllm_tier, "tried", tried)
    monkeypatch.setattr(vllm_tier, "write_to_file", lambda again: None)
    made = replica()
    made.tier = VllmTier.model_validate(TIER | promise)
    made._llm_config = SimpleNamespace(model_id="it")
    made.__dict__["lane_server"] = LaneServer(made.openai, f"test-{os.getpid()}-{time.monotonic_ns()}")

    async def started() -> str:
        try:
            await made.start()
            return "ready" if await made.abilities() == {"chat": "", "tools": "it has no tool parser"} else "?"
        except BadConfig as error:
            return str(error)
        finally:
            await made.lane_server.close()

    assert asyncio.run(started()).startswith("tiers.it.tools is true" if promise.get("tools") else "ready")
