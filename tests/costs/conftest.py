"""The helpers are importable because this folder is put on the path."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import traffic
from traffic import NOW


@pytest.fixture(scope="session")
def settings():
    router = Path(__file__).parents[2] / "deployments" / "pocket" / "router"
    return traffic.ladder(routing={"artefact": str(router)}, escalation={"mode": "buffer"})


@pytest.fixture(scope="session")
def rows():
    return traffic.traffic(400, NOW - 4 * 86400, NOW)


@pytest.fixture(scope="session")
def engine(rows, tmp_path_factory):
    engine = traffic.database(tmp_path_factory.mktemp("costs"), rows)
    traffic.add_keys(engine, {"app": "Web app", "batch": "Nightly batch", "docs": "Docs search"}, NOW)
    yield engine
    engine.dispose()
