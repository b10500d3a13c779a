"""The pocket ladder's requests by its planner's shortest plan."""

import re

import pytest
from delegating import chat, run
from scripted import told

from classifiers.parts.decomposability import splits
from deployments.pocket import tasks
from router.config import Delegation
from router.delegate.memory import Memory
from router.limits.delegation_budget import Rung
from router.types import Say

pytestmark = pytest.mark.slow

POCKET = Delegation(
    mode="plan",
    min_input_tokens=12,
    offload_min_tokens=12,
    preview_chars=40,
    plan_prompt="plan {preview}",
    plan_max_tokens=32,
    min_saving=0.05,
    subtask_max_tokens=48,
)


def test_the_pocket_ladder_answers_composites_by_its_planners_shortest_plan():
    count = lambda text: len(re.findall(r"\w+|\S", text))  # noqa: E731
    rungs = [Rung(name, 512, price, price, count) for name, price in (("small", 0.103), ("medium", 0.454), ("large", 1.894))]
    right, started, cost, direct = 0, 0, 0.0, 0.0
    memory = Memory()
    for task in tasks.fresh("composite", 100, seed=3):
        parts = [line.split(". ", 1)[1] for line in task.prompt.split("\n")[1:]]
        answers = [line.split(". ", 1)[1] for line in task.answer.split("\n")]
        known = dict(zip(parts, answers, strict=True))
        done = run(
            tasks.SPLIT,
            chat(task.prompt),
            POCKET,
            rungs,
            splits=splits,
            subtask=lambda call, k=known: k[told(call)],
            final=task.answer,
            more={"memory": memory},
        )
        if done.of("plan"):
            started += 1
            plan = told(done.of("plan")[0])
            assert plan.startswith("plan ") and task.prompt.startswith(plan.removeprefix("plan ")) and len(plan) <= 46
            right += isinstance(done.end, Say) and done.end.text == task.answer
            cost += done.cost(rungs)
            direct += rungs[-1].cost(count(task.prompt), count(task.answer))
        else:
            assert done.end.report["why"] == "cost", "three short parts may be cheaper done alone"
    assert started >= 80 and right == started and cost <= 0.5 * direct


@pytest.mark.parametrize("kind", ["chain", "single"])
def test_the_pocket_ladder_never_plans_for_chains_and_singles(kind):
    settings = POCKET.model_copy(update={"min_input_tokens": 1, "offload_min_tokens": 1})
    prompts = [task.prompt for task in tasks.fresh(kind, 300, seed=11)]
    assert not any(run(tasks.SPLIT, chat(text), settings, splits=splits).of("plan") for text in prompts)
