"""`x-stepdown-delegation`: every value it may have, how it comes about, and that body and header say the same."""

from typing import get_args

import openai
import pytest
from delegation import DIRECT, TEXT, client, did, is_plan, served, tiers
from scripted_tier import Said, asked

from router.delegate.gates import DelegationState
from router.errors import TierFailed

BAD = '{"plan": [{"each": "c9"}]}'


def fails_at_three(body):
    return Said(error=TierFailed("x", "broke")) if "number 3" in asked(body) else did(body)


def another_bad_one():
    """Plans that are bad in different ways, then the plain answer."""
    made = tiers()
    bad = iter([BAD, '{"plan": [{"each": "c8"}]}'])
    made["large"].script = lambda body: Said(next(bad)) if is_plan(body) else Said("plain answer")
    return made


def broken():
    """Part 3 fails in every tier; the large one merges what there is."""
    made = tiers(worker=fails_at_three)
    plain = made["large"].script
    made["large"].script = lambda body: (fails_at_three if asked(body).startswith("Summarise report") else plain)(body)
    return made


CASES = {
    "ineligible": (tiers, {}, {"logprobs": True}),
    "not_worth_it": (tiers, {"min_saving": 0.99}, {}),
    "direct": (lambda: tiers(plan=DIRECT), {}, {}),
    "plan_invalid": (another_bad_one, {}, {}),
    "loop_detected": (lambda: tiers(plan=BAD), {}, {}),
    "done": (tiers, {}, {}),
    "partial": (broken, {}, {}),
}


def test_there_is_a_case_for_every_value():
    assert set(CASES) | {"off"} == set(get_args(DelegationState))


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("state", CASES)
def test_the_header_says_what_became_of_it(state, stream):
    make, settings, more = CASES[state]
    made = make()
    body = {"model": "auto", "messages": [{"role": "user", "content": TEXT}], **more}
    with served(made, **settings) as url:
        raw = client(url).chat.completions.with_raw_response.create(
            **body, stream=stream, stream_options={"include_usage": True} if stream else openai.NOT_GIVEN
        )
        chunks = list(raw.parse()) if stream else [raw.parse()]
    assert raw.headers["x-stepdown-delegation"] == state
    told = (chunks[-1].usage.model_extra or {}).get("stepdown")
    if state in ("ineligible", "not_worth_it"):  # the tier's own answer, passed on as it is
        assert told is None and len(made["large"].bodies) == 1
    else:
        assert told["delegation"] == state


def test_where_nothing_is_ever_planned_there_is_no_header():
    with served(tiers(), mode="off") as url:
        raw = client(url).chat.completions.with_raw_response.create(model="auto", messages=[{"role": "user", "content": TEXT}])
    assert "x-stepdown-delegation" not in raw.headers


def test_a_tier_that_is_named_plans_nothing_and_says_nothing():
    with served(tiers()) as url:
        raw = client(url).chat.completions.with_raw_response.create(model="large", messages=[{"role": "user", "content": TEXT}])
    assert "x-stepdown-delegation" not in raw.headers
