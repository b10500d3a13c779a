"""Delegation from the gates to the answer, in virtual time: what its tests have in common."""

import json
import re

from scripted import Said, drive, ladder, told

from router.config import Delegation
from router.delegate.gates import consider
from router.delegate.memory import Memory
from router.delegate.planned import delegate

RUNGS = ladder(0.1, 0.3, 1.0)
SETTINGS = Delegation(mode="plan", min_input_tokens=20, offload_min_tokens=10, max_cost_ratio=3.0)
MAP = {"plan": [{"each": "c1"}]}
FIELDS = [{"name": "amount", "type": "string"}]


def chat(text, **more):
    return {"model": "auto", "messages": [{"role": "user", "content": text}], **more}


def listing(n=8, size=20):
    return "Do each of these:\n" + "\n".join(f"{i}. say number {i} " + "word " * size for i in range(1, n + 1))


def planner(plan, **others):
    """A script: the plan as given, every other role by name; a callable gets the call."""

    def script(call):
        if call.role == "plan" and not callable(plan):
            return Said(plan if isinstance(plan, str) else json.dumps(plan), 0.05)
        found = plan if call.role == "plan" else others.get(call.role, Said("fine", 0.05 if call.role == "final" else 0.2))
        return found(call) if callable(found) else found

    return script


def run(
    plan,
    body=None,
    settings=SETTINGS,
    rungs=RUNGS,
    route=lambda text, difficulty: "small",
    splits=lambda text: True,
    more=None,
    **others,
):
    body = body or chat(listing())
    more = {"judge": lambda *_: None, "memory": Memory(), **(more or {})}
    considered = consider(body, rungs, settings, more["memory"], route, splits, more.get("special", ()))
    flow = delegate(body, rungs, settings, route, considered=considered, **more)
    done = drive(flow, planner(plan, **others))
    arrived = {name for name, *_ in done.ledger}
    assert arrived <= set(done.outcomes), "a reply without an outcome"
    return done


def number(call):
    """The number of the part that a worker was given."""
    return int(re.search(r"number (\d+)", told(call))[1])


def state(done):
    return done.end.report["delegation"]


def results(done):
    """What the merging tier was told of each job."""
    text = told(done.of("final")[0])
    return {r["id"]: r for r in json.loads(text[text.index('{"results"') :].splitlines()[0])["results"]}


def codes(done):
    return {name: r.get("code", r["status"]) for name, r in results(done).items()}
