"""A race as lists in and lists out, in virtual time: who is asked when, whose answer it is, who pays."""

import json

import pytest
from scripted import Said, drive

from router.cascade.race import Race
from router.config import Escalation, load_config
from router.engine import Router, load_artefact
from router.errors import NoReplica, TierFailed
from router.request.wire import parse
from router.types import Commit, Fail

BODY = {"messages": [{"role": "user", "content": "hello you"}]}
DOWN, WRONG = NoReplica("small", "gone"), TierFailed("small", "temperature is 9", 400)


def race(small, large, body=BODY):
    """After a second the large tier is asked too."""
    said = {"small": small, "large": large}
    return drive(Race(body, ("small", "large"), 1.0).run(), lambda call: said[call.tier])


@pytest.mark.parametrize(
    "small, large, asked, came, took_s",
    [
        (Said(wait_s=0.9), Said(wait_s=0.1), ["small"], "attempt-small", 0.9),
        (Said(wait_s=5.0), Said(wait_s=0.5), ["small", "large"], "final-large", 1.5),
        (Said(wait_s=1.4), Said(wait_s=0.5), ["small", "large"], "attempt-small", 1.4),
        (Said(wait_s=1.5), Said(wait_s=0.5), ["small", "large"], "attempt-small", 1.5),  # both at once: the cheaper
        (Said(wait_s=0.2, error=DOWN), Said(wait_s=0.5), ["small", "large"], "final-large", 0.7),  # no need to wait
        (Said(wait_s=2.0), Said(wait_s=0.1, error=DOWN), ["small", "large"], "attempt-small", 2.0),
        (Said("", 0.2), Said(wait_s=0.5), ["small", "large"], "final-large", 0.7),
        (Said(finish="length", wait_s=0.2), Said("", 0.5), ["small", "large"], "final-large", 0.7),  # neither: the larger one's
    ],
)
def test_the_first_that_can_stand_is_the_answer(small, large, asked, came, took_s):
    run = race(small, large)
    assert isinstance(run.end, Commit) and run.end.call_id == came and run.took_s == pytest.approx(took_s)
    assert [call.tier for call in run.calls] == asked and run.end.report == {"hedged": len(asked) > 1}
    assert run.outcomes[came] == "accepted" and set(run.outcomes) == {call.id for call in run.calls}


def test_who_comes_too_late_is_outrun():
    assert race(Said(wait_s=5.0), Said(wait_s=0.5)).outcomes == {"attempt-small": "outrun", "final-large": "accepted"}
    assert race(Said(wait_s=1.5), Said(wait_s=0.5)).outcomes == {"attempt-small": "accepted", "final-large": "outrun"}


def test_an_answer_of_the_wrong_form_does_not_win():
    body = {**BODY, "response_format": {"type": "json_object"}}
    run = race(Said("prose", 0.3), Said('{"a": 1}', 0.3), body)
    assert (run.end.call_id, run.outcomes["attempt-small"]) == ("final-large", "schema invalid")


def test_a_refusal_is_an_answer():
    assert race(Said("", 0.3, more={"refusal": "I will not"}), Said()).end.call_id == "attempt-small"


@pytest.mark.parametrize(
    "small, large, error, outcomes",
    [
        (Said(error=DOWN), Said(error=DOWN), DOWN, {"attempt-small": "backend failed", "final-large": "backend failed"}),
        (Said(error=WRONG), Said(), WRONG, {"attempt-small": "backend failed"}),
        (Said(error=WRONG, wait_s=1.1), Said(wait_s=3.0), WRONG, {"attempt-small": "backend failed", "final-large": "outrun"}),
    ],
)
def test_no_answer_is_told_as_what_it_is(small, large, error, outcomes):
    run = race(small, large)
    assert isinstance(run.end, Fail) and run.end.error is error and run.outcomes == outcomes


def test_the_first_token_of_a_stream_is_enough():
    run = race(Said("a", 5.0), Said("b", 0.1, more={"partial": True, "finish_reason": ""}))
    assert [call.hold for call in run.calls] == [1, 1] and run.end.call_id == "final-large"


@pytest.mark.parametrize(
    "model, mode, tiers",
    [
        ("auto:0.5", "hedge", "the one decided on and the next"),
        ("auto:0.5", "pre", None),
        ("large", "hedge", None),
        ("small", "hedge", None),  # asked for by name
    ],
)
def test_it_is_a_mode_of_escalation(model, mode, tiers):
    config = load_config("pocket")
    config = config.model_copy(update={"escalation": Escalation(mode=mode, larger_after_s=0.5)})
    made = Router(config, load_artefact(config), dict.fromkeys(config.names, len))
    asked = parse("chat/completions", json.dumps({**BODY, "model": model}).encode())
    decided = made.decide(asked)
    chosen = made.flow(asked, decided)
    assert chosen.kind == ("race" if tiers else "direct") and decided.certificate == ""
    flow = chosen.steps
    assert (flow is None) == (tiers is None)
    if flow:
        step = next(flow)
        assert ([call.tier for call in step.start], step.until_s) == ([decided.tier], 0.5)
        assert [call.tier for call in flow.send([]).start] == [made.names[made.names.index(decided.tier) + 1]]
