"""A classifier with a pretrained model: it reads each text once, ahead of the decision, and is refused without its package."""

import numpy as np
import pytest

from classifiers import Artifact, Rule, Sufficiency, artifact, load, save
from classifiers.errors import MissingExtra
from classifiers.models.embedded import Embedded
from classifiers.models.registry import CLASSIFIERS
from classifiers.pretrained import language
from classifiers.pretrained.remembered import Remembered
from classifiers.text import view

pytestmark = pytest.mark.slow

TEXTS = [f"what is {i} plus {i % 7}" if i % 2 else f"prove that {i} divides {i * 7} for all primes" for i in range(60)]
SCORES = np.array([[i % 2, 1.0] for i in range(60)])


@pytest.fixture
def read(monkeypatch):
    """Replaces MiniLM; gives the list of texts that it was asked for."""
    asked = []

    def compute(texts):
        asked.extend(texts)
        rows = [np.random.default_rng(len(text) + 99 * text.count("prove")).normal(size=40) for text in texts]
        return np.array(rows, dtype=np.float32).reshape(len(texts), 40)

    model = Remembered(compute, 40)
    monkeypatch.setattr(view, "pretrained", lambda name: model)
    monkeypatch.setattr(artifact, "check_extra", lambda name: None)
    monkeypatch.setitem(CLASSIFIERS, "embed", Embedded)
    return asked


@pytest.fixture
def folder(read, tmp_path):
    model = Sufficiency("embed", n_folds=2).fit(TEXTS, SCORES)
    rules = {"balanced": Rule("utility", 0.1).to_dict()}
    save(tmp_path / "router", model, {"tiers": ["small", "large"], "costs": [0.1, 1.0], "rules": rules})
    return tmp_path / "router"


def test_a_training_run_reads_each_row_once_and_says_how_far_it_is(read):
    steps = []
    Sufficiency("embed", n_folds=2).fit(TEXTS, SCORES, progress=lambda done, total: steps.append((done, total)))
    assert sorted(read) == sorted(TEXTS) and steps[0] == (60, 60)


def test_what_was_read_ahead_is_not_read_again(folder, read):
    made = load(folder)
    assert isinstance(made, Artifact) and made.slow
    read.clear()
    made.read_ahead("prove it")
    p, _, _ = made.guess_one("prove it")
    assert read == ["prove it"] and p.shape == (2,)


def test_the_default_has_nothing_to_read_ahead(tmp_path, read):
    made = Sufficiency("linear", n_folds=2).fit(TEXTS, SCORES)
    save(tmp_path / "plain", made, {"tiers": ["small", "large"], "costs": [0.1, 1.0], "rules": {}})
    plain = load(tmp_path / "plain")
    plain.read_ahead("prove it")
    assert not plain.slow and not read


def test_an_artefact_is_refused_where_its_extra_is_missing(folder, monkeypatch):
    monkeypatch.setattr(artifact, "check_extra", view.check_extra)
    monkeypatch.setattr("classifiers.pretrained.minilm.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="stepdown"):
        load(folder)
    monkeypatch.setattr(language, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="surprisal"):
        view.check_extra("reading")
