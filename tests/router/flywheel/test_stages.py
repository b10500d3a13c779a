"""From shadow to promotion and back: what each stage waits for, and that nothing gets past its evidence."""

import json
import re
from dataclasses import dataclass, field, replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.config import Flywheel
from router.flywheel.pairs import Pair, Tally
from router.flywheel.played import Played
from router.flywheel.safeguards import Arm, Counts, by_chance
from router.flywheel.stages import ENDS, STAGES, RunState, may_follow, next_step, state_of

SETTINGS = Flywheel(margin=0.02, shadow_pairs=300, shadow_most_pairs=1_000, canary_s=3_600, canary_requests=100, keep_old_s=7_200)
USUAL = Counts(Arm(1_000, 2, 0.5, 100, 1.0), Arm(20_000, 40, 0.4, 2_500, 50.0))


def played(score, usd=0.01):
    return Played("large", (("large", usd),), usd, score, "valid", "quality")


@cache
def tally(equal=0, lost=0, won=0, undecided=0, mine=0.01, other=0.02, top=0.02):
    made = Tally.begin(SETTINGS.margin)
    scores = [(1.0, 1.0)] * equal + [(0.0, 1.0)] * lost + [(1.0, 0.0)] * won + [(None, None)] * undecided
    for score, usual in scores:
        made = made.add(Pair(played(score, mine), played(usual, other), top, True))
    return made


def step(stage, shown=None, counts=USUAL, seconds=10.0, auto=False, **settings):
    state = RunState(stage, 1_000.0, shown or tally())
    return next_step(state, counts, SETTINGS.model_copy(update=settings), 1_000.0 + seconds, auto)


GOOD = tally(equal=400)
WORSE = tally(equal=60, lost=40)


@pytest.mark.parametrize(
    "stage, shown, seconds, auto, to, why",
    [
        ("collecting", None, 10, True, "collecting", "in stage collecting"),
        ("training", None, 10, True, "training", "in stage training"),
        ("shadow", tally(equal=250), 10, True, "shadow", "wealth .* of 20 after 250 graded pairs; at least 300"),
        ("shadow", GOOD, 10, True, "canary", "not worse by 0.02: wealth .* after 400 graded pairs, 0 lost and 0 won"),
        ("shadow", GOOD, 10, False, "waiting", "`stepdown flywheel promote`"),
        ("shadow", WORSE, 10, True, "refused", "worse by more than 0.02: wealth .* of 100 .*40 lost and 0 won.*-0.400"),
        ("shadow", tally(equal=970, lost=30), 10, True, "undecided", "1000 pairs without a result"),
        ("shadow", tally(undecided=1_000), 10, True, "undecided", "after 0 graded pairs"),
        ("shadow", tally(equal=400, mine=0.03), 10, True, "refused", "spends more: 12 USD on 400 requests, the incumbent 8"),
        ("waiting", tally(), 10**6, False, "waiting", "waits for"),
        ("waiting", tally(), 10, True, "canary", "approved by the settings"),
        ("waiting", WORSE, 10, False, "refused", "worse by more"),
        ("canary", tally(), 3_599, True, "canary", "1000 requests of 100 in 3599 s of 3600 s"),
        ("canary", tally(), 3_600, False, "promoted", "nothing against it"),
        ("canary", WORSE, 3_600, True, "rolled back", "worse by more"),
        ("promoted", tally(), 7_199, True, "promoted", "watched for 7199 s of 7200 s"),
        ("promoted", tally(), 7_200, True, "done", "watched for 7200 s"),
        ("promoted", WORSE, 7_200, True, "rolled back", "worse by more"),
    ],
)
def test_each_stage_goes_on_by_its_evidence_and_says_why(stage, shown, seconds, auto, to, why):
    made = step(stage, shown, seconds=seconds, auto=auto)
    assert made.to == to and re.search(why, made.why), made.why
    assert may_follow(stage, to)


ARM = Arm(1_000, 2, 0.5, 100, 1.0)


@pytest.mark.parametrize(
    "counts, why",
    [
        (replace(USUAL, candidate=replace(ARM, errors=30)), "more errors: 30 of 1000 requests, the incumbent 40 of 20000"),
        (replace(USUAL, candidate=replace(ARM, p95_s=0.61)), "slower: 95 % within 0.61 s, the incumbent within 0.40 s, .* 1.5"),
        (replace(USUAL, candidate=replace(ARM, escalations=250, usd=2.5)), "more escalations: 250 of 1000"),
        (replace(USUAL, retired="7 of 20 audits differed"), "its certificate was retired: 7 of 20"),
        (replace(USUAL, asked="rollback", by="ann"), "taken back by ann"),
    ],
)
@pytest.mark.parametrize("stage", ["canary", "promoted"])
def test_harm_takes_it_back(stage, counts, why):
    made = step(stage, counts=counts, seconds=10**6)
    assert made.to == "rolled back" and re.search(why, made.why), made.why


@pytest.mark.parametrize(
    "counts",
    [
        replace(USUAL, candidate=replace(ARM, errors=5)),  # 0.5 % and 0.2 %: it may be chance
        replace(USUAL, candidate=replace(ARM, p95_s=0.6)),
        replace(USUAL, candidate=replace(ARM, requests=150, escalations=15, p95_s=9.0)),  # too few
        replace(USUAL, candidate=replace(ARM, escalations=140, usd=2.5)),
        replace(USUAL, candidate=replace(ARM, escalations=250, usd=2.4)),  # it tries a better tier first, and costs less
        replace(USUAL, candidate=ARM, incumbent=Arm(20_000, 40, 0.2, 0, 50.0)),  # always the top tier: it never waits for two
        replace(USUAL, incumbent=Arm()),
    ],
)
def test_differences_that_may_be_chance_do_not(counts):
    assert step("canary", counts=counts, seconds=10**6).to == "promoted"


def test_an_incumbent_whose_promise_is_broken_is_no_measure_of_cost():
    dear = tally(equal=400, mine=0.015, other=0.01, top=0.02)
    assert step("shadow", dear, auto=True).to == "refused"
    assert step("shadow", dear, replace(USUAL, incumbent_retired=True), auto=True).to == "canary"


def test_a_person_lets_it_go_on_but_not_past_the_evidence():
    asked = replace(USUAL, asked="promote", by="ann")
    assert step("waiting", counts=asked).why == "approved by ann"
    assert step("shadow", GOOD, asked).to == "canary"
    assert step("shadow", tally(equal=100), asked).to == "shadow"
    assert step("canary", counts=asked, seconds=10).to == "canary"
    assert step("shadow", GOOD, promote="auto").to == "canary"


def test_a_candidate_that_fails_is_refused():
    two = tally(equal=50).skip().skip(fault=True).skip(fault=True)
    assert step("shadow", two).to == "shadow"
    assert "failed on 3 of 53 requests" in step("shadow", two.skip(fault=True)).why
    assert "failed on 3 of 53 requests" in step("shadow", two, replace(USUAL, faults=1)).why


def test_fishers_test_is_one_sided():
    assert by_chance(0, 10, 5, 10) == by_chance(3, 10, 0, 0) == 1.0
    assert by_chance(5, 5, 0, 5) == pytest.approx(1 / 252)
    assert by_chance(1, 10, 9, 10) > 0.99


# -- as events -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    stage: str
    at_s: float
    numbers: dict = field(default_factory=dict)
    what: str = "looked"


def test_a_run_goes_on_from_its_events():
    looked = step("shadow", GOOD)
    events = [
        Event("collecting", 1.0),
        Event("training", 2.0),
        Event("shadow", 5.0, {"read": "t1"}),
        Event("shadow", 6.0, json.loads(json.dumps({**looked.event, "read": "t9"}))),
        Event("shadow", 7.0, {"note": 1}),
    ]
    state = state_of(events, SETTINGS.margin)
    assert (state.stage, state.since_s, state.latest["read"], state.latest["note"]) == ("shadow", 5.0, "t9", 1)
    assert state.tally.as_json() == GOOD.as_json()
    assert state_of([], 0.02) == RunState("collecting", 0.0, Tally.begin(0.02))


def test_each_stage_begins_with_no_evidence():
    leaving = step("shadow", GOOD, auto=True)
    state = state_of([Event("shadow", 5.0), Event("canary", 9.0, leaving.event)], SETTINGS.margin)
    assert (state.stage, state.since_s, state.tally.pairs) == ("canary", 9.0, 0)
    assert state.latest["tally"] == GOOD.as_json()


def test_what_may_not_follow_is_ignored():
    events = [Event("shadow", 1.0), Event("promoted", 2.0), Event("nonsense", 3.0), Event("refused", 4.0), Event("shadow", 5.0)]
    assert (state := state_of(events, 0.02)).stage == "refused" and state.since_s == 4.0 and state.over


LOOKS = st.lists(
    st.tuples(
        st.sampled_from([0, 250, 299, 300, 400]),
        st.sampled_from([0, 1, 5, 40]),
        st.booleans(),
        st.floats(0, 10_000),
        st.sampled_from(["", "", "promote", "rollback"]),
        st.integers(0, 2_000),
    ),
    max_size=12,
)


@pytest.mark.slow
@given(st.sampled_from(STAGES), LOOKS)
def test_nothing_is_promoted_without_the_shadows_evidence_and_ends_stay(begun, looks):
    events, now, passed = [Event(begun, 0.0)], 0.0, False
    for equal, lost, auto, seconds, asked, requests in looks:
        now += seconds
        state = state_of(events, SETTINGS.margin)
        shown = replace(state, tally=tally(equal, lost))
        counts = Counts(Arm(requests), asked=asked)
        made = next_step(shown, counts, SETTINGS, now, auto)
        assert may_follow(state.stage, made.to) and made.why
        assert state.stage not in ENDS or made.to == state.stage
        if state.stage == "shadow" and made.to in ("canary", "waiting"):
            passed = shown.tally.not_worse.wealth >= SETTINGS.shadow_wealth and shown.tally.decided >= SETTINGS.shadow_pairs
            assert passed
        if made.to in ("canary", "promoted", "done") and begun in ("collecting", "training", "shadow"):
            assert passed
        events.append(Event(made.to, now, made.event))
