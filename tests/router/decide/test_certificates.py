"""The promise and its alarm: acceptance check 9 of the design, by seeds, and the life of a certificate."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from classifiers import Rule
from router.decide import certificates as ct

SEEDS, N, ALPHA, DELTA = 500, 200, 0.05, 0.10
FINGERPRINTS = {"models": {"s": "a1", "l": "b2"}, "templates": {"s": "t"}, "sampling": {"temperature": 0}, "score": "s9"}


def draw(random, n, sharp=1.0):
    """Chances of a small model that is right in 74 %, and whether its answer is worse; the chances are calibrated."""
    scores = random.beta(1.9 * sharp, 0.67 * sharp, n)
    return scores, (random.random(n) > scores).astype(float)


def true_risk(threshold, scores, loss):
    return (loss * (scores >= threshold)).mean()


@pytest.mark.slow
def test_the_promise_is_kept_and_worth_something():
    population = draw(np.random.default_rng(10_000), 200_000)
    assert 0.72 < 1 - population[1].mean() < 0.76
    found = [ct.certify(*draw(np.random.default_rng(seed), N), ALPHA, DELTA) for seed in range(SEEDS)]
    kept = [f for f in found if isinstance(f, ct.Certificate)]
    broken = sum(true_risk(f.threshold, *population) > ALPHA for f in kept)
    coverage = np.mean([(population[0] >= f.threshold).mean() if isinstance(f, ct.Certificate) else 0.0 for f in found])
    assert broken / SEEDS <= 0.13  # delta and two standard errors
    assert coverage >= 0.40


@pytest.mark.slow
def test_miscalibrated_chances_do_not_break_it():
    """Nothing is assumed of the scores: here they are far too sure."""
    broken = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        scores, loss = draw(random, N)
        found = ct.certify(scores**0.2, loss, ALPHA, DELTA)
        many, lost = draw(random, 20_000)
        broken += isinstance(found, ct.Certificate) and true_risk(found.threshold, many**0.2, lost) > ALPHA
    assert broken / 200 <= 0.10 + 2 * 0.022


def test_what_cannot_be_promised_is_said():
    hopeless = ct.certify(np.full(400, 0.9), np.ones(400), ALPHA, DELTA, "balanced")
    assert isinstance(hopeless, ct.Infeasible) and hopeless.base_risk == 1.0
    assert ct.binding(Rule("cascade", 0.2), hopeless).threshold > 1  # always up
    few = ct.certify(np.ones(44), np.zeros(44), ALPHA, DELTA)
    assert isinstance(few, ct.Infeasible) and "45 are needed" in few.reason
    assert isinstance(ct.certify(np.ones(45), np.zeros(45), ALPHA, DELTA), ct.Certificate)
    never = ct.certify(np.full(300, -np.inf), np.zeros(300), ALPHA, DELTA)
    assert isinstance(never, ct.Infeasible)
    assert ct.deferral(0.24, 0.05) == pytest.approx(0.2) and ct.deferral(0.01, 0.05) == 0


@pytest.mark.parametrize("k, n", [(0, 45), (3, 200), (10, 200), (199, 200)])
def test_the_bound_is_exact(k, n):
    assert binom.cdf(k, n, float(ct.upper_bound(k, n, DELTA))) == pytest.approx(DELTA)


def test_the_bound_of_all_losses_is_one():
    assert float(ct.upper_bound(7, 7, DELTA)) == 1.0


def test_the_region_counts_answers_at_or_above_the_threshold():
    scores, loss = np.array([0.9, 0.5, 0.5, -np.inf]), np.array([0.0, 1.0, 0.0, 1.0])
    strict, equal, lax = ct.region(scores, loss * np.isfinite(scores), DELTA, np.array([0.95, 0.5, 0.1]))
    assert (strict.coverage, strict.k) == (0, 0) and (equal.coverage, equal.k) == (0.75, 1) and lax.k == 1
    assert "fails" in ct.region_text([strict, equal, lax], 0.05)
    assert [p.threshold for p in ct.region(scores, loss, DELTA)] == sorted((float(t) for t in ct.THRESHOLDS), reverse=True)


@pytest.fixture
def certificate():
    found = ct.certify(*draw(np.random.default_rng(1), 400), ALPHA, DELTA, "balanced")
    assert isinstance(found, ct.Certificate)
    return replace(found, fingerprints=FINGERPRINTS, created="2026-11-24")


@pytest.mark.parametrize("changed", FINGERPRINTS)
def test_a_changed_fingerprint_makes_it_stale(certificate, changed):
    assert ct.state_of(certificate, FINGERPRINTS) == "valid"
    assert ct.state_of(certificate, {**FINGERPRINTS, changed: "another"}) == "stale"
    rest = {key: value for key, value in FINGERPRINTS.items() if key != changed}
    assert ct.state_of(certificate, rest) == "valid"  # what is not known is not compared


def test_the_other_states(certificate):
    assert ct.state_of(None, FINGERPRINTS) == "none"
    assert ct.state_of(ct.Infeasible(0.05, 0.1, 10, "few"), FINGERPRINTS) == "infeasible"
    assert ct.state_of(ct.retire(certificate, "2026-12-01: 40 of 200 audits failed"), FINGERPRINTS) == "retired"


def test_certificates_are_plain_json_and_come_back(certificate):
    for found in (certificate, ct.Infeasible(0.05, 0.1, 10, "few"), ct.retire(certificate, "why")):
        again = ct.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
        assert again.to_dict() == found.to_dict()
    manifest = {"certificates": {"balanced": certificate.to_dict()}}
    assert (
        ct.find_certificate(manifest, "balanced") == certificate
        and ct.find_certificate(manifest, "cheap") is None
        and ct.find_certificate({}, "x") is None
    )


def test_the_score_has_a_fingerprint_of_its_own():
    made = {"model_sha256": "a", "answers_sha256": "b", "cascades": {"balanced": {"value": 0.2}}}
    assert ct.score_fingerprint(made, "balanced") == ct.score_fingerprint(dict(made), "balanced")
    for other in ({**made, "answers_sha256": "c"}, {**made, "cascades": {"balanced": {"value": 0.3}}}):
        assert ct.score_fingerprint(other, "balanced") != ct.score_fingerprint(made, "balanced")


def alarms(rate, audits=300):
    """How many of 500 streams of audits raise the alarm, errors at that rate."""
    drift = ct.watch(ct.Certificate(0.9, alpha=0.025, delta=0.1, n=400, k=5, coverage=0.5, bound=0.02))
    assert (drift.p0, drift.p1) == (0.05, 0.10)
    up, down = drift.update(True).log_wealth, drift.update(False).log_wealth
    errors = np.random.default_rng(3).random((SEEDS, audits)) < rate
    return (np.cumsum(np.where(errors, up, down), axis=1).max(axis=1) >= np.log(10)).mean()


def test_doubled_errors_raise_the_alarm_and_promised_ones_do_not():
    assert alarms(0.10) >= 0.88
    assert alarms(0.05) <= 0.13


def test_an_alarm_stays_and_counts():
    drift = ct.Drift(0.05, 0.10)
    for _ in range(4):
        drift = drift.update(True)
    assert drift.alarmed
    for _ in range(500):
        drift = drift.update(False)
    assert drift.alarmed and (drift.audits, drift.errors) == (504, 4) and drift.log_wealth < 0


def test_a_lax_promise_still_has_a_rate_to_notice():
    drift = ct.watch(ct.Certificate(0.0, alpha=0.4, delta=0.1, n=400, k=5, coverage=0.5, bound=0.02))
    assert 0 < drift.p0 < drift.p1 < 1


def test_a_certificate_reaches_as_far_as_ninety_nine_of_a_hundred_of_its_prompts():
    texts, unfamiliar = ["x" * n for n in range(101)], np.linspace(0, 1, 101)
    found = ct.reach_of(unfamiliar, texts)
    assert found == pytest.approx({"unfamiliar": 0.99, "characters": 99.0})
    made = ct.Certificate(0.9, 0.05, 0.1, 500, 10, 0.6, 0.04, reach=found)
    assert ct.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert ct.reaches(made, unfamiliar=0.99, characters=99)
    assert not ct.reaches(made, unfamiliar=0.5, characters=100)
    assert not ct.reaches(made, unfamiliar=0.995, characters=3)
