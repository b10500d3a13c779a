"""Answers of vLLM's offline engine are those that a replica gives: the same texts and log-probabilities, also when resumed."""

import json

import httpx
import pytest

from deployments.distil.answering import answers, spec_of
from deployments.pocket import tasks
from router.config import SHIPPED, load_config
from router.learn.labels.labelling import logprob_stats

pytestmark = pytest.mark.ladder
PROMPTS = 150
JSON = {"response_format": {"type": "json_object"}, "max_tokens": 24}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def asked():
    """Greedy requests of all kinds of tasks; the last ones for JSON, with a tool, with a limit, and longer than the window."""
    drawn = tasks.fresh("single", PROMPTS, 31)
    bodies = [{"messages": [{"role": "user", "content": task.prompt}], "sampling": {"temperature": 0}} for task in drawn]
    last = bodies[0]
    bodies += [
        {**last, "sampling": {"temperature": 0, **JSON}},
        {**last, "tools": [TOOL]},
        {**last, "sampling": {"temperature": 0, "max_tokens": 1}},
        {**last, "messages": [{"role": "user", "content": "far too long " * 600}]},
    ]
    return [{"id": f"r{i}", "tools": [], **body} for i, body in enumerate(bodies)]


def from_replica(ladder, row):
    url, key = ladder
    tools = {"tools": row["tools"]} if row["tools"] else {}
    body = {"model": "small", "messages": row["messages"], **row["sampling"], **tools, "logprobs": True, "top_logprobs": 2}
    return httpx.post(f"{url}/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"}, timeout=60)


def test_the_offline_engine_answers_as_a_replica_does(ladder, tmp_path):
    rows = asked()
    tier = load_config(str(SHIPPED / "pocket.yaml")).tiers[0]
    found = answers(spec_of(tier), rows, lambda *told: None, tmp_path)
    differs = {}
    for row in rows[:-1]:
        served = from_replica(ladder, row).json()
        choice, own = served["choices"][0], found[row["id"]]
        if choice["message"].get("content") != own.message.get("content") or choice["finish_reason"] != own.finish:
            differs[row["id"]] = (choice, own)
        assert served["usage"]["prompt_tokens"] == own.input_tokens
        assert served["usage"]["completion_tokens"] == own.output_tokens
        told = logprob_stats(choice)
        assert told.keys() == own.signals.keys() and told["logprob_tokens"] == own.signals["logprob_tokens"]
        for name, value in told.items():
            assert own.signals[name] == pytest.approx(value, abs=1e-3), (row, name)
    assert differs == {}
    assert json.loads(found["r150"].message["content"]) is not None
    assert found["r152"].finish == "length" and found["r152"].output_tokens == 1
    assert rows[-1]["id"] not in found and from_replica(ladder, rows[-1]).status_code == 400
