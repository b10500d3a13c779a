"""A migrated database of its own for each test."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from deployments.ledger import database
from router import config

sys.path.insert(0, str(Path(__file__).parents[1] / "ledger"))

from postgres import NotInstalled, postgres


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    monkeypatch.setenv("STEPDOWN_STATE_DIR", str(folder))
    return folder


def migrated(url: str) -> Engine:
    made = database.connect(config.Ledger(url=url))
    database.migrate(made)
    return made


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = migrated(f"sqlite:///{tmp_path / 'ledger.db'}?synchronous=NORMAL")
    yield made
    made.dispose()


@pytest.fixture(scope="session")
def learning_server() -> Iterator[Any]:
    try:
        with postgres() as running:
            yield running
    except NotInstalled as error:
        pytest.skip(str(error))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new, empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}?synchronous=NORMAL"
    return str(request.getfixturevalue("learning_server").database())


@pytest.fixture
def either(url: str) -> Iterator[Engine]:
    """As `engine`, once on each kind of database."""
    made = migrated(url)
    yield made
    made.dispose()
