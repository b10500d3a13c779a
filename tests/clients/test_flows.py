"""Rejected drafts, by every protocol: none of their bytes leaves, and rows are durable before the end of a stream."""

import contextlib
import json

import httpx
import pytest

from router.cascade.flow import Cascade
from router.config import Escalation
from router.engine import Router
from router.types import Accept, GoUp
from tests.clients.ladder import ladder as served_ladder
from tests.clients.steered_tier import SteeredTier
from tests.deployments.live import OneFlow, ladder, serving

pytestmark = pytest.mark.slow

WEAK = "THINK 3 WEAK hello"
BODIES = {
    "responses": {"model": "auto", "input": WEAK},
    "messages": {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": WEAK}]},
}
ENDS = {"responses": b"event: response.completed", "messages": b"event: message_stop"}


class Sure:
    """Accepts answers of which every token was likely."""

    def next(self, answers):
        for tier, reply in answers.items():
            if not reply.logprobs or min(reply.logprobs) > -1:
                return Accept(tier)
        return GoUp(("large",), "low confidence")


@contextlib.contextmanager
def cascading(mode):
    config = ladder(("small", "large"))
    settings = Escalation(mode=mode, holdback_tokens=2)

    def make(router, request, decided):
        return Cascade(request.body, router.names, Sure(), settings, request.stream).run(["small"])

    tiers = {name: SteeredTier(name) for name in config.names}
    with serving(OneFlow(config, make), tiers) as url:
        yield url, tiers


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["buffer", "holdback"])
@pytest.mark.parametrize("path", BODIES)
def test_no_byte_of_a_rejected_draft_leaves(path, mode, stream):
    with cascading(mode) as (url, tiers):
        answer = httpx.post(f"{url}/{path}", json=BODIES[path] | {"stream": stream}, timeout=30)
    assert answer.status_code == 200, answer.text
    assert len(tiers["small"].bodies) == len(tiers["large"].bodies) == 1
    assert "draft" not in answer.text and "You" in answer.text and "thought1" in answer.text


@pytest.mark.parametrize("path", BODIES)
def test_rows_are_durable_before_the_end_of_a_stream(path, tmp_path):
    """The server is killed the moment its client has seen the last event."""
    body = json.loads(json.dumps(BODIES[path]).replace(" WEAK", "")) | {"stream": True}
    with served_ladder(tmp_path) as served:
        headers = {"authorization": f"Bearer {served.key}"}
        with httpx.stream("POST", f"{served.url}/{path}", json=body, headers=headers, timeout=30) as answer:
            got = b""
            for piece in answer.iter_raw():
                got += piece
                if ENDS[path] in got:
                    served.process.kill()
                    break
        served.process.wait()
        assert ENDS[path] in got, got
    with served_ladder(tmp_path) as again:
        seen = again.seen()
    assert len(seen.traces) == len(seen.calls) == 1 and seen.calls[0]["output_tokens"] > 3


PLAN = json.dumps({"plan": [{"prompt": "count the cats"}, {"prompt": "count the dogs"}]})
TASK = f'TOOL stepdown_delegate {PLAN} TOOL weather {{"city": "Rome"}}'
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
OFFERED = {
    "responses": [{"type": "function", "name": "weather", "parameters": SCHEMA}, {"type": "stepdown:delegate"}],
    "messages": [{"name": "weather", "input_schema": SCHEMA}, {"type": "stepdown:delegate"}],
}


@contextlib.contextmanager
def delegating():
    config = ladder(("small", "large"), delegation={"mode": "tool", "max_cost_ratio": 50.0, "deadline_s": 10.0})
    tiers = {name: SteeredTier(name) for name in config.names}
    with serving(Router(config, None, dict.fromkeys(config.names, lambda text: len(text.split()))), tiers) as url:
        yield url, tiers


def by_responses(url, items):
    answer = httpx.post(f"{url}/responses", json={"model": "auto", "input": items, "tools": OFFERED["responses"]}, timeout=30)
    output = answer.raise_for_status().json()["output"]
    call = next((item for item in output if item["type"] == "function_call"), None)
    return output, call and call["call_id"], answer.text


def by_messages(url, turns):
    body = {"model": "auto", "max_tokens": 500, "messages": turns, "tools": OFFERED["messages"]}
    answer = httpx.post(f"{url}/messages", json=body, timeout=30)
    content = answer.raise_for_status().json()["content"]
    call = next((block for block in content if block["type"] == "tool_use"), None)
    return content, call and call["id"], answer.text


@pytest.mark.parametrize("path", ["responses", "messages"])
def test_what_was_delegated_before_a_clients_tool_is_recalled_by_the_calls_id(path):
    ask = by_responses if path == "responses" else by_messages
    turns = [{"role": "user", "content": TASK}]
    with delegating() as (url, tiers):
        said, name, text = ask(url, turns)
        assert name.startswith("call_sd_") and "stepdown_delegate" not in text and "cats" not in text.replace(PLAN, "")
        if path == "responses":
            turns += [*said, {"type": "function_call_output", "call_id": name, "output": "sunny"}]
        else:
            result = {"type": "tool_result", "tool_use_id": name, "content": "sunny"}
            turns += [{"role": "assistant", "content": said}, {"role": "user", "content": [result]}]
        last, none, _ = ask(url, turns)
    assert none is None and "The tool said: sunny" in json.dumps(last)
    names = [c["function"]["name"] for m in tiers["large"].bodies[-1]["messages"] for c in m.get("tool_calls") or []]
    assert names == ["stepdown_delegate", "weather"]
