from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from kept_rows import PRINTS, config_of, kept_rows

from classifiers import load
from router.flywheel.candidate import make_candidate
from router.flywheel.gates import Draws, Way, offline_gates, payback_gate, quality_gate, saving_gate
from router.flywheel.rows.dataset import build

pytestmark = pytest.mark.slow
TWO = ("small", "large")
CONFIG = config_of(names=TWO)
EVERY = ("certificate", "quality", "saving", "calibration", "payback")


@pytest.fixture(scope="module")
def dataset():
    return build(kept_rows(700, names=TWO), TWO, 1e9, 0)


@pytest.fixture(scope="module")
def good(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("good") / "router"
    make_candidate(dataset, CONFIG, PRINTS, folder, 0)
    return load(folder)


def corrupted(rows):
    """The same rows with the grades of the smaller tiers turned round."""
    turned = []
    for row in rows:
        grades = {tier: replace(row.grades[tier], score=1 - row.grades[tier].score) for tier in TWO[:-1]}
        turned.append(replace(row, grades={**row.grades, **grades}))
    return tuple(turned)


def passed(gates):
    return {gate.name: gate.passed for gate in gates}


def test_a_good_router_passes_every_gate_against_the_top_tier(dataset, good):
    found = offline_gates(dataset, good, None, CONFIG)
    assert passed(found) == dict.fromkeys(EVERY, True)
    assert all(gate.why for gate in found)


def test_a_router_trained_on_corrupted_grades_fails(dataset, tmp_path):
    bad = replace(dataset, train=corrupted(dataset.train))
    make_candidate(bad, CONFIG, PRINTS, tmp_path / "router", 0)
    found = passed(offline_gates(dataset, load(tmp_path / "router"), None, CONFIG))
    assert not found["certificate"] or not found["quality"] or not found["saving"]
    assert not found["calibration"]


def test_a_router_whose_certificate_was_made_of_corrupted_grades_fails_on_the_test(dataset, tmp_path):
    bad = replace(dataset, train=corrupted(dataset.train), certify=corrupted(dataset.certify))
    make_candidate(bad, CONFIG, PRINTS, tmp_path / "router", 0)
    found = passed(offline_gates(dataset, load(tmp_path / "router"), None, CONFIG))
    assert not all(found.values()) and not found["calibration"]


def test_the_same_router_again_saves_nothing(dataset, good):
    found = passed(offline_gates(dataset, good, good, CONFIG))
    assert found["quality"] and found["calibration"] and not found["saving"]


def test_what_was_paid_must_come_back_in_thirty_days(dataset, good):
    gates = offline_gates(dataset, good, None, CONFIG, paid_usd=1.0, requests_a_day=0.01)
    assert not passed(gates)["payback"]
    assert payback_gate(0.1, 10, 30).passed and not payback_gate(0.1, 10, 31).passed
    assert payback_gate(0.0, 10, 0).passed and not payback_gate(-1.0, 10, 1).passed


def test_a_handful_of_test_rows_decides_nothing(dataset, good):
    found = passed(offline_gates(replace(dataset, test=dataset.test[:5]), good, None, CONFIG))
    assert found == {**dict.fromkeys(EVERY, False), "certificate": True}


def way_of(cost, score, instead=()):
    n = 60
    points = tuple((np.full(n, c), np.full(n, s)) for c, s in instead)
    return Way(np.full(n, float(cost)), np.full(n, float(score)), np.full((n, 2), 0.5), points)


class EveryRowOnce:
    """Draws without chance, for figures that need none."""

    n = 60.0

    def mean(self, values):
        return np.full(3, values.mean())

    def low(self, values):
        return float(values.mean()), float(values.mean())


def test_a_dearer_but_better_router_saves_if_it_is_cheaper_at_the_incumbents_quality():
    incumbent = way_of(0.5, 0.90)
    better = way_of(0.6, 0.99, instead=[(0.3, 0.90)])
    assert saving_gate(better, incumbent, EveryRowOnce()).numbers["usd_a_request"] == pytest.approx(0.2)
    assert not saving_gate(way_of(0.6, 0.99, instead=[(0.55, 0.90)]), incumbent, EveryRowOnce()).passed
    assert not saving_gate(way_of(0.6, 0.90, instead=[(0.3, 0.80)]), incumbent, EveryRowOnce()).passed


@pytest.mark.parametrize(("worse", "passes"), [(0, True), (2, True), (3, True), (8, False), (20, False)])
def test_sixty_rows_refuse_what_they_speak_against_and_nothing_else(worse, passes):
    table = SimpleNamespace(groups=np.arange(60).astype(str), shares=np.ones(60))
    ours, top = way_of(1, 1), way_of(1, 1)
    ours.score[:worse] = 0
    assert quality_gate(ours, top, Draws(table), 0.02).passed is passes
