"""A run for a student on a real database, with parts that train nothing: all stages, every kill, every gate."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from sqlalchemy import select, update

sys.path.insert(0, str(Path(__file__).parent))

from life import Killed, keep
from student_life import LICENCE, STEPS, STUDENT, StudentWorld, ladder

from deployments.learning import runs
from deployments.learning.live import bundles, model_store, weights
from deployments.learning.status import status
from deployments.learning.steps import by_hand
from deployments.learning.steps.student_training import progress_line, work_folder
from deployments.learning.student.asked import StudentAsked
from deployments.ledger.database import connect, migrate, state_folder, writing
from deployments.ledger.schema import model_rows, models
from router import config
from router.errors import BadInput

pytestmark = pytest.mark.slow
END = [
    *[("training", "step")] * 5,
    ("shadow", "trained"),
    ("waiting", "passed"),
    ("waiting", "promotion asked"),
    ("canary", "approved"),
    ("promoted", "promoted"),
    ("done", "done"),
]


@pytest.fixture
def world(engine, tmp_path):
    return StudentWorld(engine, ladder(tmp_path), tmp_path)


def events_of(world, run):
    with world.engine.connect() as connection:
        return runs.events(connection, run.id)


def refused_by(world, run):
    assert run.stage == "refused", run
    return events_of(world, run)[-1].numbers["why"]


# -- a whole life ----------------------------------------------------------------------------------------------------------


def test_from_the_log_to_a_promoted_bundle(world, tmp_path):
    run = world.live(tmp_path / "cache")
    assert (run.kind, run.stage, run.incumbent) == ("student", "done", "")
    assert world.history(run) == [("training", "began"), *END]
    assert world.slots() == {"promoted": (run.candidate, 1.0)}
    rows = {row["kind"]: row for row in world.rows(models)}
    books = json.loads(rows["weights"]["numbers"])
    assert (rows["weights"]["tier"], rows["weights"]["parent"], rows["weights"]["run_id"]) == ("small", "", run.id)
    assert books["learned"]["all"] == {"before": 0.6, "after": 0.8, "n": 100, "won": 22, "lost": 2}
    assert books["training_usd"] == 0.25 and books["saves_usd_day"] == 2.0 and books["cost_usd"] > 0.25
    with world.engine.connect() as connection:
        assert model_store.manifest(connection, run.candidate)["weights"] == {"small": rows["weights"]["digest"]}
    mine = [row for row in world.rows(model_rows) if row["digest"] == rows["weights"]["digest"]]
    assert len(mine) == 50  # those trained on, and those that chose and tested: `log forget` names the weights
    assert not work_folder(run).exists()  # it held what clients wrote


def test_what_turns_out_worse_is_taken_back(engine, tmp_path):
    world = StudentWorld(engine, ladder(tmp_path), tmp_path)
    world.ends_well = False
    run = world.live(tmp_path / "cache")
    assert world.history(run)[-1] == ("rolled back", "rolled back") and world.slots()["promoted"][0] == ""


def test_weights_that_left_the_store_are_trained_again(world, tmp_path):
    def gone():
        if world.parts.student.did.count("gates") == 1:
            shutil.rmtree(tmp_path / "weights")
            raise Killed

    world.parts.student.hooks["gates"] = gone
    run = world.live(tmp_path / "cache")
    assert run.stage == "done" and world.parts.student.did.count("train") == 2


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_in_any_step_it_comes_to_the_same_end(tmp_path, step, when):
    def life(name, killed):
        own = connect(config.Ledger(url=f"sqlite:///{tmp_path / name}.db?synchronous=NORMAL"))
        migrate(own)
        world = StudentWorld(own, ladder(tmp_path / name), tmp_path / name, killed=killed)
        run = world.live(tmp_path / f"cache-{name}")
        found = world.history(run), world.slots(), run.candidate, run.stage
        done = list(world.parts.student.did)
        own.dispose()
        return found, done

    expected, plain = life("whole", None)
    found, did = life("killed", (step, when))
    assert found == expected
    assert [one for one in did if one != step] == [one for one in plain if one != step]  # what was done is not done again
    assert did.count(step) == (2 if when == "after" and step != "gates" else 1)


def test_a_process_that_dies_after_any_event_changes_nothing(tmp_path, monkeypatch):
    def life(n, kill_at):
        monkeypatch.setenv("STEPDOWN_STATE_DIR", str(tmp_path / f"state{n}"))
        own = connect(config.Ledger(url=f"sqlite:///{tmp_path / str(n)}.db?synchronous=NORMAL"))
        migrate(own)
        world = StudentWorld(own, ladder(tmp_path / str(n)), tmp_path / str(n))
        world.kill_at = kill_at
        run = world.live(tmp_path / f"cache{n}")
        found = world.history(run), world.slots(), run.candidate
        own.dispose()
        return found, world.written

    expected, events = life(0, None)
    assert events > 12
    for kill_at in range(1, events):
        assert life(kill_at, kill_at)[0] == expected, kill_at


def test_a_step_that_kills_its_process_is_given_up_after_three_tries_without_progress(world, tmp_path):
    taught = world.parts.student

    def deadly():
        raise Killed

    taught.hooks["gates"] = deadly
    run = world.live(tmp_path / "cache")
    assert run.stage == "failed" and "cut short 3 times" in events_of(world, run)[-1].numbers["why"]
    assert taught.did.count("train") == 1 and taught.did.count("gates") == 1 + 3  # the first one got further than any before


# -- gates -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["gain", "lost", "form", "certificate", "quality", "ladder", "calibration", "payback"])
def test_a_gate_that_fails_is_named_and_nothing_is_stored(engine, tmp_path, gate):
    world = StudentWorld(engine, ladder(tmp_path), tmp_path, refuses=(gate,))
    run = world.live(tmp_path / "cache")
    assert refused_by(world, run) == f"{gate}: it is good"
    assert world.rows(models) == [] and world.slots() == {}
    assert any(one.startswith("forgot") for one in world.parts.student.did)
    assert ("router" in world.parts.student.did) == (gate not in ("gain", "lost", "form"))


def test_that_data_set_is_not_tried_again(engine, tmp_path):
    world = StudentWorld(engine, ladder(tmp_path), tmp_path, refuses=("gain",))
    run = world.live(tmp_path / "cache")
    one = world.flywheel(tmp_path / "cache")
    assert one.advance("me", student=STUDENT).what == "began"
    found = one.advance()
    assert found.what == "refused" and found.why == f"{run.id} failed with the same data set, which is not tried again"
    assert world.parts.student.did.count("train") == 1


def test_adopted_weights_are_tried_without_training(engine, tmp_path):
    world = StudentWorld(engine, ladder(tmp_path), tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "model.safetensors").write_bytes(b"from elsewhere")
    digest = weights.keep(tmp_path / "elsewhere", tmp_path / "weights")
    run = world.live(tmp_path / "cache", student=StudentAsked("small", "large", adopt=digest))
    assert run.stage == "done" and "train" not in world.parts.student.did
    assert world.weights() == digest


def test_refused_weights_that_a_person_adopted_stay_in_the_store(engine, tmp_path):
    world = StudentWorld(engine, ladder(tmp_path), tmp_path, refuses=("gain",))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "model.safetensors").write_bytes(b"from elsewhere")
    digest = weights.keep(tmp_path / "elsewhere", tmp_path / "weights")
    run = world.live(tmp_path / "cache", student=StudentAsked("small", "large", adopt=digest))
    assert run.stage == "refused" and (tmp_path / "weights" / digest).is_dir()
    assert not any(one.startswith("forgot") for one in world.parts.student.did)


def test_data_that_was_damaged_between_two_attempts_is_made_again(world, tmp_path):
    def damaged():
        if world.parts.student.did.count("answers") == 1:
            (state_folder() / "distil" / "run-1" / "data" / "train.jsonl").write_text("what it never was")
            raise Killed

    world.parts.student.hooks["answers"] = damaged
    run = world.live(tmp_path / "cache")
    assert run.stage == "done" and world.parts.student.did.count("data") == 2


def test_what_a_part_cannot_do_refuses_the_run_with_its_reason(engine, tmp_path):
    world = StudentWorld(engine, ladder(tmp_path), tmp_path, fails={"data": BadInput("only 3 failures; 20 are needed")})
    assert refused_by(world, world.live(tmp_path / "cache")) == "only 3 failures; 20 are needed"


@pytest.mark.parametrize(
    ("student", "licence", "why"),
    [
        (STUDENT, {}, "licence of large is not declared"),
        (STUDENT, {"id": "closed", "train_on_outputs": "none"}, "train_on_outputs is none"),
        (StudentAsked("large", "small"), LICENCE, "not above"),
        (StudentAsked("tiny", "large"), LICENCE, "no such tier"),
        (StudentAsked("small", "large", adopt="abc"), LICENCE, "64 hexadecimal"),
    ],
)
def test_what_may_not_be_learned_begins_no_run(engine, tmp_path, student, licence, why):
    world = StudentWorld(engine, ladder(tmp_path, licence=licence), tmp_path)
    with pytest.raises(BadInput, match=why):
        world.flywheel(tmp_path / "cache").advance("me", student=student)
    assert world.latest() is None


# -- looking ---------------------------------------------------------------------------------------------------------------


def until_shadow(world, tmp_path):
    one = world.flywheel(tmp_path / "cache")
    keep(world.engine, [f"a{n}" for n in range(120)], world.clock(), source="agreement")
    for _ in range(3):
        found = one.advance("me", student=STUDENT)
    assert found.stage == "shadow", found
    return one


def test_requests_wait_for_the_candidates_answer_and_then_count(engine, tmp_path):
    world = StudentWorld(engine, ladder(tmp_path), tmp_path, late=True)
    one = until_shadow(world, tmp_path)
    world.clock.now_s += 11
    names = {f"b{n}" for n in range(30)}
    keep(engine, sorted(names), world.clock())
    world.clock.now_s += 11
    one.advance()
    assert world.compared(world.latest()) == []
    world.fill(names)
    world.clock.now_s += 11
    one.advance()
    assert {name for name, _, d in world.compared(world.latest()) if d is not None} == names


def test_a_request_waits_for_an_hour_at_most(engine, tmp_path):
    world = StudentWorld(engine, ladder(tmp_path), tmp_path, late=True)
    one = until_shadow(world, tmp_path)
    world.clock.now_s += 11
    keep(engine, ["b0"], world.clock())
    world.clock.now_s += 3_700
    one.advance()
    assert world.compared(world.latest()) == [("b0", "shadow", None)]


def test_other_configured_models_end_the_run(engine, tmp_path):
    world = StudentWorld(engine, ladder(tmp_path), tmp_path)
    one = until_shadow(world, tmp_path)
    one.work.fingerprints = "others"
    assert one.advance().what == "failed"


def test_noise_in_the_weights_never_leaves_the_shadow(engine, tmp_path):
    """Gates that were fooled: the answers that the filler gets are wrong."""
    world = StudentWorld(engine, ladder(tmp_path), tmp_path, new_score=0.0)
    run = world.live(tmp_path / "cache")
    assert run.stage == "refused" and "worse by more than" in refused_by(world, run)
    assert world.slots() == {}


# -- the next round --------------------------------------------------------------------------------------------------------


def test_a_second_generation_replaces_the_first_and_its_rows_are_those_of_the_first(world, tmp_path):
    first = world.live(tmp_path / "cache")
    parent = world.weights()
    world.parts.student.taught, world.asked_for = b"better still", False
    names = {f"z{n}" for n in range(40)}
    world.clock.now_s += 60
    keep(world.engine, sorted(names), world.clock())
    world.fill(names)
    one = world.flywheel(tmp_path / "cache")
    assert one.advance("me", student=STUDENT).what == "began"
    found = one.advance()
    assert found.what == "trained", found
    with world.engine.connect() as connection:
        listed = model_store.weights_listed(connection)
    assert [row.parent for row in listed] == ["", parent] and listed[1].numbers["parent"] == parent
    assert world.latest().incumbent == first.candidate


def test_a_router_alone_is_for_the_weights_that_are_promoted(world, tmp_path):
    world.live(tmp_path / "cache")
    names = {f"z{n}" for n in range(150)}
    world.clock.now_s += 60
    keep(world.engine, sorted(names), world.clock())
    world.fill(names)
    one = world.flywheel(tmp_path / "cache")
    assert one.advance("me").what == "began" and one.advance().what == "trained"
    asked = world.parts.asked[-1]
    assert asked.weights == {"small": world.weights()}
    assert asked.rows and all(row.answers["small"].cost_usd == 0.0005 for row in asked.rows)


# -- what is shown ---------------------------------------------------------------------------------------------------------


def test_the_status_shows_generations_with_what_they_learned_cost_and_save(world, tmp_path):
    run = world.live(tmp_path / "cache")
    found = status(world.engine, world.config, world.clock())["generations"]
    assert len(found) == 1
    one = found[0]
    assert (one["tier"], one["state"], one["run_id"], one["digest"]) == ("small", "promoted", run.id, world.weights())
    assert one["learned"]["all"]["after"] == 0.8 and one["rows"]["counts"]["train"]["failure"] == 20
    assert one["cost_usd"] > 0 and one["seconds"] == 60.0 and one["saves_usd_day"] == 2.0
    by_hand.rollback(world.engine, world.config, "a person", world.clock())
    assert status(world.engine, world.config, world.clock())["generations"][0]["state"] == "rolled back"


def test_weights_that_another_promotion_pushed_out_are_replaced(world, tmp_path):
    world.live(tmp_path / "cache")
    with writing(world.engine) as connection:
        connection.execute(update(bundles.bundles).values(digest=""))
    assert status(world.engine, world.config, world.clock())["generations"][0]["state"] == "replaced"


def test_how_far_a_training_is_in_words():
    assert progress_line("train", 1_200_000, 2_400_000, {"loss": 0.312}) == "training: 1.2 of 2.4 M tokens, loss 0.31"
    assert progress_line("answers", 10, 6_000, {}) == "answering: 10 of 6,000"


def test_rows_of_the_books_stay_when_a_run_is_forgotten(world, tmp_path):
    world.live(tmp_path / "cache")
    with world.engine.connect() as connection:
        assert connection.scalar(select(models.c.method).where(models.c.kind == "weights")) == "sequence, all weights"
