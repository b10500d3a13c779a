"""OpenAI's own client reads the answers: its helper puts a stream together, and comes to the same as without one."""

import json

import httpx2
import openai
import pytest
from asking import about, chat, chunk, piece

from router.errors import NoReplica
from router.protocols.responses import error, read

pytestmark = pytest.mark.slow

TOOLS = [{"type": "function", "name": "f", "parameters": {"type": "object"}}, {"type": "custom", "name": "patch"}]
CHUNKS = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning": "hm"}),
    chunk({"content": "I look"}),
    chunk(piece(0, '{"a":', "f", "call_1")),
    chunk(piece(1, '{"input": "x', "patch", "call_2")),
    chunk(piece(0, "1}")),
    chunk(piece(1, 'y"}'), "tool_calls"),
    chunk(usage={"prompt_tokens": 7, "completion_tokens": 3}),
]
CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
    {"id": "call_2", "type": "function", "function": {"name": "patch", "arguments": '{"input": "xy"}'}},
]
WHOLE = chat("tool_calls", {"prompt_tokens": 7, "completion_tokens": 3}, content="I look", reasoning="hm", tool_calls=CALLS)


def answered(request):
    edge = read(json.loads(request.content), about())
    if not edge.body.get("stream"):
        return httpx2.Response(200, json=edge.document(WHOLE))
    encoder = edge.encoder()
    events = encoder.waiting() + encoder.waiting() + [event for given in CHUNKS for event in encoder.fed(given)] + encoder.ended()
    return httpx2.Response(200, content=b"".join(events), headers={"content-type": "text/event-stream"})


def failed(request):
    made = error(NoReplica("small", "none runs"), "req_1")
    return httpx2.Response(made.status, json=made.body, headers=made.headers)


def client(answer):
    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    return openai.OpenAI(api_key="k", base_url="http://test/v1", http_client=http, max_retries=0)


def shown(value):
    """An item without what the helper adds."""
    if isinstance(value, list):
        return [shown(part) for part in value]
    fields = value if isinstance(value, dict) else value.to_dict()
    return {
        k: shown(v) if isinstance(v, dict) or (isinstance(v, list) and v and isinstance(v[0], dict)) else v
        for k, v in fields.items()
        if not k.startswith("parsed")
    }


def test_a_stream_and_a_whole_answer_are_the_same_to_the_sdk():
    whole = client(answered).responses.create(model="auto", input="hi", tools=TOOLS)
    with client(answered).responses.stream(model="auto", input="hi", tools=TOOLS) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds.count("keepalive") == 1 and kinds[-1] == "response.completed"
    assert final.output_text == whole.output_text == "I look"
    assert [shown(item) for item in final.output] == [shown(item) for item in whole.output]
    assert final.usage == whole.usage and final.usage.total_tokens == 10


def test_an_error_is_the_sdks_own():
    with pytest.raises(openai.InternalServerError) as refused:
        client(failed).responses.create(model="auto", input="hi")
    assert refused.value.code == "tier_unavailable"
