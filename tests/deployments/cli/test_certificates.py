"""stepdown certificates: what audits found, and lifting a retirement."""

import json

import pytest
import yaml
from click.testing import CliRunner

from deployments.cli.main import main
from deployments.ledger import certificate_audits
from deployments.ledger.database import connect, migrate, writing
from router import config
from router.decide.drift import Audited

pytestmark = pytest.mark.slow


@pytest.fixture
def ladder(tmp_path):
    price = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}
    tier = {"name": "small", "engine": "echo", "context": 512, "price": price}
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    (tmp_path / "ladder.yaml").write_text(yaml.safe_dump({"tiers": [tier], "ledger": {"url": url}}))
    return tmp_path / "ladder.yaml"


def stepdown(*words, code=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def test_a_retired_certificate_is_listed_and_lifted(ladder):
    assert "no certificate was audited yet" in stepdown("certificates", "list", "--config", ladder)
    engine = connect(config.load_config(ladder).ledger)
    migrate(engine)
    with writing(engine) as connection:
        certificate_audits.add(connection, "abc", "balanced", lambda before: Audited(7, 5, "2026-11-30: 5 of 7 differed"))
    shown = stepdown("certificates", "list", "--config", ladder)
    assert "abc" in shown and "balanced" in shown and "5 of 7 differed" in shown
    (row,) = json.loads(stepdown("certificates", "list", "--config", ladder, "--json"))
    assert (row["audits"], row["errors"]) == (7, 5)
    assert "lifted" in stepdown("certificates", "lift", "abc", "--config", ladder)
    assert "no audited certificate 'abc'" in stepdown("certificates", "lift", "abc", "--config", ladder, code=2)
    engine.dispose()
