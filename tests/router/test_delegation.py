"""Delegation from the gates to the answer, in virtual time: no tier, no server, no clock."""

import json

from scripted import Said, drive, ladder, told

from router.config import Delegation
from router.delegation import delegate
from router.types import Say

RUNGS = ladder(0.1, 0.3, 1.0)
SETTINGS = Delegation(mode="plan", min_input_tokens=20, offload_min_tokens=10, max_cost_ratio=3.0)


def chat(text, **more):
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **more}


def listing(n=8, words=20):
    return "Do each of these:\n" + "\n".join(f"{i}. number {i} " + "word " * words for i in range(1, n + 1))


def planner(plan, **others):
    """A script: the plan as given, every other role by name; a callable gets the call."""
    def script(call):
        if call.role == "plan":
            return Said(plan if isinstance(plan, str) else json.dumps(plan), 0.05)
        found = others.get(call.role, Said("fine", 0.05 if call.role == "final" else 0.2))
        return found(call) if callable(found) else found
    return script


def run(plan, body=None, settings=SETTINGS, rungs=RUNGS, route=lambda text, difficulty: "small", splits=lambda text: True,
        more=None, **others):
    flow = delegate(body or chat(listing()), rungs, settings, route, splits=splits, **(more or {}))
    return drive(flow, planner(plan, **others))


def test_every_part_of_a_list_goes_down_and_the_list_of_results_is_the_answer():
    done = run({"plan": [{"each": "c1"}]}, subtask=lambda call: Said(told(call).split()[1], 0.2))
    assert isinstance(done.end, Say) and done.end.tier == "large"
    assert done.end.text == "\n".join(f"{i}. {i}" for i in range(1, 9))
    assert [call.role for call in done.calls] == ["plan"] + ["subtask"] * 8
    assert {call.tier for call in done.of("subtask")} == {"small"} and done.end.told["delegation"] == "done"
    assert set(done.outcomes) == {call.id for call in done.calls}
