"""`stepdown distil`: what each command writes and prints, its errors, and its exit codes."""

import json
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from kept_answers import database
from student_log import fill_log
from student_rows import ladder

from deployments.cli.main import main
from deployments.distil import answering
from deployments.learning.live import weights
from deployments.learning.student import adopted
from router.errors import BadInput

pytestmark = pytest.mark.slow
CHILD = Path(__file__).parents[1] / "distil" / "student_child.py"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A ladder whose small tier is a model's folder, and a log of 400 requests."""
    monkeypatch.setattr(answering, "COMMAND", (sys.executable, str(CHILD)))
    engine = database(tmp_path)
    fill_log(engine, range(400))
    engine.dispose()
    model(tmp_path / "model", b"base")
    more = {"ledger": {"url": f"sqlite:///{tmp_path}/ledger.db"}, "flywheel": {"weights": str(tmp_path / "weights")}}
    (tmp_path / "ladder.yaml").write_text(json.dumps(ladder(tmp_path, **more)))
    return tmp_path


def model(folder, content, **config):
    """A stub of a model: its weights say how good its answers are."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(content)
    (folder / "config.json").write_text(json.dumps({"vocab_size": 10, **config}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def run(*words, code=0):
    done = CliRunner().invoke(main, ["distil", *map(str, words)])
    assert done.exit_code == code, done.output
    return done


def data(place, *words, code=0):
    config = ("--config", place / "ladder.yaml")
    return run("data", *config, "--student", "small", "-o", place / "data", *words, code=code)


def test_data_writes_a_folder_and_says_what_is_in_it(place):
    said = data(place).output
    manifest = json.loads((place / "data" / "manifest.json").read_text())
    assert f"data {manifest['dataset_sha256'][:12]} for small from large" in said and "failures" in said and "left out: " in said
    assert manifest["vocab_size"] == 10 and len(manifest["template_sha256"]) == len(manifest["tokenizer_sha256"]) == 64
    again = json.loads(data(place, "--json", "--metadata", "app=mail").stdout)
    assert again["dataset_sha256"] == manifest["dataset_sha256"] and again["chosen"]["metadata"] == {"app": "mail"}
    other = json.loads(data(place, "--json", "--seed", "5", "--rows", "300").stdout)
    assert (
        other["dataset_sha256"] != manifest["dataset_sha256"] and other["left_out"]["older than the newest that are used"] == 100
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--student", "large"), "its engine is|is not above --student large"),
        (("--teacher", "nobody"), "--teacher nobody: no such tier; there are small, large"),
        (("--metadata", "mail"), "write NAME=VALUE"),
        (("--metadata", "app=none"), "at least 20 are needed"),
        (("--since", "soon"), "`since` is 'soon'"),
    ],
)
def test_data_refuses_in_words(place, words, said):
    assert re.search(said, data(place, *words, code=2).output)
    assert not (place / "data").exists()


def test_data_refuses_a_teacher_without_a_licence(place):
    settings = json.loads((place / "ladder.yaml").read_text())
    settings["tiers"][1].pop("licence")
    (place / "ladder.yaml").write_text(json.dumps(settings))
    said = data(place, code=2).output
    assert "tiers.large.licence.id" in said and "train_on_outputs: any" in said and not (place / "data").exists()


def test_data_leaves_other_folders_alone(place):
    (place / "data").mkdir()
    (place / "data" / "mine.txt").write_text("x")
    assert "is no data folder" in data(place, code=2).output


# -- evaluate --------------------------------------------------------------------------------------------------------------


def trained(place, content=b"good", **manifest):
    run_folder = place / "run"
    model(run_folder / "model", content)
    (run_folder / "manifest.json").write_text(json.dumps(manifest))
    return run_folder


def evaluate(place, run_folder, *words, code=0):
    return run("evaluate", run_folder, place / "data", "--config", place / "ladder.yaml", *words, code=code)


def test_a_better_model_passes_and_the_answers_are_kept(place):
    data(place)
    run_folder = trained(place)
    said = evaluate(place, run_folder).output
    found = json.loads((run_folder / "evaluation.json").read_text())
    assert found["passed"] and [gate["name"] for gate in found["gates"]] == ["gain", "lost", "form", "capacity"]
    assert found["slices"]["all"]["before"] < 0.8 < 0.99 < found["slices"]["all"]["after"] and "passed  gain" in said
    assert {path.name for path in (run_folder / "evaluation").iterdir()} == {"before", "after"}
    assert json.loads(evaluate(place, run_folder, "--json").stdout)["slices"] == found["slices"]


@pytest.mark.parametrize(("content", "gate"), [(b"base", "gain"), (b"forgets", "lost"), (b"long", "form")])
def test_a_model_that_fails_a_gate_ends_with_code_3_and_the_reason(place, content, gate):
    data(place)
    run_folder = trained(place, content)
    done = evaluate(place, run_folder, code=3)
    assert f"FAILED  {gate}" in done.output and f"{gate}: " in done.stderr
    assert json.loads((run_folder / "evaluation.json").read_text())["passed"] is False


def test_a_run_on_other_data_may_have_seen_the_test(place):
    data(place)
    assert "may have seen" in evaluate(place, trained(place, dataset_sha256="0" * 64), code=2).output
    told = json.loads((place / "data" / "manifest.json").read_text())["dataset_sha256"]
    evaluate(place, trained(place, dataset_sha256=told))


def test_evaluate_refuses_what_is_no_run_and_what_speaks_otherwise(place):
    data(place)
    (place / "empty").mkdir()
    assert "holds no model/" in evaluate(place, place / "empty", code=2).output
    other = trained(place)
    (other / "model" / "chat_template.jinja").write_text("{{ other }}")
    assert "its chat template is" in evaluate(place, other, code=2).output
    (place / "data" / "test.jsonl").write_text("")
    assert "test.jsonl: was changed" in evaluate(place, other, code=2).output


# -- adopt -----------------------------------------------------------------------------------------------------------------


def adopt(place, folder, *words, code=0, licence=("--licence", "mit")):
    given = ("--config", place / "ladder.yaml", "--student", "small", "--data", place / "data")
    return run("adopt", folder, *given, *licence, *words, code=code)


def test_a_model_from_elsewhere_is_kept_once_it_has_passed(place):
    data(place)
    elsewhere = model(place / "elsewhere", b"good")
    found = json.loads(adopt(place, elsewhere, "--json").stdout)
    store = place / "weights"
    assert weights.find(found["digest"], store) == store / found["digest"] and found["passed"]
    about = adopted.read(found["digest"], store)
    assert (
        about["licence"] == "mit" and about["student"] == "small" and about["name"] == "elsewhere" and len(about["parents"]) == 1
    )
    assert about["learned_from"].keys() == {"apache-2.0"} and about["evaluation"]["passed"]
    said = adopt(place, elsewhere).output
    assert f"--adopt {found['digest']}" in said and "passed  lost" in said
    with pytest.raises(BadInput, match="were not adopted in"):
        adopted.read("0" * 64, store)
    with pytest.raises(BadInput, match="is no digest of weights"):
        adopted.read("../x", store)


def test_a_model_that_fails_is_not_kept(place):
    data(place)
    done = adopt(place, model(place / "elsewhere", b"forgets"), code=3)
    assert "lost: " in done.stderr and not (place / "weights").exists()


def test_adopt_refuses_what_is_not_safe_or_does_not_fit(place):
    data(place)
    assert "config.json: names code of its own" in adopt(place, model(place / "a", b"good", auto_map={"x": "y"}), code=2).output
    (model(place / "b", b"good") / "pytorch_model.bin").write_bytes(b"x")
    assert "can run code" in adopt(place, place / "b", code=2).output
    assert "its vocab_size is 11" in adopt(place, model(place / "c", b"good", vocab_size=11), code=2).output
    good = model(place / "d", b"good")
    assert "Missing option '--licence'" in adopt(place, good, licence=(), code=2).output
    data_of = ("--config", place / "ladder.yaml", "--student", "large", "--data", place / "data", "--licence", "mit")
    assert "is data for small, not for large" in run("adopt", good, *data_of, code=2).output


def test_a_naming_rule_is_kept(place):
    settings = json.loads((place / "ladder.yaml").read_text())
    settings["tiers"][1]["licence"]["name_begins"] = "Llama"
    (place / "ladder.yaml").write_text(json.dumps(settings))
    data(place)
    good = model(place / "mail", b"good")
    assert "to begin with 'Llama'; give --name" in adopt(place, good, code=2).output
    digest = json.loads(adopt(place, good, "--name", "Llama-mail", "--json").stdout)["digest"]
    assert adopted.read(digest, place / "weights")["name"] == "Llama-mail"


def test_the_group_explains_itself():
    said = run("--help").output
    assert "data" in said and "evaluate" in said and "adopt" in said
