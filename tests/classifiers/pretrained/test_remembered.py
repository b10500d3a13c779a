"""A slow function is called once for each text; the oldest texts leave the cache first."""

import numpy as np

from classifiers.pretrained import remembered
from classifiers.pretrained.remembered import Remembered


def lengths(asked):
    def compute(texts):
        asked.append(list(texts))
        return np.array([[len(text), 1] for text in texts], dtype=np.float32)

    return Remembered(compute, 2)


def test_a_text_is_computed_once_and_rows_keep_their_order():
    asked = []
    known = lengths(asked)
    assert known(["a", "bbb", "a"]).tolist() == [[1, 1], [3, 1], [1, 1]]
    assert known(["cc", "bbb"]).tolist() == [[2, 1], [3, 1]]
    assert asked == [["a", "bbb"], ["cc"]]


def test_no_texts_give_no_rows():
    assert lengths([])([]).shape == (0, 2)


def test_the_oldest_go_first(monkeypatch):
    monkeypatch.setattr(remembered, "MOST", 2)
    asked = []
    known = lengths(asked)
    for text in ("a", "bb", "ccc", "bb", "a"):
        known([text])
    assert asked == [["a"], ["bb"], ["ccc"], ["a"]]


def test_more_than_it_remembers_is_still_answered(monkeypatch):
    monkeypatch.setattr(remembered, "MOST", 2)
    assert len(lengths([])([str(10**i) for i in range(9)])) == 9
