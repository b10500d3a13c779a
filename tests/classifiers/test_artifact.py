"""An artefact is refused where it does not fit, and the same content gives the same bytes."""

import hashlib
import json

import numpy as np
import pytest
import skops.io

from classifiers import BadArtifact, Rule, Sufficiency, load, save
from classifiers.artifact import LOADABLE, rebuild
from classifiers.inputs import FEATURE_NAMES
from classifiers.models.length import LengthRule

TEXTS = [f"add {i} and {i * 7}" if i % 2 else f"prove that {i} is prime because of theorem {i}" for i in range(60)]
Y = np.array([[i % 2, 1.0 - (i % 7 == 0)] for i in range(60)], dtype=float)
MANIFEST = {
    "tiers": ["small", "large"],
    "costs": [0.1, 1.0],
    "rules": {"balanced": Rule("utility", 0.2).to_dict(), "cheap": Rule("tier", 0, 0.1, 0.8, 0.7).to_dict()},
}


@pytest.fixture(scope="module")
def model():
    return Sufficiency("ensemble", n_folds=2).fit(TEXTS, Y)


@pytest.fixture
def folder(tmp_path, model):
    save(tmp_path / "artefact", model, MANIFEST)
    return tmp_path / "artefact"


def test_comes_back_whole(folder, model):
    artifact = load(folder, ["small", "large"])
    assert artifact.tiers == ["small", "large"]
    assert {name: rule.value for name, rule in artifact.rules.items()} == {"balanced": 0.2, "cheap": 0}
    assert artifact.rules["cheap"].expected_quality == 0.8
    assert np.array_equal(artifact.guess(TEXTS).p, model.predict_proba(TEXTS))
    assert np.allclose(artifact.predict_one(TEXTS[3]), artifact.guess(TEXTS).p[3], atol=1e-9)


@pytest.mark.slow
def test_same_data_gives_the_same_bytes(folder, tmp_path):
    save(tmp_path / "again", Sufficiency("ensemble", n_folds=2).fit(TEXTS, Y), MANIFEST)
    for name in ("model.skops", "manifest.json"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_needs_no_trust(folder):
    assert skops.io.get_untrusted_types(file=folder / "model.skops") == []


def test_holds_no_class_but_this_packages_classifiers(model):
    class Foreign(LengthRule):
        pass

    names = "Boosted Embedded EmbeddedForest Ensemble HandLinear JointLinear LengthRule Neighbours NgramLinear RandomForest"
    assert sorted(LOADABLE) == sorted([*names.split(), "Read", "ReadForest", "ReadLinear", "Sufficiency"])
    for name in ("Foreign", "Classifier", None):
        with pytest.raises(BadArtifact, match=f"unknown classifier {name!r}"):
            rebuild({**model.state(), "class": name})


def test_replaces_an_older_one_whole(folder, model):
    (folder / "left over").write_text("x")
    save(folder, model, MANIFEST)
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "model.skops"]
    assert [p.name for p in folder.parent.iterdir()] == ["artefact"]


def change(folder, **values):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **values}))


@pytest.mark.parametrize(
    "values, said",
    [
        ({"format": 99}, "format 99"),
        ({"scikit_learn": "0.1.2"}, "trained with scikit-learn 0.1.2, here is"),
        ({"model_sha256": "feed"}, "the manifest says feed"),
        ({"inputs": {"features": FEATURE_NAMES[1:]}}, f"expected {FEATURE_NAMES[0]}; train again"),
        ({"inputs": {"features": ["poems", *FEATURE_NAMES[:0:-1]]}}, f"found poems, expected {FEATURE_NAMES[0]}; train again"),
        ({"inputs": {"features": FEATURE_NAMES[::-1]}}, "other features .* in another order; train again"),
        ({"inputs": {"features": [*FEATURE_NAMES[:-1], "negation#00000000"]}}, "found negation#00000000, expected negation#"),
        ({"inputs": None}, "its inputs are None, expected names of features; train again"),
        ({"tiers": ["small", "huge"]}, r"trained for tiers \['small', 'huge'\], asked for \['small', 'large'\]"),
    ],
)
def test_refuses_what_does_not_fit_with_both_values(folder, values, said):
    change(folder, **values)
    with pytest.raises(BadArtifact, match=said):
        load(folder, ["small", "large"])


def test_refuses_other_order_of_tiers(folder):
    with pytest.raises(BadArtifact, match="train again"):
        load(folder, ["large", "small"])


def test_refuses_a_changed_model(folder):
    data = bytearray((folder / "model.skops").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.skops").write_bytes(data)
    with pytest.raises(BadArtifact, match="sha256"):
        load(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_refuses_a_manifest_that_is_none(folder, content):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(BadArtifact):
        load(folder)


def test_says_what_to_do_where_there_is_none(tmp_path):
    with pytest.raises(BadArtifact, match="stepdown train"):
        load(tmp_path / "nothing")


def test_older_formats_that_named_no_inputs_are_read_where_the_sizes_fit(folder, model):
    change(folder, format=4, inputs=None)
    assert np.array_equal(load(folder).guess(TEXTS[:3]).p, model.predict_proba(TEXTS[:3]))
    state = skops.io.load(folder / "model.skops", trusted=[])
    state["learned"]["cost_"]["coef"] = state["learned"]["cost_"]["coef"][1:]
    skops.io.dump(state, folder / "model.skops")
    change(folder, model_sha256=hashlib.sha256((folder / "model.skops").read_bytes()).hexdigest())
    with pytest.raises(BadArtifact, match=f"made for {len(FEATURE_NAMES) - 1} features, this version has {len(FEATURE_NAMES)}"):
        load(folder)
