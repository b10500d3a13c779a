"""What is promised of a request: the certificate's state, whom it covers, and what an alarm does."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from classifiers import Rule
from router import certificates
from router.certificates import Certificate, Infeasible
from router.config import Escalation
from router.promises import Promises

RULE = Rule("cascade", 0.2)
LADDER = {"models": {"small": "a"}, "templates": {"small": "t"}}


def promises(found, ladder=LADDER, **settings) -> Promises:
    manifest = {"certificates": {"balanced": found.to_dict()} if found else {}, "cascades": {"balanced": {"value": 0.2}}}
    artefact = SimpleNamespace(manifest=manifest, cascades={"balanced": RULE})
    return Promises(artefact, Escalation(**settings), ladder)


def certificate(**changes) -> Certificate:
    score = certificates.score_fingerprint({"cascades": {"balanced": {"value": 0.2}}}, "balanced")
    made = {**LADDER, "sampling": {"temperature": 0.0}, "score": score, **changes}
    return Certificate(0.9, 0.05, 0.1, 500, 10, 0.6, 0.04, "balanced", made)


@pytest.mark.parametrize("found, ladder, temperature, state, threshold", [
    (certificate(), LADDER, 0.0, "valid", 0.9),
    (certificate(), LADDER, 0, "valid", 0.9),
    (certificate(), LADDER, None, "uncovered", None),
    (certificate(), LADDER, 1.0, "uncovered", None),
    (certificate(), {**LADDER, "models": {"small": "b"}}, 0.0, "stale", None),
    (certificate(), {**LADDER, "templates": {"small": "u"}}, 0.0, "stale", None),
    (certificate(score="another"), LADDER, 0.0, "stale", None),
    (Infeasible(0.05, 0.1, 20, "too few"), LADDER, 0.0, "infeasible", certificates.ALWAYS_UP),
    (None, LADDER, 0.0, "none", None),
])  # fmt: skip
def test_a_certificate_holds_for_what_it_was_made_for(found, ladder, temperature, state, threshold):
    made = promises(found, ladder)
    assert made.covering("balanced", temperature) == state
    rule = made.rule(RULE, "balanced", state)
    assert rule == RULE if threshold is None else rule.threshold == threshold


@pytest.mark.parametrize("mode, stream, made_with, state", [
    ("holdback", True, {}, "uncovered"),
    ("holdback", True, {"prefix": 16}, "valid"),
    ("holdback", True, {"prefix": 8}, "uncovered"),
    ("holdback", False, {}, "valid"),
    ("holdback", False, {"prefix": 16}, "uncovered"),
    ("buffer", True, {}, "valid"),
    ("buffer", True, {"prefix": 16}, "uncovered"),
    ("holdback", True, {"score": "another"}, "stale"),
])  # fmt: skip
def test_a_certificate_of_whole_answers_says_nothing_of_their_first_tokens(mode, stream, made_with, state):
    made = promises(certificate(**made_with), mode=mode, holdback_tokens=16)
    assert made.covering("balanced", 0.0, stream) == state


@pytest.mark.parametrize("request_, state", [
    ({"unfamiliar": 0.2, "characters": 60}, "valid"),
    ({"unfamiliar": 0.2001}, "uncovered"),
    ({"characters": 61}, "uncovered"),
    ({"divided": True}, "uncovered"),
])  # fmt: skip
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
    assert made.state("balanced") == "valid" and made.told()["balanced"]["audits"] == 3
    for _ in range(40):
        made.audited("balanced", True)
    told = made.told()["balanced"]
    assert told["state"] == "retired" and "audited answers differed" in told["retired"]
    before = told["audits"]
    made.audited("balanced", True)
    assert made.told()["balanced"]["audits"] == before  # it is over


def test_without_an_artefact_nothing_is_promised():
    assert Promises(None, Escalation(), {}).state("balanced") == "none"
