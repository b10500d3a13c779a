"""Nothing that was made before the rooms breaks: an artefact, a ledger and a configuration of that time; see their README."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from classifiers import load
from classifiers.replies.signals import Evidence
from deployments.cli.main import main
from deployments.keys import key_store
from deployments.ledger.database import connect, migrate
from deployments.ledger.ledger import Ledger
from deployments.ledger.schema import budgets, reservations
from router import config
from router.config import load_config
from router.decide.promises import Promises

MADE = Path(__file__).parent / "made_before_rooms"


def expected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((MADE / f"expected_{name}.json").read_text("utf-8"))
    return found


def assert_holds(found: Any, recorded: Any, where: str = "") -> None:
    """What was recorded is still there with the same value; what was added since may stand beside it."""
    if isinstance(recorded, dict):
        for key, value in recorded.items():
            assert key in found, f"{where}/{key} is gone"
            assert_holds(found[key], value, f"{where}/{key}")
    elif isinstance(recorded, list):
        assert len(found) == len(recorded), where
        for i, (one, other) in enumerate(zip(found, recorded, strict=True)):
            assert_holds(one, other, f"{where}/{i}")
    elif isinstance(recorded, float):
        assert found == pytest.approx(recorded, rel=1e-6, abs=1e-9), where
    else:
        assert found == recorded, where


# -- the artefact ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def artefact():
    return load(MADE / "artefact", ["small", "medium", "large"])


def test_the_artefact_has_its_rules_and_certificates(artefact):
    found = {
        "tiers": artefact.tiers,
        "costs": artefact.costs.tolist(),
        "rules": {name: rule.to_dict() for name, rule in artefact.rules.items()},
        "cascades": {name: rule.to_dict() for name, rule in artefact.cascades.items()},
        "certificates": artefact.manifest["certificates"],
    }
    recorded = expected("artefact")
    assert_holds(found, {name: recorded[name] for name in found})


def test_the_artefact_gives_the_same_chances(artefact):
    recorded = expected("artefact")
    kinds = {name: Evidence(**{**given, "logprobs": tuple(given["logprobs"])}) for name, given in recorded["evidence"].items()}
    for row in recorded["prompts"]:
        p, cost, unfamiliar = artefact.guess_one(row["prompt"])
        after = {name: [artefact.posterior.chance(k, p, evidence) for k in range(2)] for name, evidence in kinds.items()}
        found = {"p": p.tolist(), "cost": cost.tolist(), "unfamiliar": float(unfamiliar), "chances_after": after}
        assert_holds(found, {name: row[name] for name in found}, row["prompt"][:40])


def test_its_certificates_are_still_valid(artefact):
    promises = Promises(artefact, config.Escalation(mode="holdback", holdback_tokens=artefact.posterior.prefix), {})
    found = {f"{target}{':stream' * stream}": promises.state(target, stream) for target in artefact.cascades for stream in (0, 1)}
    assert found == expected("artefact")["states"]


# -- the ledger --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path):
    """A copy, since reading makes files beside it."""
    shutil.copy(MADE / "ledger.db", tmp_path / "ledger.db")
    return tmp_path / "ledger.db"


def stepdown(*words: str) -> str:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def costs(file: Path, *words: str) -> str:
    when = ("--since", expected("ledger")["since"], "--until", expected("ledger")["until"])
    return stepdown("costs", "--config", str(MADE / "costs.yaml"), "--ledger", f"sqlite:///{file}", *when, *words)


def exported(file: Path) -> list[dict[str, Any]]:
    costs(file, "--export", str(file.with_name("log.jsonl")))
    return [json.loads(line) for line in file.with_name("log.jsonl").read_text("utf-8").splitlines()]


def recorded_log() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (MADE / "expected_log.jsonl").read_text("utf-8").splitlines()]


def test_the_ledgers_sums_are_reported_as_they_were(ledger):
    assert_holds(json.loads(costs(ledger, "--json")), expected("ledger")["report"])


def test_the_ledgers_requests_are_read_as_they_were(ledger):
    assert_holds(exported(ledger), recorded_log())


def test_the_ledgers_keys_and_budgets_are_read_as_they_were(ledger):
    recorded = expected("ledger")
    engine = connect(config.Ledger(url=f"sqlite:///{ledger}"))
    migrate(engine)
    for stored, told in zip(key_store.read_keys(engine), recorded["keys"], strict=True):
        assert (stored.hash, stored.created_s, stored.revoked_s) == (told["hash"], told["created_s"], told["revoked_s"])
        for name in told.keys() & {*stored.key.__slots__}:
            value = getattr(stored.key, name)
            assert (sorted(value) if isinstance(value, frozenset) else value) == told[name], name
    with engine.connect() as connection:
        for table in (budgets, reservations):
            rows = [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()]
            assert_holds(rows, recorded[table.name])


def test_rows_that_a_killed_process_left_in_the_spool_are_written(ledger):
    spool = ledger.with_name("ledger.db.spool")
    spool.mkdir()
    shutil.copy(MADE / "spool.jsonl", spool / "rows-1-00000000.jsonl")

    async def open_and_close() -> None:
        opened = Ledger(config.Ledger(url=f"sqlite:///{ledger}", keep_days=None))
        await opened.open()
        async with asyncio.timeout(20):
            while list(spool.glob("rows-1-*.jsonl")):
                await asyncio.sleep(0.01)
        await opened.close()

    asyncio.run(open_and_close())
    (left,) = (json.loads(line) for line in (MADE / "spool.jsonl").read_text("utf-8").splitlines())
    found = exported(ledger)
    assert_holds(found[:-1], recorded_log())
    assert_holds(found[-1], {**left["traces"][0], "p": json.loads(left["traces"][0]["p"]), "calls": left["calls"]})


# -- the configuration ---------------------------------------------------------------------------------------------------------


def test_the_configuration_has_the_same_settings():
    text = json.dumps(load_config(MADE / "ladder.yaml").model_dump(mode="json")).replace(str(MADE.resolve()), "MADE")
    assert_holds(json.loads(text), expected("ladder"))
