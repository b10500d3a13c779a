"""The gates of a bundle on new weights, with routers that are really trained: better, equal and worse models, and old routers."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from kept_rows import PRINTS, config_of, kept_rows

from classifiers import load
from router.flywheel.candidate import make_candidate
from router.flywheel.ladder_gate import Bundle, Paid, ladder_gates
from router.flywheel.rows import dataset
from router.flywheel.served import Grade

pytestmark = pytest.mark.slow
TWO = ("small", "large")
SETTINGS = {"alpha": 0.1, "margin": 0.05}
CONFIG = config_of(names=TWO, **SETTINGS)


def changed(rows, share, right, seed=3):
    """The rows with another model behind small: a share of its answers becomes right, or wrong, and it is as sure as it was of
    such answers.
    """
    random = np.random.default_rng(seed)
    good = [row.answers["small"].signals for row in rows if row.grades["small"].score == 1.0]
    bad = [row.answers["small"].signals for row in rows if row.grades["small"].score == 0.0]
    found = []
    for row in rows:
        score = row.grades["small"].score
        if score != right and random.random() < share:
            score, pool = right, good if right else bad
            signals = pool[int(random.integers(len(pool)))]
            answer = replace(row.answers["small"], signals=signals)
            row = replace(
                row, answers={**row.answers, "small": answer}, grades={**row.grades, "small": Grade(score, "agreement")}
            )
        found.append(row)
    return found


def router(rows, folder, weights=None):
    data = dataset.build(rows, TWO, 1e12, 0)
    made = make_candidate(data, CONFIG, PRINTS, folder, 0, weights)
    assert not made.why, made.why
    return data, load(folder, TWO)


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    rows = kept_rows(1_600, names=TWO)
    return rows, router(rows, tmp_path_factory.mktemp("old") / "artefact")[1]


def gates(new, artefact, data, before, paid=None):
    rows, old = before
    known = Bundle(old, {row.trace_id: row for row in rows})
    return {gate.name: gate for gate in ladder_gates(data, artefact, known, CONFIG, paid or Paid(0.01, 0.001))}


def test_a_better_model_with_its_router_costs_less_at_the_incumbents_quality(before, tmp_path):
    new = changed(before[0], 0.6, 1.0)
    data, artefact = router(new, tmp_path / "new", {"small": "a" * 64})
    found = gates(new, artefact, data, before)
    assert found["ladder"].passed and found["ladder"].numbers["low"] > 0, found["ladder"]
    at = found["ladder"].numbers["at"]
    assert (
        at["new"]["0.98"][0] < at["old"]["0.98"][0] <= 1 and at["new"]["0.99"][1] <= at["new"]["0.99"][0] <= at["new"]["0.99"][2]
    )
    assert found["certificate"].passed and found["quality"].passed and found["payback"].passed
    assert artefact.manifest["weights"] == {"small": "a" * 64}


def test_a_worse_model_is_stopped_by_the_ladder(before, tmp_path):
    new = changed(before[0], 0.3, 0.0)
    data, artefact = router(new, tmp_path / "new")
    assert not gates(new, artefact, data, before)["ladder"].passed


def test_an_equal_model_saves_nothing_for_sure(before, tmp_path):
    data, artefact = router(before[0], tmp_path / "new")
    assert not gates(before[0], artefact, data, before)["ladder"].passed


def test_a_router_for_other_weights_is_off_in_its_chances(before, tmp_path):
    """A model without its router: the old router judges the new answers."""
    new = changed(before[0], 0.6, 1.0)
    data, mine = router(new, tmp_path / "new")
    old = gates(new, before[1], data, before)
    own = gates(new, mine, data, before)
    assert own["calibration"].passed and not old["calibration"].passed, (own["calibration"], old["calibration"])
    assert old["ladder"].numbers["usd_a_request"] < own["ladder"].numbers["usd_a_request"]


def test_what_costs_more_than_a_month_saves_is_refused(before, tmp_path):
    new = changed(before[0], 0.6, 1.0)
    data, artefact = router(new, tmp_path / "new")
    found = gates(new, artefact, data, before, Paid(1e9, 2.0, 3.0))["payback"]
    assert not found.passed and (found.numbers["training_usd"], found.numbers["shadow_usd"]) == (1e9, 3.0)


def test_too_few_test_rows_prove_nothing(before, tmp_path):
    new = changed(before[0], 0.6, 1.0)
    data, artefact = router(new, tmp_path / "new")
    found = gates(new, artefact, replace(data, test=data.test[:19]), before)
    assert [name for name, gate in found.items() if not gate.passed] == ["quality", "ladder", "calibration", "payback"]
