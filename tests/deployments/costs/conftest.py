"""The helpers are importable because this folder is put on the path."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import sample_traffic
from chromium import PROGRAMS, Browser
from sample_traffic import NOW


@pytest.fixture(scope="session")
def settings():
    router = Path(__file__).parents[3] / "deployments" / "pocket" / "router"
    return sample_traffic.ladder(routing={"artefact": str(router)}, escalation={"mode": "buffer"})


@pytest.fixture(scope="session")
def rows():
    return sample_traffic.traffic(400, NOW - 4 * 86400, NOW)


@pytest.fixture(scope="session")
def engine(rows, tmp_path_factory):
    engine = sample_traffic.database(tmp_path_factory.mktemp("costs"), rows)
    sample_traffic.add_keys(engine, {"app": "Web app", "batch": "Nightly batch", "docs": "Docs search"}, NOW)
    yield engine
    engine.dispose()


@pytest.fixture
def browser():
    if None in PROGRAMS:
        pytest.skip("Chromium and its driver are not installed; apt install chromium chromium-driver")
    found = Browser()
    yield found
    complaints = [entry for entry in found.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    found.driver.quit()
    assert complaints == []
