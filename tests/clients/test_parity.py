"""One conversation by chat, Responses and Messages: the same tier, reason, chat body at the tier, and cost."""

import json

import anthropic
import httpx
import openai
import pytest

from tests.clients.sdks.checking import SUNNY, WEATHER

pytestmark = pytest.mark.slow

SYSTEM = "Answer in one sentence."
ASK = "What is the weather in Rome?"
ARGUMENTS = '{"city": "Rome"}'
CALL = {"id": "call_1", "name": "get_weather"}
THANKS = "Thank you. And what did I ask?"
CHAT = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": ASK},
    {
        "role": "assistant",
        "content": "I look it up.",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": ARGUMENTS}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": SUNNY},
    {"role": "assistant", "content": "It is sunny."},
    {"role": "user", "content": THANKS},
]
LIMIT = 500


def chat_body(stream):
    tool = {"type": "function", "function": {"name": "get_weather", "description": "the weather", "parameters": WEATHER}}
    more = {"stream": stream, **({"stream_options": {"include_usage": True}} if stream else {})}
    limits = {"max_completion_tokens": LIMIT, "temperature": 0.5, "top_p": 0.9, "tool_choice": "auto"}
    return {"model": "auto", "messages": CHAT, "tools": [tool], **limits, **more}


def responses_body(stream):
    tool = {"type": "function", "name": "get_weather", "description": "the weather", "parameters": WEATHER}
    items = [
        {"role": "user", "content": ASK},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look it up."}]},
        {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": ARGUMENTS},
        {"type": "function_call_output", "call_id": "call_1", "output": SUNNY},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It is sunny."}]},
        {"role": "user", "content": [{"type": "input_text", "text": THANKS}]},
    ]
    limits = {"max_output_tokens": LIMIT, "temperature": 0.5, "top_p": 0.9, "tool_choice": "auto"}
    return {"model": "auto", "instructions": SYSTEM, "input": items, "tools": [tool], "stream": stream, **limits}


def messages_body(stream):
    tool = {"name": "get_weather", "description": "the weather", "input_schema": WEATHER}
    called = [
        {"type": "text", "text": "I look it up."},
        {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": json.loads(ARGUMENTS)},
    ]
    turns = [
        {"role": "user", "content": ASK},
        {"role": "assistant", "content": called},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": SUNNY}]},
        {"role": "assistant", "content": "It is sunny."},
        {"role": "user", "content": [{"type": "text", "text": THANKS}]},
    ]
    limits = {"max_tokens": LIMIT, "temperature": 0.5, "top_p": 0.9, "tool_choice": {"type": "auto"}}
    return {"model": "auto", "system": SYSTEM, "messages": turns, "tools": [tool], "stream": stream, **limits}


WAYS = {"chat/completions": chat_body, "responses": responses_body, "messages": messages_body}


def asked(served, path, stream):
    """(headers, what the tier was sent, the ledger's trace, its calls) of the conversation by one protocol."""
    served.forget()
    answer = httpx.post(
        f"{served.url}/{path}", json=WAYS[path](stream), headers={"authorization": f"Bearer {served.key}"}, timeout=30
    )
    assert answer.status_code == 200, answer.text
    assert "You said: Thank you." in answer.text.replace('"', "") or stream
    seen = served.seen()
    (body,), (trace,) = seen.all_bodies, seen.traces
    return answer.headers, body, trace, seen.calls


SHARED = ("tier", "reason", "target", "flow", "status", "stream", "cost_usd", "counterfactual_usd", "wanted")
# Not the outcome: a chat that is passed through is `answered`, an answer that was rewritten `accepted`.
COUNTED = ("role", "tier", "input_tokens", "output_tokens", "cached_tokens", "cost_usd", "estimated")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["responses", "messages"])
def test_a_conversation_costs_and_reads_the_same_by_every_protocol(served, path, stream):
    chat_headers, chat, chat_trace, chat_calls = asked(served, "chat/completions", stream)
    headers, body, trace, calls = asked(served, path, stream)
    assert json.dumps(body, sort_keys=True) == json.dumps(chat, sort_keys=True)
    for name in ("x-stepdown-tier", "x-stepdown-reason"):
        assert headers[name] == chat_headers[name]
    assert {name: trace[name] for name in SHARED} == {name: chat_trace[name] for name in SHARED}
    assert [{name: row[name] for name in COUNTED} for row in calls] == [{n: row[n] for n in COUNTED} for row in chat_calls]
    assert len(calls) == 1 and trace["path"] != chat_trace["path"]


def test_the_three_sdks_get_the_same_answer(served):
    chat = openai.OpenAI(base_url=served.url, api_key=served.key, max_retries=0)
    claude = anthropic.Anthropic(base_url=served.origin, api_key=served.key, max_retries=0)
    with chat.chat.completions.stream(**{k: v for k, v in chat_body(True).items() if k != "stream"}) as stream:
        by_chat = stream.get_final_completion().choices[0].message.content
    with chat.responses.stream(**{k: v for k, v in responses_body(True).items() if k != "stream"}) as stream:
        by_responses = stream.get_final_response().output_text
    unknown = ("stream", "temperature", "top_p")  # to this SDK
    with claude.messages.stream(**{k: v for k, v in messages_body(True).items() if k not in unknown}) as stream:
        by_messages = stream.get_final_message().content[0].text
    assert by_chat == by_responses == by_messages == f"You said: {THANKS}"
