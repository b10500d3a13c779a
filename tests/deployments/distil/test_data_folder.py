"""A data folder is written whole or not at all, and damage is found when it is read."""

import json

import pytest
from student_rows import collected, log

from deployments.distil import data_folder
from deployments.distil.model_identity import Identity, check_same, identity_of
from router.distil.dataset import build
from router.distil.rows import SIDES
from router.errors import BadInput

pytestmark = pytest.mark.slow
ABOUT = {"student": {"tier": "small"}, "teacher": {"tier": "large"}, "made_s": 1.0}


@pytest.fixture(scope="module")
def made():
    return build(collected(log(400)))


@pytest.fixture
def folder(tmp_path, made):
    data_folder.write(tmp_path / "data", made, ABOUT)
    return tmp_path / "data"


def test_what_was_written_is_read_back(folder, made):
    found = data_folder.read(folder)
    read = {side: tuple(found.rows(side)) for side in SIDES}
    assert [[row.as_json() for row in some] for some in read.values()] == [
        json.loads(json.dumps([row.as_json() for row in some])) for some in made.sides.values()
    ]
    manifest = found.manifest
    assert manifest["dataset_sha256"] == made.sha256 and manifest["counts"] == made.counts and found.student == "small"
    assert manifest["keys"] == 7 and manifest["licences"] == {"apache-2.0": len(made.rows)} and manifest["until_s"] > 20_000
    assert (folder / "card.md").read_text("utf-8").startswith("# Data for small")
    assert sorted(path.name for path in folder.iterdir()) == [
        "card.md",
        "dev.jsonl",
        "manifest.json",
        "test.jsonl",
        "train.jsonl",
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["data"]


def test_an_older_data_folder_is_replaced_and_another_folder_is_not(folder, made, tmp_path):
    (folder / "train.jsonl").write_text("old", "utf-8")
    data_folder.write(folder, made, ABOUT)
    data_folder.read(folder)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("x", "utf-8")
    with pytest.raises(BadInput, match="is there already and is no data folder"):
        data_folder.write(mine, made, ABOUT)
    assert (mine / "thesis.txt").exists()


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, made, monkeypatch):
    monkeypatch.setattr(data_folder, "card", lambda manifest: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        data_folder.write(tmp_path / "data", made, ABOUT)
    assert list(tmp_path.iterdir()) == []


def damage(folder, name, change):
    path = folder / name
    text = path.read_text("utf-8")
    path.write_text(change(text), "utf-8")


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("train.jsonl", lambda text: text[:-40], "train.jsonl: was changed after it was written"),
        ("test.jsonl", lambda text: text.replace("number 3", "number 9", 1), "test.jsonl: was changed"),
        ("manifest.json", lambda text: text[:50], "is not JSON"),
        ("manifest.json", lambda text: "[]", "is not the manifest of a data folder"),
        ("manifest.json", lambda text: text.replace('"form": 1', '"form": 9'), "of a data folder of form 1"),
        ("manifest.json", lambda text: text.replace('"seed": 0', '"seed": 1'), "its rows are not those of dataset_sha256"),
        ("manifest.json", lambda text: text.replace('"dev.jsonl"', '"other.jsonl"'), "expected train, dev and test"),
    ],
)
def test_damage_is_told_in_words(folder, name, change, said):
    damage(folder, name, change)
    with pytest.raises(BadInput, match=said):
        data_folder.read(folder)


def test_a_file_that_is_gone_and_a_row_that_is_none(folder):
    (folder / "dev.jsonl").unlink()
    with pytest.raises(BadInput, match="dev.jsonl: cannot be read"):
        data_folder.read(folder)
    damage(folder, "train.jsonl", lambda text: text + '{"id": "x"}\n')
    with pytest.raises(BadInput, match=r"train.jsonl: line \d+: not a row of a data folder"):
        list(data_folder.rows_of(folder / "train.jsonl"))
    with pytest.raises(BadInput, match="expected a data folder"):
        data_folder.read(folder.parent)


# -- whether two models speak alike ---------------------------------------------------------------------------------------------


def model(folder, vocab=10, template="{{ messages }}", words="{}"):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"vocab_size": vocab}))
    (folder / "tokenizer.json").write_text(words)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return folder


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"vocab": 11}, "its vocab_size is 11, small has 10"),
        ({"template": "{{ other }}"}, "its chat template is"),
        ({"words": "[]"}, "its tokenizer.json is"),
    ],
)
def test_a_model_that_speaks_otherwise_is_refused(tmp_path, other, said):
    own = identity_of(model(tmp_path / "own"))
    check_same(own, identity_of(model(tmp_path / "same")), tmp_path / "same", "small")
    with pytest.raises(BadInput, match=said):
        check_same(own, identity_of(model(tmp_path / "other", **other)), tmp_path / "other", "small")


def test_a_template_may_lie_in_a_file_and_what_is_not_known_is_not_compared(tmp_path):
    own, file = model(tmp_path / "own"), model(tmp_path / "file", template=None)
    (file / "chat_template.jinja").write_text("{{ messages }}")
    assert identity_of(own) == identity_of(file)
    check_same(Identity(), identity_of(own), own, "small")
    assert identity_of(None) == Identity()
