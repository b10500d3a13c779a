"""What is promised of a request: the certificate's state, whom it covers, and what an alarm does."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from classifiers import Rule
from router.config import Escalation
from router.decide import certificates
from router.decide.certificates import Certificate, Infeasible
from router.decide.promises import Promises

RULE = Rule("cascade", 0.2)
LADDER = {"models": {"small": "a"}, "templates": {"small": "t"}}


CASCADES = {"balanced": {"value": 0.2}}
HELD = {"mode": "holdback", "holdback_tokens": 16}


def promises(found, ladder=LADDER, streams=None, **settings) -> Promises:
    made = {"balanced": found, "balanced:holdback": streams}
    manifest = {"certificates": {k: v.to_dict() for k, v in made.items() if v}, "cascades": CASCADES}
    artefact = SimpleNamespace(manifest=manifest, cascades={"balanced": RULE})
    return Promises(artefact, Escalation(**settings), ladder)


def certificate(**changes) -> Certificate:
    score = certificates.score_fingerprint({"cascades": CASCADES}, "balanced")
    made = {**LADDER, "sampling": {"temperature": 0.0}, "score": score, **changes}
    return Certificate(0.9, 0.05, 0.1, 500, 10, 0.6, 0.04, "balanced", made)


def of_streams(prefix=16, **changes) -> Certificate:
    score = certificates.score_fingerprint({"cascades": CASCADES}, "balanced", prefix)
    return replace(certificate(score=score, prefix=prefix, **changes), rule="balanced:holdback", threshold=0.7)


@pytest.mark.parametrize(
    "found, ladder, temperature, state, threshold",
    [
        (certificate(), LADDER, 0.0, "valid", 0.9),
        (certificate(), LADDER, 0, "valid", 0.9),
        (certificate(), LADDER, None, "uncovered", None),
        (certificate(), LADDER, 1.0, "uncovered", None),
        (certificate(), {**LADDER, "models": {"small": "b"}}, 0.0, "stale", None),
        (certificate(), {**LADDER, "templates": {"small": "u"}}, 0.0, "stale", None),
        (certificate(score="another"), LADDER, 0.0, "stale", None),
        (Infeasible(0.05, 0.1, 20, "too few"), LADDER, 0.0, "infeasible", certificates.ALWAYS_UP),
        (None, LADDER, 0.0, "none", None),
    ],
)
def test_a_certificate_holds_for_what_it_was_made_for(found, ladder, temperature, state, threshold):
    made = promises(found, ladder)
    assert made.covering("balanced", temperature) == state
    rule = made.rule(RULE, "balanced", state)
    assert rule == RULE if threshold is None else rule.threshold == threshold


@pytest.mark.parametrize(
    "mode, stream, whole, streams, state, threshold",
    [
        ("holdback", True, certificate(), None, "uncovered", None),
        ("holdback", True, certificate(), of_streams(), "valid", 0.7),
        ("holdback", False, certificate(), of_streams(), "valid", 0.9),
        ("holdback", True, certificate(), of_streams(8), "stale", None),  # the score of eight tokens is another
        ("holdback", True, certificate(), certificate(), "stale", None),  # made for whole answers, whatever its name
        ("holdback", True, certificate(score="another"), None, "stale", None),
        ("holdback", True, certificate(score="another"), of_streams(), "valid", 0.7),
        ("holdback", True, None, None, "none", None),
        ("holdback", True, certificate(), Infeasible(0.05, 0.1, 20, "few"), "infeasible", certificates.ALWAYS_UP),
        ("holdback", False, certificate(), Infeasible(0.05, 0.1, 20, "few"), "valid", 0.9),
        ("buffer", True, certificate(), of_streams(), "valid", 0.9),
        ("buffer", True, of_streams(), None, "stale", None),
        ("buffer", True, None, of_streams(), "none", None),
    ],
)
def test_whole_answers_and_first_tokens_are_promised_of_apart(mode, stream, whole, streams, state, threshold):
    made = promises(whole, streams=streams, mode=mode, holdback_tokens=16)
    assert made.covering("balanced", 0.0, stream) == state
    rule = made.rule(RULE, "balanced", state, stream)
    assert rule == RULE if threshold is None else rule.threshold == threshold


@pytest.mark.parametrize(
    "whole, streams, mode, worst",
    [
        (certificate(), None, "buffer", "valid"),
        (certificate(), None, "holdback", "none"),
        (certificate(), of_streams(), "holdback", "valid"),
        (certificate(score="x"), of_streams(), "holdback", "stale"),
        (certificate(), of_streams(8), "holdback", "stale"),
    ],
)
def test_a_target_is_valid_where_all_its_requests_are(whole, streams, mode, worst):
    made = promises(whole, streams=streams, mode=mode, holdback_tokens=16)
    assert made.worst("balanced") == worst
    assert set(made.status()) == {"balanced", "balanced:holdback"} if mode == "holdback" else {"balanced"}


def test_audits_of_streams_retire_the_certificate_of_streams():
    made = promises(certificate(), streams=of_streams(), **HELD)
    for _ in range(40):
        made.audited("balanced", True, stream=True)
    assert (made.state("balanced", stream=True), made.state("balanced")) == ("retired", "valid")
    assert made.covering("balanced", 0.0, True) == "retired" and made.status()["balanced:holdback"]["state"] == "retired"


def test_what_audits_found_outlives_a_reload_and_nothing_else_does():
    before = promises(certificate(), streams=of_streams(), **HELD)
    for _ in range(40):
        before.audited("balanced", True, stream=True)
    before.audited("balanced", False)
    after = promises(certificate(), streams=of_streams(), **HELD)
    after.inherit(before)
    assert after.state("balanced", stream=True) == "retired" and after.status()["balanced"]["audits"] == 1
    buffered = promises(certificate(), streams=of_streams(), mode="buffer")
    buffered.inherit(before)
    assert set(buffered.status()) == {"balanced"} and buffered.state("balanced", stream=True) == "valid"


@pytest.mark.parametrize(
    "request_, state",
    [
        ({"unfamiliar": 0.2, "characters": 60}, "valid"),
        ({"unfamiliar": 0.2001}, "uncovered"),
        ({"characters": 61}, "uncovered"),
        ({"divided": True}, "uncovered"),
    ],
)
def test_what_is_unlike_the_prompts_it_was_made_on_is_not_covered(request_, state):
    known = replace(certificate(), reach={"unfamiliar": 0.2, "characters": 60.0})
    assert promises(known).covering("balanced", 0.0, **request_) == state
    assert promises(certificate()).covering("balanced", 0.0, unfamiliar=1.0, characters=10**6) == "valid"  # does not say


@pytest.mark.parametrize("state", ["uncovered", "stale", "none"])
def test_without_one_everything_goes_up_if_so_configured(state):
    made = promises(certificate(), without_certificate="escalate")
    assert made.rule(RULE, "balanced", state).threshold > 1


def test_audits_that_find_the_promise_broken_retire_it():
    made = promises(certificate())
    for _ in range(3):
        made.audited("balanced", False)
    assert made.state("balanced") == "valid" and made.status()["balanced"]["audits"] == 3
    for _ in range(40):
        made.audited("balanced", True)
    told = made.status()["balanced"]
    assert told["state"] == "retired" and "audited answers differed" in told["retired"]
    before = told["audits"]
    made.audited("balanced", True)
    assert made.status()["balanced"]["audits"] == before  # it is over


def test_without_an_artefact_nothing_is_promised():
    assert Promises(None, Escalation(), {}).state("balanced") == "none"
