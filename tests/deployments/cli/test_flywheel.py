"""stepdown flywheel: what it says, what it exits with, and what it leaves in the database."""

import json
import sys
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

from life import QUICK, Always, keep, ladder, served

from deployments.cli.main import main
from deployments.learning import runs
from deployments.learning.lease import Lease
from deployments.learning.live import bundles
from deployments.ledger.database import connect, migrate
from router import config

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Routers need no training, and looks follow each other without a pause."""
    monkeypatch.setenv("STEPDOWN_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr("deployments.learning.flywheel.RealParts", lambda config, fingerprints: Always())
    monkeypatch.setattr("deployments.learning.flywheel.PACE_S", 0.0)
    monkeypatch.setattr("deployments.learning.process.BUSY_S", 0.05)
    monkeypatch.setattr("deployments.cli.flywheel.LOOK_S", 0.02)


@pytest.fixture
def file(tmp_path):
    settings = ladder(f"sqlite:///{tmp_path / 'ledger.db'}", {"canary_s": 0, "canary_requests": 0, "keep_old_s": 0})
    given = settings.model_dump(mode="json", include={"tiers", "ledger", "learning", "flywheel"}, exclude_unset=True)
    (tmp_path / "ladder.yaml").write_text(yaml.safe_dump(given))
    return tmp_path / "ladder.yaml"


@pytest.fixture
def engine(file):
    made = connect(config.load_config(file).ledger)
    migrate(made)
    yield made
    made.dispose()


def stepdown(file, *words, code=0):
    result = CliRunner().invoke(main, ["flywheel", *map(str, words), "--config", str(file)])
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result.output


def graded(engine, name, n=100, small=1.0):
    keep(engine, [f"{name}{i}" for i in range(n)], time.time(), small)


def latest(engine):
    with engine.connect() as connection:
        return runs.latest(connection)


def passed(file, engine):
    """A run that waits."""
    graded(engine, "a")
    stepdown(file, "run", "--once")
    graded(engine, "b")
    return stepdown(file, "run")


def test_too_few_requests_exit_with_3_and_say_how_many(file, engine):
    graded(engine, "a", 40)
    assert "40 of 100 graded requests that a run needs" in stepdown(file, "run", code=3)


def test_a_run_stops_before_the_canary_and_says_how_to_go_on(file, engine):
    assert "let it go on: stepdown flywheel promote run-1" in passed(file, engine)
    assert latest(engine).stage == "waiting"


def test_promote_makes_it_a_canary_and_run_takes_it_to_its_end(file, engine):
    passed(file, engine)
    assert "run-1 is a canary now" in stepdown(file, "promote", "run-1")
    with engine.connect() as connection:
        assert bundles.read(connection)["canary"].digest == latest(engine).candidate
    assert "run-1 done" in stepdown(file, "run")
    with engine.connect() as connection:
        assert set(bundles.read(connection)) == {"promoted"}


def test_with_promote_it_asks_nobody(file, engine):
    graded(engine, "a")
    stepdown(file, "run", "--once")
    graded(engine, "b")
    found = json.loads(stepdown(file, "run", "--promote", "--json"))
    assert (found["run"], found["stage"]) == ("run-1", "done")


def test_rollback_takes_back_what_was_promoted(file, engine):
    graded(engine, "a")
    stepdown(file, "run", "--once")
    graded(engine, "b")
    stepdown(file, "run", "--promote")
    assert "run-1 is taken back; within seconds `auto` goes by the largest tier" in stepdown(file, "rollback")
    assert latest(engine).stage == "rolled back"
    assert "nothing to take back" in CliRunner().invoke(main, ["flywheel", "rollback", "--config", str(file)]).stderr


def test_a_refused_candidate_exits_with_3(file, engine, monkeypatch):
    monkeypatch.setattr("deployments.learning.flywheel.RealParts", lambda *given: Always(("saving: too little",)))
    graded(engine, "a")
    assert "run-1 refused: saving: too little" in stepdown(file, "run", code=3)


def test_another_scheduler_is_named_with_code_4(file, engine):
    lease = Lease(engine)
    assert lease.take("flywheel", "other:1", 6.0, time.time())
    with lease.kept("flywheel", "other:1", 6.0, time.time):
        result = CliRunner().invoke(main, ["flywheel", "run", "--config", str(file)])
    assert result.exit_code == 4 and "other:1 runs the flywheel already" in result.stderr


def test_a_dead_scheduler_s_lease_is_waited_for(file, engine):
    assert Lease(engine).take("flywheel", "dead:1", 1.0, time.time())
    graded(engine, "a", 10)
    assert "10 of 100" in stepdown(file, "run", code=3)


def test_status_says_how_far_it_is_and_why_not_yet(file, engine):
    assert "0 of about 100 pairs" in stepdown(file, "status")
    passed(file, engine)
    served(engine, ["t1"], time.time(), "")
    text = stepdown(file, "status")
    assert "run-1: waiting" in text and "`stepdown flywheel promote` lets it go on" in text and "no process runs" in text
    found = json.loads(stepdown(file, "status", "--json"))
    assert found["run"]["stage"] == "waiting" and found["counts"]["complete"] == 200 and found["collect"] == "consented"
    assert found["run"]["gates"] == [{"name": "saving", "passed": True, "why": "", "saved": 0.5}]


def test_status_shows_what_each_promotion_saved(file, engine):
    graded(engine, "a")
    stepdown(file, "run", "--once")
    graded(engine, "b")
    stepdown(file, "run", "--promote")
    served(engine, [f"t{n}" for n in range(5)], time.time(), latest(engine).candidate)
    (one,) = json.loads(stepdown(file, "status", "--json"))["promotions"]
    assert one["run_id"] == "run-1" and one["saved"]["requests"] == 5
    assert one["saved"]["saved_usd"] == pytest.approx(0.05)
    assert "run-1 promoted" in stepdown(file, "status")


def test_history_tells_every_event_with_who(file, engine):
    assert "no run has begun yet" in stepdown(file, "history")
    passed(file, engine)
    stepdown(file, "promote", "run-1")
    text = stepdown(file, "history", "run-1")
    assert [word in text for word in ("began", "trained", "passed", "promotion asked", "approved", "@")] == [True] * 6
    (run,) = json.loads(stepdown(file, "history", "--json"))
    assert [event["number"] for event in run["events"]] == list(range(len(run["events"])))
    assert (
        "no run 'run-7'; there are: run-1"
        in CliRunner().invoke(main, ["flywheel", "history", "run-7", "--config", str(file)]).stderr
    )


@pytest.mark.parametrize(
    "words, said",
    [
        (["run", "--only", "small"], "only a router can be learned alone"),
        (["watch", "--every", "soon"], "expected a duration such as 12h, 7d or 2w"),
        (["promote", "run-1"], "no run 'run-1'"),
    ],
)
def test_mistakes_are_one_line_and_code_2(file, engine, words, said):
    result = CliRunner().invoke(main, ["flywheel", *words, "--config", str(file)])
    assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1


def test_the_shortest_settings_are_those_of_the_file(file):
    assert config.load_config(file).flywheel.least_pairs == QUICK["least_pairs"]
