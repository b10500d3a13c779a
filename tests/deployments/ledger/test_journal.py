"""SQLite's rows are durable in the spool before they are in the tables, where they come soon, many at a time."""

import asyncio
import logging
from pathlib import Path

import pytest
from made import assert_sums, count, opened, rows_of, trace, until
from sqlalchemy import event

from deployments.ledger.database import writing
from deployments.ledger.ledger import Ledger
from deployments.ledger.rows import from_line
from deployments.ledger.schema import calls, traces

pytestmark = pytest.mark.usefixtures("quick")
LONG = 60.0  # until rows go into the tables by themselves


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


def journal(ledger: Ledger) -> list[str]:
    """Ids of the traces in the spool's files, as another process would find them."""
    lines = [line for file in ledger.store.spool.folder.glob("rows-*") for line in file.read_bytes().splitlines(keepends=True)]
    return [row["id"] for line in lines for row in from_line(line).traces]


async def rested(ledger: Ledger) -> None:
    """What a start looks for is found."""
    await ledger.record(trace("first"))
    await ledger.settled()
    await asyncio.sleep(0.2)


@pytest.mark.slow
def test_a_row_is_in_the_spool_when_it_is_acknowledged_and_in_the_tables_soon(url: str) -> None:
    async def go() -> None:
        async with opened(url, journal_s=LONG) as ledger:
            await rested(ledger)
            await asyncio.gather(*(ledger.record(trace(f"t{n}", n_calls=2)) for n in range(30)))
            assert sorted(journal(ledger)) == sorted(f"t{n}" for n in range(30))
            assert (ledger.state, ledger.spooled, count(ledger.engine, traces)) == ("ok", 90, 1)
            await ledger.settled()
            assert (journal(ledger), ledger.spooled, count(ledger.engine, calls)) == ([], 0, 61)
            assert_sums(ledger.engine)
        async with opened(url, journal_s=0.01) as ledger:
            await ledger.record(trace("later"))
            await until(lambda: count(ledger.engine, traces) == 32)

    asyncio.run(go())


@pytest.mark.slow
def test_many_rows_share_a_transaction(url: str) -> None:
    async def go() -> None:
        async with opened(url, journal_s=LONG) as ledger:
            commits: list[object] = []
            event.listen(ledger.engine, "commit", commits.append)
            for n in range(50):
                await ledger.record(trace(f"t{n}"))
            await ledger.settled()
            assert count(ledger.engine, traces) == 50
            assert len(commits) < 10

    asyncio.run(go())


def test_a_row_that_settles_a_budget_is_in_the_tables_at_once(url: str) -> None:
    async def go() -> None:
        async with opened(url, journal_s=LONG) as ledger:
            await ledger.record(trace("t1"), now=True)
            assert (count(ledger.engine, traces), ledger.spooled) == (1, 0)

    asyncio.run(go())


@pytest.mark.slow
def test_what_waits_is_written_at_the_end(url: str) -> None:
    async def go() -> None:
        async with opened(url, journal_s=LONG) as ledger:
            await rested(ledger)
            await ledger.record(trace("t1"))
            assert count(ledger.engine, traces) == 1
        assert count(ledger.engine, traces) == 2
        assert not journal(ledger)

    asyncio.run(go())


def test_a_measurement_finds_its_call_that_waits(url: str) -> None:
    async def go() -> None:
        async with opened(url, journal_s=LONG) as ledger:
            await ledger.record(trace("t1"))
            await ledger.readings({"t1/0": (1.5, None)})
            await ledger.settled()
            assert [row["busy_s"] for row in rows_of(ledger.engine, calls)] == [1.5]
            assert_sums(ledger.engine)

    asyncio.run(go())


def test_where_the_spool_fails_rows_go_straight_into_the_tables(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        async with opened(url, journal_s=LONG, spool_max_bytes=10) as ledger:
            with caplog.at_level(logging.WARNING):
                await ledger.record(trace("t1"))
            assert (ledger.state, count(ledger.engine, traces)) == ("ok", 1)
            assert "spool_max_bytes allows 10" in caplog.text

    asyncio.run(go())


def test_a_database_that_takes_no_rows_is_found_out_when_they_are_to_go_there(url: str) -> None:
    async def go() -> None:
        async with opened(url, journal_s=0.01) as ledger:
            await ledger.record(trace("t0"))
            await ledger.settled()
            with writing(ledger.engine):
                await ledger.record(trace("t1"))
                await until(lambda: ledger.state == "spooling")
                await ledger.record(trace("t2"))
                await ledger.settled()  # does not wait for a database that is down
                assert ledger.spooled == 4
            await until(lambda: ledger.state == "ok" and not ledger.spooled)
            assert sorted(row["id"] for row in rows_of(ledger.engine, traces)) == ["t0", "t1", "t2"]
            assert_sums(ledger.engine)

    asyncio.run(go())


@pytest.mark.slow
def test_refuse_refuses_once_it_is_found_out(url: str) -> None:
    async def go() -> None:
        async with opened(url, journal_s=0.01, down="refuse") as ledger:
            with writing(ledger.engine):
                await ledger.record(trace("t1"))
                await until(lambda: ledger.state == "down")
            await until(lambda: ledger.state == "ok" and count(ledger.engine, traces) == 1)

    asyncio.run(go())
