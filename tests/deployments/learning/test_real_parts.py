"""A run with the real classifiers and the real router: from kept requests in the database to a candidate that waits."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))

from kept_rows import PRINTS, config_of, kept_rows
from life import NOW, Clock, store

from deployments.learning import runs
from deployments.learning.flywheel import Flywheel

pytestmark = pytest.mark.slow
TWO = ("small", "large")


def test_from_kept_requests_to_a_candidate_that_waits(engine, tmp_path):
    rows, clock = kept_rows(1_000, names=TWO), Clock()
    settings = {"alpha": 0.1, "least_pairs": 100, "margin": 0.2, "shadow_pairs": 60}
    one = Flywheel(config_of(names=TWO, **settings), engine, PRINTS, tmp_path / "cache", clock, by="test")
    store(engine, rows[:700], NOW - 700 * 60)
    assert one.advance().what == "began"
    trained = one.advance()
    assert trained.what == "trained", trained
    assert {gate["name"] for gate in trained.numbers["gates"]} >= {"certificate", "saving"}
    assert trained.numbers["rows"]["train"] > 100 and trained.numbers["certificate"]["kind"] == "certificate"
    store(engine, rows[700:], clock() + 1)
    for _ in range(12):
        clock.now_s += 3_600
        found = one.advance()
        if found.stage != "shadow":
            break
    assert found.stage == "waiting", found
    with engine.connect() as connection:
        run = runs.latest(connection)
    assert run.stage == "waiting" and (tmp_path / "cache" / run.candidate / "manifest.json").exists()
    assert found.numbers["tally"]["candidate_usd"] < found.numbers["tally"]["incumbent_usd"]
