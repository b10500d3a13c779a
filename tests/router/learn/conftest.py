"""Fixtures of the learning tests; the helpers are importable because this folder is put on the path."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from outcome_rows import rows, write_jsonl


@pytest.fixture
def table(tmp_path):
    return write_jsonl(tmp_path / "outcomes.jsonl", rows())
