"""PostgreSQL gives the figures that SQLite gives."""

import sys
from pathlib import Path

import pytest
from sample_traffic import NOW

sys.path.insert(0, str(Path(__file__).parents[1] / "ledger"))

from postgres import NotInstalled, postgres

from deployments.costs.decisions import recent, trace
from deployments.costs.report import report
from deployments.ledger.database import connect, migrate, writing
from deployments.ledger.writes import write
from router import config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def other(rows):
    try:
        with postgres() as running:
            engine = connect(config.Ledger(url=str(running.database())))
            migrate(engine)
            with writing(engine) as connection:
                write(connection, rows)
            yield engine
            engine.dispose()
    except NotInstalled as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("days, key, tier", [(1, None, None), (4, None, None), (4, "app", None), (3, None, "large")])
def test_same_figures_on_both(engine, other, settings, days, key, tier):
    left = {"keys", "budgets"}  # written on one side only
    found = [report(each, settings, NOW - days * 86400, NOW, key, tier) for each in (engine, other)]
    for part in found:
        for row in part["by"]["key"]:
            row["name"] = ""
    assert {k: v for k, v in found[0].items() if k not in left} == {k: v for k, v in found[1].items() if k not in left}


def test_same_decisions_on_both(engine, other):
    pages = [recent(each, 50, tier="medium") for each in (engine, other)]
    assert pages[0] == pages[1]
    assert trace(engine, pages[0][0]["id"]) == trace(other, pages[0][0]["id"])
