"""stepdown flywheel run --student: what it asks, says, and exits with."""

import json
import sys
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

from life import keep
from student_life import StudentParts, ladder

from deployments.cli.learned.student_options import workloads
from deployments.cli.main import main
from deployments.learning import process
from deployments.learning.student.asked import StudentAsked
from deployments.ledger.database import connect, migrate
from router import config
from router.errors import BadInput

pytestmark = pytest.mark.slow


@pytest.fixture
def parts(monkeypatch, tmp_path):
    """Nothing needs a model, and looks follow each other without a pause."""
    made = StudentParts(tmp_path / "weights")
    monkeypatch.setenv("STEPDOWN_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr("deployments.learning.flywheel.RealParts", lambda config, fingerprints: made)
    monkeypatch.setattr("deployments.learning.flywheel.PACE_S", 0.0)
    monkeypatch.setattr("deployments.learning.process.BUSY_S", 0.05)
    return made


@pytest.fixture
def file(tmp_path, parts):
    settings = ladder(tmp_path, f"sqlite:///{tmp_path / 'ledger.db'}")
    given = settings.model_dump(mode="json", include={"tiers", "ledger", "learning", "flywheel"}, exclude_unset=True)
    (tmp_path / "ladder.yaml").write_text(yaml.safe_dump(given))
    return tmp_path / "ladder.yaml"


@pytest.fixture
def engine(file):
    made = connect(config.load_config(file).ledger)
    migrate(made)
    keep(made, [f"a{n}" for n in range(120)], time.time() - 60, source="agreement")
    yield made
    made.dispose()


def stepdown(file, *words, code=0):
    result = CliRunner().invoke(main, ["flywheel", *map(str, words), "--config", str(file)])
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result.output if not code or code == 3 else result.stderr


def test_a_run_for_a_student_is_shown_with_its_steps_and_books(file, engine, parts):
    found = json.loads(
        stepdown(file, "run", "--student", "small", "--tokens", 5_000, "--metadata", "app=mail", "--once", "--json")
    )
    assert (found["run"], found["stage"]) == ("run-1", "shadow")
    history = stepdown(file, "history", "run-1")
    assert "student small from large" in history and "gain passed, lost passed, form passed" in history
    status = stepdown(file, "status")
    assert "score 0.600 -> 0.800" in status and "saves 2.0000 USD a day" in status and "shadow" in status
    settings = json.loads(stepdown(file, "history", "--json"))[0]["settings"]["student"]
    assert settings["recipe"] == {"tokens": 5_000} and settings["metadata"] == {"app": "mail"} and settings["teacher"] == "large"


def test_a_gate_that_fails_is_code_3(file, engine, parts):
    parts.student.refuses = ("lost",)
    assert "lost: it is good" in stepdown(file, "run", "--student", "small", code=3)


def test_another_run_under_way_is_named(file, engine):
    stepdown(file, "run", "--student", "small", "--once")
    assert "run-1 is under way, for small from large;" in stepdown(file, "run", "--once", code=2)
    assert "run-1 is under way" in stepdown(file, "run", "--student", "small", "--metadata", "app=mail", "--once", code=2)


@pytest.mark.parametrize(
    "words, said",
    [
        (["--student", "tiny"], "--student tiny: no such tier"),
        (["--student", "large", "--teacher", "small"], "not above"),
        (["--tokens", "5"], "say which with --student TIER"),
        (["--only", "router", "--student", "small"], "give one of the two"),
        (["--student", "small", "--adopt", "a" * 64, "--tokens", "5"], "leave them out"),
        (["--student", "small", "--metadata", "app"], "write NAME=VALUE"),
    ],
)
def test_mistakes_are_one_line_and_code_2(file, words, said):
    result = CliRunner().invoke(main, ["flywheel", "run", *words, "--config", str(file)])
    assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1


def test_workloads_have_their_turn_and_a_router_alone_comes_last(tmp_path):
    found = workloads(ladder(tmp_path), "small", None, ("app=mail", "app=search,lang=de"))
    assert [one and one.metadata for one in found] == [{"app": "mail"}, {"app": "search", "lang": "de"}, None]
    assert workloads(ladder(tmp_path), None, None, ()) == (None,)
    with pytest.raises(BadInput, match="for a student"):
        workloads(ladder(tmp_path), None, None, ("app=mail",))


def test_watch_asks_one_after_the_other_and_stays_with_a_run():
    asked, answers = [], iter([(False, ""), (False, ""), (True, "run-1"), (False, "run-1"), (False, "")])

    class Wheel:
        def advance(self, every_s, student):
            asked.append((student and student.tier, every_s))
            did, run_id = next(answers)
            return process.Looked("collecting", "looked", "", run_id, did)

    students, left = (StudentAsked("a", "z"), StudentAsked("b", "z"), None), [0] * 5
    process.turn(Wheel(), lambda pause_s: not (left and left.pop(0) == 0), 60.0, students)
    assert asked == [("a", 60.0), ("b", 60.0), (None, None), (None, None), (None, None)]
