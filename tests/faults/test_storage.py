"""What breaks beside the endpoint: the ledger's database, its disk, the artefact, the clock."""

import sqlite3
import time
from functools import partial
from pathlib import Path

import pytest
import waiting
import yaml
from click.testing import CliRunner
from endpoint import endpoint, ladder, words
from scripted_tier import Said
from sqlalchemy import event

from deployments.cli.main import main
from deployments.ledger import database, schema
from deployments.ledger.ledger import Ledger
from router.config import SHIPPED
from router.config import Ledger as Settings


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Locks are given up, and a lost database is asked again, after a tenth of a second."""
    monkeypatch.setattr(database, "BUSY_S", 0.1)
    monkeypatch.setattr("deployments.ledger.ledger.RETRY_MAX_S", 0.1)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "ledger.db"


until = partial(waiting.until, patience_s=20, every_s=0.02)


def locked(file) -> sqlite3.Connection:
    """Somebody else writes, and does not come to an end."""
    holder = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    return holder


def traces_of(it, n: int) -> list[str]:
    until(lambda: it.ledger.state == "ok" and not it.ledger.spooled)
    ids = [row["id"] for row in it.rows()]
    assert len(ids) == n == len(set(ids))
    return ids


@pytest.mark.slow
def test_the_ledger_is_down_and_requests_go_on_and_are_written_once_when_it_is_back(file):
    with endpoint(ladder(), Ledger(Settings(journal_s=0, url=f"sqlite:///{file}"))) as it:
        holder = locked(file)
        told = [it.ask(stream=stream).headers["x-stepdown-trace-id"] for stream in (False, True, False)]
        assert it.ledger.state == "spooling" and it.ask(stream=True).text.endswith("data: [DONE]\n\n")
        holder.execute("ROLLBACK")
        assert set(told) <= set(traces_of(it, 4))


@pytest.mark.slow
def test_the_ledger_is_down_and_the_configuration_says_refuse(file):
    with endpoint(ladder(), Ledger(Settings(journal_s=0, url=f"sqlite:///{file}", down="refuse"))) as it:
        holder = locked(file)
        answers = [it.ask() for _ in range(2)]  # the first was answered already when its rows could not be written
        assert {(a.status_code, a.json()["error"]["code"]) for a in answers} == {(503, "ledger_unavailable")}
        assert all(int(a.headers["retry-after"]) >= 1 for a in answers) and len(it.tiers["large"].bodies) == 1
        holder.execute("ROLLBACK")
        until(lambda: it.ask().status_code == 200)


@pytest.mark.slow
def test_the_disk_is_full_under_the_database_and_under_the_spool(file, monkeypatch):
    with endpoint(ladder(), Ledger(Settings(journal_s=0, url=f"sqlite:///{file}"))) as it:
        pages = [1]
        event.listen(it.ledger.engine, "begin", lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={pages[0]}"))
        until(lambda: it.ask().status_code == 200 and it.ledger.state == "spooling")
        assert "full" in it.ledger.store.why

        def no_room(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(it.ledger.store.spool, "append", no_room)
        for _ in range(2):  # nothing is answered that cannot be written down; the second is not even begun
            answer = it.ask()
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "ledger_unavailable")
        monkeypatch.undo()
        pages[0] = 1_000_000
        until(lambda: it.ledger.state == "ok")
        assert it.ask().status_code == 200


def spoilt(folder: Path, what: str) -> Path:
    """A copy of the shipped artefact with one thing wrong."""
    source = SHIPPED.parent / "pocket" / "router"
    folder.mkdir()
    for part in source.iterdir():
        (folder / part.name).write_bytes(part.read_bytes())
    if what == "cut off":
        model = max(folder.iterdir(), key=lambda p: p.stat().st_size)
        model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    elif what == "changed":
        model = max(folder.iterdir(), key=lambda p: p.stat().st_size)
        model.write_bytes(model.read_bytes()[:-1] + b"x")
    elif what == "no manifest":
        (folder / "manifest.json").write_text("{")
    return folder


@pytest.mark.parametrize(
    "what, names, told",
    [
        ("cut off", ("small", "medium", "large"), "artefact"),
        ("changed", ("small", "medium", "large"), "artefact"),
        ("no manifest", ("small", "medium", "large"), "artefact"),
        ("nothing", ("small", "middle", "large"), "tiers"),
        ("nothing", ("small", "large"), "tiers"),
        ("missing", ("small", "medium", "large"), "artefact"),
    ],
)
def test_an_artefact_that_is_corrupt_or_of_another_ladder_stops_the_start_with_one_line(tmp_path, what, names, told):
    artefact = tmp_path / "none" if what == "missing" else spoilt(tmp_path / "router", what)
    price = {n: {"usd_per_1m_input": i + 1.0, "usd_per_1m_output": i + 1.0} for i, n in enumerate(names)}
    tiers = [{"name": n, "engine": "echo", "context": 1000, "price": price[n]} for n in names]
    config = tmp_path / "ladder.yaml"
    config.write_text(yaml.safe_dump({"tiers": tiers, "routing": {"artefact": str(artefact)}}))
    result = CliRunner().invoke(main, ["check", str(config)])
    assert result.exit_code == 2, result.output
    said = result.output.strip().splitlines()
    assert len(said) == 1 and "routing.artefact" in said[0] and told in said[0] and "Traceback" not in said[0]


@pytest.mark.slow
@pytest.mark.parametrize("jump_s", [-7_200.0, 7_200.0])
def test_the_clock_jumps_in_mid_request_and_while_the_ledger_is_away(file, monkeypatch, jump_s):
    real, jumped = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + jumped[0])

    def jumping(body):
        jumped[0] = jump_s
        return Said("four five", wait_s=0.05) if body["model"] == "large" else words(body)

    ledger = Ledger(Settings(journal_s=0, url=f"sqlite:///{file}"))
    with endpoint(ladder(server={"request_timeout_s": 20}), ledger, large=jumping) as it:
        assert it.ask(stream=True).text.endswith("data: [DONE]\n\n")
        holder = locked(file)
        assert it.ask().status_code == 200 and it.ledger.state == "spooling"
        jumped[0] = -jump_s
        assert it.ask().status_code == 200 and it.ledger.state == "spooling"  # spool_max_s is not over
        holder.execute("ROLLBACK")
        traces_of(it, 3)
        for row in [*it.rows(), *it.rows(schema.calls)]:
            assert 0.04 <= row["took_s"] < 15, row
