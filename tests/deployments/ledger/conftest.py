"""Each test of the ledger runs on SQLite and on a real PostgreSQL, one for the session."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from postgres import NotInstalled, Postgres, postgres

from deployments.ledger import database


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    try:
        with postgres() as running:
            yield running
    except NotInstalled as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The spool of a PostgreSQL ledger lies in the state folder."""
    folder = tmp_path / "state"
    monkeypatch.setenv("STEPDOWN_STATE_DIR", str(folder))
    return folder


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new, empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    return str(request.getfixturevalue("server").database())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks are given up, and a lost database is asked again, after a tenth of a second."""
    monkeypatch.setattr(database, "BUSY_S", 0.1)
    monkeypatch.setattr("deployments.ledger.ledger.RETRY_MAX_S", 0.1)
