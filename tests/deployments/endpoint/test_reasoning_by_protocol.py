"""Reasoning in every protocol, from a tier that leaves it in the text: named, hidden, and sent back to the tier that had it."""

import httpx
import pytest
from live import ladder, serving
from scripted_tier import Said, ScriptedTier

from router.engine import Router

pytestmark = pytest.mark.slow  # each starts to serve

QUESTION = [{"role": "user", "content": "six times seven"}]
TOOL = {"name": "look", "input_schema": {"type": "object"}}
BODIES = {
    "chat/completions": {"messages": QUESTION},
    "responses": {"input": "six times seven"},
    "messages": {"messages": QUESTION, "max_tokens": 400},
}
THOUGHT = "Sevens make"
TEXT = f"<think>{THOUGHT}</think>\n\nforty-two"


@pytest.fixture
def place(monkeypatch, tmp_path):
    """Serves with settings of the server: (address, tiers)."""
    monkeypatch.setenv("STEPDOWN_STATE_DIR", str(tmp_path))

    def made(said=TEXT, **server):
        config = ladder(server=server)
        tiers = {name: ScriptedTier(name, lambda body: said if isinstance(said, Said) else Said(said)) for name in config.names}
        return serving(Router(config, None, dict.fromkeys(config.names, lambda text: len(text.split()))), tiers), tiers

    return made


def ask(url, path, **more):
    answer = httpx.post(f"{url}/{path}", json={"model": "large", **BODIES[path], **more}, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", BODIES)
def test_hidden_in_every_protocol(place, path, stream):
    served, _ = place(reasoning="hide")
    with served as url:
        answer = ask(url, path, stream=stream)
    assert "Sevens" not in answer.text and "think" not in answer.text and "forty-two" in answer.text


@pytest.mark.parametrize("field", [None, "both", "reasoning_content"])
def test_named_in_every_protocol_whatever_chats_call_it(place, field):
    served, _ = place(reasoning_field=field)
    with served as url:
        thinking, text = ask(url, "messages").json()["content"]
        assert (thinking["type"], thinking["thinking"], text["text"]) == ("thinking", THOUGHT, "forty-two")
        reasoning, message = ask(url, "responses").json()["output"]
        assert reasoning["summary"] == [{"type": "summary_text", "text": THOUGHT}]
        assert message["content"][0]["text"] == "forty-two"
        for path in ("messages", "responses"):
            streamed = ask(url, path, stream=True).text
            assert "Sevens" in streamed and "<think>" not in streamed and "</think>" not in streamed


def test_a_thought_comes_back_to_the_tier_that_had_it_and_to_no_other(place):
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    served, tiers = place(Said(f"<think>{THOUGHT}</think>", tool_calls=[call], finish="tool_calls"))
    with served as url:
        said = ask(url, "messages", tools=[TOOL]).json()["content"]
        result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "42"}]}
        history = [*QUESTION, {"role": "assistant", "content": said}, result]
        for tier in ("large", "small"):
            ask(url, "messages", model=tier, tools=[TOOL], messages=history)
        ask(url, "messages", tools=[TOOL], messages=[*history, {"role": "assistant", "content": "42"}, *QUESTION])
    own, finished, foreign = (
        tier.bodies[at]["messages"][1] for tier, at in ((tiers["large"], 1), (tiers["large"], 2), (tiers["small"], 0))
    )
    assert own["reasoning"] == THOUGHT and "reasoning_tier" not in own
    assert not {"reasoning", "reasoning_tier"} & (finished.keys() | foreign.keys())
