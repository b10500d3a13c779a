"""For any text, compiled code gives numpy's results."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifiers import Sufficiency, load, save
from classifiers.fast import precompile as compiler
from classifiers.fast.one_text import Compiled
from classifiers.fast.precompile import precompile
from classifiers.text.view import View

pytestmark = pytest.mark.slow  # the first time on a machine it compiles for 15 s

HARD = [
    "",
    " ",
    "\n\n",
    "A",
    "?!" * 400,
    "1" * 100 + "x" * 100,
    "\ud800 alone",
    "a\0b",
    "é" * 300,
    "日本語 と English",
    "no 3.",
    "A. one\nB) two (C) three D: four",
    "3.5 3. .5 12.75. 1 22 333 333 4444 99999",
    "Zz aab bccc  \t\r\n dd",
    "antidisestablishmentarianism " * 9,
    "word " * 40_000,
    "return " + "(" * 3000 + "1" * 3000,
]


@pytest.fixture(scope="module")
def pocket():
    return load("deployments/pocket/router").model


@pytest.fixture(scope="module")
def compiled(pocket):
    return Compiled(pocket)


def assert_same(model: Sufficiency, compiled: Compiled, text: str) -> None:
    for ours, theirs in zip(compiled.assess(text), model.assess(View([text])), strict=True):
        assert np.allclose(ours, theirs[0], rtol=1e-9, atol=1e-9), text[:80]


@pytest.mark.parametrize("text", HARD, ids=range(len(HARD)))
def test_hard_texts(pocket, compiled, text):
    assert_same(pocket, compiled, text)


@given(st.text(max_size=300) | st.text("aB1. \n(?é", max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_text(pocket, compiled, text):
    assert_same(pocket, compiled, text)


def test_a_model_that_knows_every_feature_and_costs():
    """The pocket router's prompts are short and similar; here every feature, several tiers and guessed costs matter."""
    random = np.random.default_rng(3)
    words = re.findall(r"\S+", " ".join(HARD[10:14])) + "why prove court price cell return force None".split()
    texts = [" ".join(random.choice(words, size=random.integers(1, 60))) for _ in range(300)]
    chance = np.stack([np.array([len(t) % 7 > k for t in texts], dtype=float) for k in range(4)], axis=1)
    costs = np.outer([len(t) + 1.0 for t in texts], [1e-6, 2e-6, 4e-6, 9e-6])
    model = Sufficiency(n_folds=2).fit(texts, chance, costs=costs)
    quick = Compiled(model)
    for text in (*texts[:60], *HARD):
        assert_same(model, quick, text)


def test_only_the_default_is_compiled_and_the_rest_still_decides():
    texts = [f"add {i} and {i % 7}" for i in range(60)]
    model = Sufficiency("length", n_folds=2).fit(texts, np.array([[i % 2, 1.0] for i in range(60)]))
    assert precompile(model) is False and model.assess_one(texts[0])[0].shape == (2,)
    with pytest.raises(TypeError, match="only Ensemble"):
        Compiled(model)


def test_compiling_changes_neither_what_is_said_nor_what_is_saved(pocket, tmp_path):
    artefact = load("deployments/pocket/router")
    before = artefact.guess_one(HARD[11])
    assert precompile(artefact.model) is True
    after = artefact.guess_one(HARD[11])
    assert all(np.allclose(a, b, atol=1e-9) for a, b in zip(before, after, strict=True))
    manifest = {"tiers": artefact.tiers, "costs": [*artefact.costs], "rules": {}}
    for name, model in (("plain", pocket), ("compiled", artefact.model)):
        save(tmp_path / name, model, manifest)
    assert (tmp_path / "plain/model.skops").read_bytes() == (tmp_path / "compiled/model.skops").read_bytes()
    artefact.model.fit([f"add {i}" for i in range(40)], np.array([[i % 2, 1.0, 1.0] for i in range(40)]))
    assert artefact.model.compiled is None  # it spoke for what was learned before


def test_a_process_of_its_own_compiles_and_this_one_takes_what_it_left(tmp_path):
    code = """if True:
        from classifiers import load
        from classifiers.fast import loops
        from classifiers.fast.precompile import compile_apart, is_kept, precompile
        folder = "deployments/pocket/router"
        assert not is_kept()
        compile_apart(folder)
        assert is_kept() and precompile(load(folder).model)
        assert sum(loops.assess.stats.cache_hits.values()) == 1 and not loops.assess.stats.cache_misses
    """
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


def test_a_machine_that_is_too_busy_to_compile_leaves_the_model_as_it_is(pocket, monkeypatch):
    monkeypatch.setattr(compiler, "LIMIT_S", 0.01)
    monkeypatch.setattr(compiler, "is_kept", lambda: False)
    assert precompile(pocket, "deployments/pocket/router") is False and pocket.compiled is None
