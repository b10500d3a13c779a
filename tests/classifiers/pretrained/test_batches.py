"""Lists of similar length share a batch, every row returns to its place, and no batch is too large."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifiers.pretrained.batches import batched, run


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 200))
def test_every_list_is_in_one_batch_that_fits(lengths, most):
    groups = batched(lengths, most)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert all(len(group) == 1 or len(group) * max(lengths[i] for i in group) <= most for group in groups)


def test_rows_come_back_to_their_places_and_an_empty_list_is_zeros():
    ids = [[3, 1], [], [5] * 9, [2], [7, 7, 7]]
    found = run(ids, 2, 6, lambda lists: np.array([[sum(row), len(row)] for row in lists], dtype=np.float32))
    assert found.tolist() == [[4, 2], [0, 0], [45, 9], [2, 1], [21, 3]]


def test_a_failure_in_a_batch_is_raised():
    def forward(lists):
        raise MemoryError("too long")

    with pytest.raises(MemoryError):
        run([[1], [2, 2]], 1, 1, forward)
