"""What a plan may cost, before it is there and once it is."""

import json

import pytest
from scripted import ladder

from router.config import Delegation
from router.delegate import plans
from router.delegate.gates import consider
from router.delegate.memory import Memory
from router.delegate.planned import FINAL_CALL, PlanMode
from router.delegate.shared import Shared
from router.limits.delegation_budget import Budget

RUNGS = ladder(0.1, 0.3, 1.0)
LISTING = "Do each of these:\n" + "\n".join(f"{i}. say {i} " + "w " * 60 for i in range(1, 9))
BODY = {"messages": [{"role": "user", "content": LISTING}]}
SETTINGS = Delegation(
    mode="plan", min_input_tokens=20, offload_min_tokens=10, max_cost_ratio=3.0, min_saving=0.0, plan_prompt="plan {preview}"
)
LONG = {"plan": [{"prompt": f"p{i} " + "long " * 60} for i in range(8)]}


def cheapest(text, hint):
    return "small"


def planned(memory, usd, route=cheapest):
    """A plan about to be asked for, with that much to spend."""
    seen = consider(BODY, RUNGS, SETTINGS, memory, cheapest, lambda text: True)
    shared = Shared(BODY, RUNGS, SETTINGS, route, lambda *_: None, memory, Budget(usd, 16))
    return PlanMode(shared, seen, None)


@pytest.mark.parametrize(
    "left, tokens",
    [
        (100 + 4 * 20, 20),  # all that is there, for the shortest plan
        (100 + 4 * 60, 60),
        (100 + 4 * 100, 80),  # twice what plans have had
        (2 * (100 + 4 * 500), 500),  # half of what is left
    ],
)
def test_a_plan_gets_half_of_what_is_left_or_twice_what_plans_have_had(left, tokens):
    memory = Memory()
    memory.means["numbered"] = memory.means["numbered"].__class__(40, 60, 0.05, 0.1, 0.1, 0.5)
    assert planned(memory, float(left)).plan_room(100) == tokens


def weighed(written, more_usd, merge=0.0, route=cheapest, max_usd=None):
    """Whether a plan is begun with `more_usd` above the price of its parts and that share of the final call's; what is kept."""
    flow = planned(Memory(), 1e9, route)
    plan = plans.parse(json.dumps(written))
    jobs = plans.checked_jobs(plan, flow.considered.chat, 8)
    usd = sum(map(flow.expected_usd, jobs)) + merge * flow.merge_usd(len(jobs), 1.0) + more_usd
    flow.shared.budget.limit_usd = usd
    flow.max_usd = usd if max_usd else None
    kept = flow.shared.budget.reserved
    return flow.worth_running(plan, jobs), bool(kept.get(FINAL_CALL))


MERGED = {"plan": [{"prompt": "a"}, {"prompt": "b " * 20}], "merge": True}
SAID = {"plan": [{"prompt": "a"}, {"prompt": "b " * 20}], "answer": "{{t1}}"}


@pytest.mark.parametrize(
    "plan, merge, more_usd, found",
    [
        (MERGED, 1.0, 1e-6, (True, True)),
        (MERGED, 1.0, -0.01, (False, True)),  # not the parts beside the final call
        (MERGED, 0.5, 0.0, (False, False)),  # not even the final call
        (SAID, 0.0, 1e-6, (True, False)),  # makes none
        (SAID, 0.0, -0.01, (False, False)),
    ],
)
def test_a_plan_is_begun_where_its_parts_and_its_final_call_can_be_paid(plan, merge, more_usd, found):
    assert weighed(plan, more_usd, merge) == found


@pytest.mark.parametrize("merge, kept", [(1.0, True), (0.9, False)])
def test_under_a_tight_limit_of_the_client_money_is_kept_for_a_final_call_in_case_a_part_fails(merge, kept):
    assert weighed(SAID, 1e-6, merge, max_usd=1.0) == (True, kept)


def test_a_plan_that_is_dearer_than_the_plain_answer_is_not_begun_however_much_may_be_spent():
    large = lambda text, hint: "large" if text.startswith("x") else "small"  # noqa: E731
    dear = {"plan": [{"prompt": "x " * 200} for _ in range(8)], "answer": "{{t1}}"}
    assert weighed(dear, 1e6, route=large) == (False, False) and weighed(dear, 1e6) == (True, False)
