"""A migrated database of its own for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from deployments.ledger import database
from router import config


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("STEPDOWN_STATE_DIR", str(folder))
    return folder


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = database.connect(config.Ledger(url=f"sqlite:///{tmp_path / 'ledger.db'}?synchronous=NORMAL"))
    database.migrate(made)
    yield made
    made.dispose()
