"""Fixtures of the learning commands' tests."""

import pytest
from outcome_rows import rows, write_jsonl


@pytest.fixture
def table(tmp_path):
    return write_jsonl(tmp_path / "outcomes.jsonl", rows())
