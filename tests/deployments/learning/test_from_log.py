"""From the ledger to a student's data: which requests are read, which models answered them, and what is asked offline."""

import json

import pytest
from kept_answers import TRACE, database, keep, kept
from student_log import fill_log
from student_rows import ladder

from deployments.distil.answering import Answered
from deployments.learning.kept.completions import Chosen
from deployments.learning.kept.feedback import Said, give
from deployments.learning.student import from_log
from deployments.learning.student.from_log import LogReader, Wanted, student_data
from deployments.ledger.database import writing
from deployments.tiers import fingerprints
from router.config import Config
from router.errors import BadInput

pytestmark = pytest.mark.slow
LATE = 1e9


@pytest.fixture
def engine(tmp_path):
    made = database(tmp_path)
    yield made
    made.dispose()


@pytest.fixture
def config(tmp_path):
    return Config.model_validate(ladder(tmp_path))


def wanted(student="small", teacher="large", **given):
    return Wanted(student, teacher, **given)


def made(engine, config, asked=None, **given):
    return student_data(engine, config, wanted(**given), LATE, lambda *told: None, asked)


def ids(rows):
    return {int(row.id, 16) for row in rows}


def test_the_log_becomes_three_sides(engine, config):
    fill_log(engine, range(400))
    found, about = made(engine, config)
    assert 2 * found.counts["train"]["failure"] == found.counts["train"]["success"] > 100 and len(found.test) > 75
    assert {row.weight for row in found.test} == {2.0} and found.test[0].slices["app"] == "mail"
    assert about["student"]["tier"] == "small" and about["teacher"]["licence"]["id"] == "apache-2.0"
    assert about["student"]["fingerprint"] == fingerprints.model(config.tiers[0])[:64] and about["name_begins"] == []
    assert found.rows[0].teacher_usd == 0.001 and found.rows[0].key_id.startswith("k")


def test_one_workload_one_key_and_a_time_can_be_chosen(engine, config):
    fill_log(engine, range(600))
    fill_log(engine, range(600, 700), app="chat")
    mail, _ = made(engine, config, chosen=Chosen(metadata={"app": "mail"}))
    assert max(ids(mail.rows)) < 600
    late, _ = made(engine, config, chosen=Chosen(since_s=1_000 + 60 * 200))
    assert min(ids(late.rows)) >= 200
    reader = LogReader(config, wanted(chosen=Chosen(key="k3")))
    assert {served.key_id for served, _ in reader.requests(engine)} == {"k3"}


def test_what_is_newer_than_the_call_is_left_out(engine, config):
    fill_log(engine, range(400))
    found, _ = student_data(engine, config, wanted(), 1_000 + 60 * 350, lambda *told: None)
    assert max(ids(found.rows)) <= 350 and found.left_out["newer than this run"] == 49


def test_answers_of_other_models_and_licences_teach_nothing(engine, config):
    fill_log(engine, range(400))
    fill_log(engine, range(400, 420), model="another")
    fill_log(engine, range(420, 450), licence="")
    found, about = made(engine, config)
    assert about["licence"] == "apache-2.0"
    assert max(ids(found.rows)) < 400
    assert found.left_out["the teacher has not answered it"] == 20
    assert found.left_out["the licence of the teacher's answer is not known"] == 30


def test_the_configured_models_own_answers_are_known_by_their_fingerprint(engine, config):
    prints = {tier.name: fingerprints.model(tier)[:64] for tier in config.tiers}
    fill_log(engine, range(3), model=prints["large"], student=False)
    fill_log(engine, range(3, 6), model=prints["small"])
    reader = LogReader(config, wanted())
    seen = [sorted(served.answers) for served, _ in reader.requests(engine)]
    same = prints["small"] == prints["large"]  # echoes of one source
    assert seen == ([["large"]] * 3 + [["large", "small"]] * 3 if same else [["large"]] * 3 + [["small"]] * 3)


def test_where_the_student_has_not_answered_it_is_asked_offline(engine, config, monkeypatch, tmp_path):
    fill_log(engine, range(400))
    fill_log(engine, range(400, 500), drawn=False, student=False, every_s=2.0)
    given = {}

    def answers(spec, rows, report, folder):
        given.update(spec=spec, rows=list(rows), folder=folder)
        return {row["id"]: Answered({"role": "assistant", "content": "no"}, "stop", 3, 2, {}) for row in given["rows"]}

    monkeypatch.setattr(from_log, "answers", answers)
    found, _ = made(engine, config, tmp_path / "work")
    assert given["spec"].tier == "small" and given["folder"] == tmp_path / "work" and 50 < len(given["rows"]) <= 100
    mine = [row for row in found.train if int(row.id, 16) >= 400]
    assert mine and all(row.kind == "failure" and row.student.message["content"] == "no" for row in mine)
    assert mine[0].student.cost_usd == pytest.approx(5e-6)


def test_learned_weights_have_no_kept_answers_so_they_are_asked(engine, config):
    fill_log(engine, range(30))
    reader = LogReader(config, wanted(weights="a" * 64))
    assert all(set(served.answers) == {"large"} and "small" not in served.grades for served, _ in reader.requests(engine))
    with pytest.raises(BadInput, match="the weights aaaaaaaaaaaa are not in"):
        reader.asker(lambda *told: None, None)([next(reader.requests(engine))[0]])


def test_a_correction_is_learned(engine, config):
    fill_log(engine, range(400))
    with writing(engine) as connection:
        for n in range(10, 40):
            give(connection, Said(TRACE.format(n), "app", 5.0, 0.0, f"It is {n + 1}, I think."))
    found, _ = made(engine, config)
    assert found.counts["train"]["correction"] > 20
    row = next(row for row in found.train if row.kind == "correction")
    assert row.answer["content"].endswith("I think.") and row.licence == "correction"


def test_texts_are_redacted_once_more_and_a_hook_that_fails_lets_nothing_out(engine, config):
    fill_log(engine, range(400))
    hooked = config.model_copy(update={"learning": config.learning.model_copy(update={"redact": "student_hooks:digits"})})
    found, _ = made(engine, hooked)
    assert all("#" in row.messages[-1]["content"] for row in found.rows)
    broken = config.model_copy(update={"learning": config.learning.model_copy(update={"redact": "student_hooks:fails"})})
    with pytest.raises(BadInput, match=r"400 learning\.redact keeps nothing of it, or failed"):
        made(engine, broken)


def test_rows_that_cannot_be_read_are_left_out(engine, config):
    fill_log(engine, range(400))
    keep(engine, kept(900, tier="large", messages="not json", created_s=2_000.0))
    assert 900 not in ids(made(engine, config)[0].rows)


def test_the_same_log_gives_the_same_data(engine, config):
    fill_log(engine, range(400))
    one, other = made(engine, config)[0], made(engine, config)[0]
    assert one.sha256 == other.sha256 and json.dumps(one.rows[0].as_json()) == json.dumps(other.rows[0].as_json())


@pytest.mark.parametrize(
    ("changes", "given", "said"),
    [
        ({}, {"student": "tiny"}, "--student tiny: no such tier; there are small, large"),
        ({}, {"teacher": "huge"}, "--teacher huge: no such tier"),
        ({}, {"student": "large", "teacher": "small"}, "--teacher small is not above --student large"),
        ({}, {"teacher": "small"}, "--teacher small is not above --student small"),
        ({"student": {"engine": "echo"}}, {}, "its engine is echo; only a tier on vllm"),
        ({"teacher": {"licence": {}}}, {}, "the licence of large is not declared"),
    ],
)
def test_tiers_that_cannot_teach_or_learn_are_refused(tmp_path, changes, given, said):
    settings = ladder(tmp_path, **changes)
    if changes.get("student"):
        settings["tiers"][0].pop("source")
    with pytest.raises(BadInput, match=said):
        LogReader(Config.model_validate(settings), wanted(**given))
