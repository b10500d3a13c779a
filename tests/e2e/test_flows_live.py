"""Escalation, delegation and server tools on the pocket ladder, with openai's client as it is: what the client gets, and
what the ledger says of it."""

import asyncio
import json
import sqlite3
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, get_args

import httpx
import openai
import pytest

from deployments.ledger.database import state_folder
from deployments.pocket.tasks import fresh
from router.delegate.gates import DelegationState

pytestmark = pytest.mark.ladder
WAYS = ["create", "create, streamed", "async", "async, streamed", "stream()"]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS, "strict": True}}
FORM = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


@dataclass
class Heard:
    """One answer, however it was asked for."""

    trace: str
    text: str = ""
    finish: str | None = None
    usage: Any = None
    calls: list[Any] = field(default_factory=list)

    @property
    def told(self) -> dict[str, Any]:
        """`usage.stepdown`; empty for a plain call."""
        return (self.usage.model_extra or {}).get("stepdown") or {}

    def chunk(self, chunk):
        self.usage = chunk.usage or self.usage
        for choice in chunk.choices:
            self.text += choice.delta.content or ""
            self.calls += choice.delta.tool_calls or []
            self.finish = choice.finish_reason or self.finish

    def whole(self, answer):
        (choice,) = answer.choices
        self.text, self.finish, self.usage = choice.message.content or "", choice.finish_reason, answer.usage
        self.calls += choice.message.tool_calls or []


class Asker:
    """Asks in each of the client's ways, and notes which trace it was."""

    def __init__(self, url, key):
        self.url, self.key = url, key

    def client(self, traces):
        def note(response):
            traces.append(response.headers.get("x-stepdown-trace-id"))

        http = httpx.Client(event_hooks={"response": [note]})
        return openai.OpenAI(base_url=self.url, api_key=self.key, max_retries=0, timeout=120, http_client=http)

    def async_client(self, traces):
        async def note(response):
            traces.append(response.headers.get("x-stepdown-trace-id"))

        http = httpx.AsyncClient(event_hooks={"response": [note]})
        return openai.AsyncOpenAI(base_url=self.url, api_key=self.key, max_retries=0, timeout=120, http_client=http)

    def ask(self, way, content, model="auto", **more) -> Heard:
        traces, heard = [], Heard("")
        # A conversation keeps the tier that it went up to; each of these is one of its own.
        own = {"extra_headers": {"x-session-id": uuid.uuid4().hex}}
        body = {"model": model, "messages": [{"role": "user", "content": content}], "temperature": 0, **own, **more}
        if way.startswith("async"):
            asyncio.run(self.asked(way, body, traces, heard))
        elif way == "create":
            heard.whole(self.client(traces).chat.completions.create(**body))
        elif way == "create, streamed":
            for chunk in self.client(traces).chat.completions.create(**body, stream=True, stream_options={"include_usage": True}):
                heard.chunk(chunk)
        else:
            tools = {"extra_body": {"tools": body.pop("tools")}} if "tools" in body else {}
            with self.client(traces).chat.completions.stream(**body, **tools, stream_options={"include_usage": True}) as stream:
                with suppress(openai.LengthFinishReasonError):  # the helper's word for JSON that `max_tokens` has cut off
                    for event in stream:
                        if event.type == "chunk":
                            heard.chunk(event.chunk)
                if heard.finish != "length":
                    assert (stream.get_final_completion().choices[0].message.content or "") == heard.text
        (heard.trace,) = traces
        return heard

    async def asked(self, way, body, traces, heard):
        async with self.async_client(traces) as client:
            if way == "async":
                heard.whole(await client.chat.completions.create(**body))
                return
            async for chunk in await client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True}):
                heard.chunk(chunk)


@pytest.fixture(scope="module")
def asker(ladder):
    return Asker(*ladder)


def rows(query, *values):
    with sqlite3.connect(state_folder() / "ledger.db", timeout=30) as ledger:
        ledger.row_factory = sqlite3.Row
        return [dict(row) for row in ledger.execute(query, values)]


def written(trace):
    """The trace and its calls, which are written soon after the answer."""
    until = time.monotonic() + 15
    while not (found := rows("SELECT * FROM traces WHERE id = ?", trace)):
        assert time.monotonic() < until, f"{trace} is not in the ledger"
        time.sleep(0.2)
    return found[0], rows("SELECT * FROM calls WHERE trace_id = ? AND role != 'audit'", trace)


def balanced(heard):
    """The usage, its sum under `stepdown` and the ledger say the same."""
    trace, calls = written(heard.trace)
    sums = heard.told["total"] if heard.told else heard.usage.model_dump()
    assert sums["prompt_tokens"] == sum(call["input_tokens"] for call in calls)
    assert sums["completion_tokens"] == sum(call["output_tokens"] for call in calls)
    assert heard.usage.total_tokens == heard.usage.prompt_tokens + heard.usage.completion_tokens
    if heard.told:
        assert heard.told["cost_usd"] == pytest.approx(trace["cost_usd"]) == pytest.approx(sum(c["cost_usd"] for c in calls))
        shown = [(c["role"], c["tier"], c["outcome"], c["prompt_tokens"], c["completion_tokens"]) for c in heard.told["calls"]]
        assert sorted(shown) == sorted((c["role"], c["tier"], c["outcome"], c["input_tokens"], c["output_tokens"]) for c in calls)


# -- escalation -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def beyond(asker):
    """Prompts whose first draft is not accepted, so that the request must go up."""
    prompts = [task.prompt for task in fresh("single", 150, seed=4242)]
    found = [prompt for prompt in prompts if asker.ask("create", prompt).told.get("escalations")]
    assert len(found) >= 3
    return found[:3]


@pytest.mark.parametrize("way", WAYS)
def test_of_a_forced_escalation_the_client_sees_the_accepted_answer_alone(asker, beyond, way):
    for prompt in beyond:
        heard = asker.ask(way, prompt)
        accepted = [call for call in heard.told["calls"] if call["outcome"] == "accepted"]
        assert len(accepted) == 1 and heard.told["escalations"] >= 1 and len(heard.told["calls"]) > 1
        assert heard.text == asker.ask("create", prompt, accepted[0]["tier"]).text and heard.finish == "stop"
        balanced(heard)


# -- delegation -----------------------------------------------------------------------------------------------------------


def numbers(text):
    return [line.split(". ")[0] for line in text.split("\n")]


@pytest.fixture(scope="module")
def composites(asker):
    tasks = fresh("composite", 30, seed=4243)
    found = [task for task in tasks if asker.ask("create", task.prompt).told.get("delegation") == "done"]
    assert len(found) >= 5
    return found[:5]


@pytest.mark.parametrize("way", WAYS)
def test_a_delegated_answer_has_every_part_and_every_call_is_told(asker, composites, way):
    right = 0
    for task in composites:
        heard = asker.ask(way, task.prompt)
        assert heard.told["delegation"] == "done" and heard.told["ok"] == heard.told["subtasks"] >= 3
        assert numbers(heard.text) == numbers(task.answer)
        assert {call["role"] for call in heard.told["calls"]} <= {"plan", "subtask"} and "each" not in heard.text
        right += heard.text == task.answer
        balanced(heard)
    assert right >= 4


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0, 2.0, 100.0])
def test_a_clients_cost_limit_is_kept_to_the_last_call(asker, composites, share):
    for task in composites:
        limit = share * asker.ask("create", task.prompt, "large").usage.total_tokens * 1.894e-6
        try:
            heard = asker.ask("create", task.prompt, extra_body={"stepdown": {"max_cost_usd": limit}})
        except openai.RateLimitError as error:
            assert error.code == "budget_exceeded" and share < 100
            continue
        assert heard.told["cost_usd"] <= limit
        assert share < 100 or (heard.told["delegation"] == "done" and heard.finish == "stop")
        balanced(heard)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", ["auto", "large"])
def test_stepdown_delegate_beside_a_tool_of_the_client(asker, composites, way, model):
    tools = [{"type": "stepdown:delegate"}, {"type": "stepdown:escalate"}, WEATHER]
    heard = asker.ask(way, composites[0].prompt, model, tools=tools, max_tokens=80)
    assert heard.finish in ("stop", "length", "tool_calls")
    assert "stepdown_" not in heard.text and "tool_call>" not in heard.text
    assert all((call.function.name or "weather") == "weather" for call in heard.calls)
    assert heard.told["delegation"] in set(get_args(DelegationState)) - {"off"}
    balanced(heard)


def test_tools_that_leave_room_in_the_window_are_offered_by_the_server(asker):
    """The pocket window of 512 tokens has no room for the shipped function; that is told and the client is answered."""
    heard = asker.ask("create", "What is 2 plus 3?", "large", tools=[{"type": "stepdown:delegate"}])
    assert heard.text == "5" and heard.told["delegation"] in ("ineligible", "direct")
    balanced(heard)


# -- json_schema ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("delegate", [False, True])
def test_a_json_schema_is_kept_whoever_answers(asker, composites, beyond, way, delegate):
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": FORM, "strict": True}}
    for prompt in (beyond[0], composites[0].prompt):
        tools = {"tools": [{"type": "stepdown:delegate"}]} if delegate else {}
        heard = asker.ask(way, prompt, response_format=wanted, max_tokens=60, **tools)
        assert heard.text.startswith("{") and not heard.calls
        if heard.finish == "stop":
            assert set(json.loads(heard.text)) == {"n"}
        balanced(heard)
