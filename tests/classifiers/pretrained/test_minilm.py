"""Sentence embeddings in numpy: equal to the original, and a clear error if the extra is not installed."""

import numpy as np
import pytest

from classifiers.errors import MissingExtra
from classifiers.models.embedded import Embedded
from classifiers.pretrained import minilm

pytestmark = pytest.mark.slow

needs_extra = pytest.mark.skipif(not minilm.available(), reason="the extra `embed` is not installed")


def test_without_the_extra_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    minilm.encoder.cache_clear()
    with pytest.raises(MissingExtra, match=r"stepdown\[embed\]"):
        Embedded().fit(["a", "b"], np.array([[0.0], [1.0]]))


@needs_extra
def test_equal_to_the_original():
    found = minilm.encoder().compute(["hello world", "How many apples does Tom have? " * 30])
    # From transformers 5.23 with torch 2.13: mean of the last hidden state, scaled to length 1.
    assert np.allclose(found[0, :4], [-0.03447729, 0.03102318, 0.00673497, 0.02610903], atol=1e-5)
    assert np.allclose(found[1, :4], [0.0421343, 0.04276246, 0.00659136, -0.02875148], atol=1e-5)


@needs_extra
def test_order_and_company_of_texts_do_not_matter():
    texts = ["short", "a much longer text " * 20, "", "prove it"]
    together = minilm.encoder().compute(texts)
    assert np.allclose(together, np.concatenate([minilm.encoder().compute([t]) for t in texts]), atol=1e-5)
