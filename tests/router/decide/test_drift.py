"""The alarm is calibrated on what it counts: differences. A promise that is kept raises it seldom, a broken one soon."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.drift_alarm import PAIRS, alarms, trials
from router.decide import certificates as ct
from router.decide.drift import FALSE_ALARM, Audited, Drift, alarm_of

PATHS, AUDITS = 2_000, 1_000


def crossing(alarm: Drift, rate: float) -> np.ndarray:
    """(PATHS,) the audit at which each path's alarm goes off, AUDITS where it does not."""
    gain, loss = alarm.counted(1, 1).log_wealth, alarm.counted(1, 0).log_wealth
    wealth = np.cumsum(np.where(np.random.default_rng(5).random((PATHS, AUDITS), np.float32) < rate, gain, loss), axis=1)
    over = wealth >= -np.log(alarm.false_alarm)
    return np.where(over.any(axis=1), over.argmax(axis=1), AUDITS)


@pytest.mark.parametrize("worse, harmless", [(0.05, 0.0), (0.05, 0.15), (0.02, 0.3)])
def test_at_the_promises_edge_it_goes_off_no_more_often_than_it_says(worse, harmless):
    alarm = alarm_of(worse, harmless)
    false = (crossing(alarm, worse + harmless) < AUDITS).mean()
    assert alarm.false_alarm == FALSE_ALARM / 2 and false <= alarm.false_alarm + 2 * (alarm.false_alarm / PATHS) ** 0.5
    assert (crossing(alarm, worse / 2 + harmless) < AUDITS).mean() <= false


@pytest.mark.parametrize("worse, harmless, soon", [(0.05, 0.0, 150), (0.05, 0.10, 400), (0.2, 0.05, 60)])
def test_twice_as_many_worse_answers_are_noticed(worse, harmless, soon):
    assert np.median(crossing(alarm_of(worse, harmless), 2 * worse + harmless)) <= soon


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_honest_pairs_keep_their_certificates_from_calibration_on(pair):
    """With the error of what calibration measured: an honest 9B/27B pair was retired with certainty."""
    made = trials(pair, 300)
    assert len(made) > 100
    false = [np.isfinite(alarms(made, share, AUDITS)).mean() for share in (0.5, 1.0)]
    assert false[0] <= 0.02 and false[1] <= FALSE_ALARM
    assert np.isfinite(alarms(made, 4.0, AUDITS)).mean() >= 0.95


def test_an_honest_pair_was_retired_with_certainty_and_no_longer_is():
    made = trials(PAIRS[0], 30)
    assert np.isfinite(alarms(made, 0.5, AUDITS, measured=False)).mean() > 0.9
    assert np.isfinite(alarms(made, 0.5, AUDITS)).mean() < 0.1


def test_what_certify_measures_of_harmless_differences():
    scores = np.array([0.9] * 400 + [-np.inf] * 100)
    loss, differs = np.zeros(500), np.zeros(500)
    loss[:4], differs[:44] = 1, 1  # four worse, forty that differ without being worse
    differs[300:400] = np.nan  # cannot be compared
    found = ct.certify(scores, loss, 0.05, 0.1, "balanced", differs)
    assert found.comparable == pytest.approx(300 / 500)
    assert 40 / 300 < found.harmless < 0.18 and found.harmless == pytest.approx(float(ct.upper_bound(40, 300, 0.05)))
    alarm = ct.watch(found)
    assert alarm.p0 == pytest.approx(0.05 / 0.6 + found.harmless) and alarm.p1 == pytest.approx(alarm.p0 + 0.05 / 0.6)
    assert ct.from_dict(found.to_dict()) == found


def test_without_comparable_answers_or_in_an_old_certificate_every_difference_counts():
    unknown = ct.certify(np.full(500, 0.9), np.zeros(500), 0.05, 0.1, "balanced", np.full(500, np.nan))
    assert unknown.harmless is None and ct.watch(unknown) == Drift(0.05, 0.10)
    assert ct.watch(replace(unknown, coverage=0.5)) == Drift(0.10, 0.20)


def test_counts_give_the_same_alarm_as_one_audit_after_the_other():
    one = Drift(0.05, 0.10)
    for error in (True, False, False, True):
        one = one.update(error)
    assert one == Drift(0.05, 0.10).counted(4, 2)


def test_a_retired_certificate_counts_no_more():
    made = ct.Certificate(0.9, 0.05, 0.1, 500, 10, 0.6, 0.04)
    found = Audited()
    for _ in range(50):
        found = ct.count(made, found, True)
    assert found.retired and found.audits < 20 and ct.count(made, found, False) is found


def test_a_certificate_is_known_by_its_content_and_a_new_calibration_is_another():
    made = ct.Certificate(0.9, 0.05, 0.1, 500, 10, 0.6, 0.04, "balanced", {"models": {"a": "b"}}, "2026-11-24T10:00:00+00:00")
    assert ct.digest(ct.retire(made, "2026-12-01")) == ct.digest(made) == ct.digest(ct.from_dict(made.to_dict()))
    for other in ({"created": "2026-11-24T10:00:01+00:00"}, {"alpha": 0.04}, {"fingerprints": {}}, {"harmless": 0.1}):
        assert ct.digest(replace(made, **other)) != ct.digest(made)
