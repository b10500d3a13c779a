"""Predictions by numpy equal scikit-learn's to 1e-6."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from classifiers.models.linear import JointLinear, NgramLinear
from classifiers.models.trees import average_forest, flatten, walk, walk_average
from classifiers.text.rarity import WordWeights
from classifiers.text.view import View

TEXTS = [f"add {i} and {i * 7} then {'sort' if i % 3 else 'prove'} the list {i % 5}" for i in range(90)]


@pytest.fixture(scope="module")
def numbers():
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 7)).astype(np.float32)
    y = np.stack([x[:, 0] + x[:, 1] * x[:, 2] > 0, x[:, 3] > 0.2], axis=1).astype(float)
    return x, y


@pytest.mark.slow
def test_boosted_trees(numbers):
    x, y = numbers
    models = [HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(x, y[:, k]) for k in range(2)]
    ours = walk(flatten([*models, None], [0, 0, 1.5]), x.astype(float))
    theirs = np.stack([model.decision_function(x) for model in models], axis=1)
    assert np.allclose(ours[:, :2], theirs, atol=1e-6)
    assert (ours[:, 2] == 1.5).all()


def test_averaged_forest(numbers):
    x, y = numbers
    model = ExtraTreesRegressor(15, min_samples_leaf=3, random_state=0).fit(x, y)
    assert np.allclose(walk_average(average_forest(model, 2), x), model.predict(x), atol=1e-6)


@pytest.mark.parametrize("kind", [NgramLinear, JointLinear])
def test_logistic_regression(kind):
    y = np.array([[float("sort" in t)] for t in TEXTS])
    y[::9] = 1 - y[::9]
    view = View(TEXTS)
    model = kind().fit(view, y)
    words = WordWeights(**model.words_)
    x = words.matrix(view.words)
    if kind is JointLinear:
        x = sparse.hstack([x, sparse.csr_matrix(model._scaled(view.hand))]).tocsr()
    theirs = LogisticRegression(C=model.strength, max_iter=300, tol=1e-4).fit(x, y[:, 0])
    ours = 1 / (1 + np.exp(-model.logits(view)[:, 0]))
    assert np.allclose(ours, theirs.predict_proba(x)[:, 1], atol=1e-6)
