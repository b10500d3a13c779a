"""The database goes away and comes back; disks fill up; some rows no database takes."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made import assert_sums, call, count, opened, rows_of, trace, until
from postgres import Postgres
from sqlalchemy import event

from deployments.ledger.database import writing
from deployments.ledger.ledger import Ledger
from deployments.ledger.schema import calls, traces
from router import config
from router.errors import LedgerDown

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.slow
def test_postgresql_is_stopped_and_started_in_mid_traffic(server: Postgres) -> None:
    url, stop = server.database(), asyncio.Event()

    async def requests(ledger: Ledger, name: str) -> list[str]:
        ids = []
        while not stop.is_set():
            ids.append(f"{name}-{len(ids)}")
            ledger.check()
            await ledger.record(trace(ids[-1]))
            await ledger.readings({f"{ids[-1]}/0": (1.0, None)})
            await asyncio.sleep(0.002)
        return ids

    async def go() -> None:
        async with opened(url) as ledger:
            tasks = [asyncio.create_task(requests(ledger, f"r{n}")) for n in range(8)]
            for how in ("immediate", "fast"):
                await asyncio.sleep(0.3)
                await asyncio.to_thread(server.stop, how)
                await until(lambda: ledger.state == "spooling" and ledger.spooled > 20)
                await asyncio.to_thread(server.start)
                await until(lambda: ledger.state == "ok" and ledger.spooled == 0)
            stop.set()
            ids = [id for task in tasks for id in await task]
            await until(lambda: ledger.spooled == 0)
            await ledger.record(trace("last"))
            await asyncio.to_thread(ledger.store.retry_late)
            assert sorted(row["id"] for row in rows_of(ledger.engine, traces)) == sorted([*ids, "last"])
            assert {row["busy_s"] for row in rows_of(ledger.engine, calls) if row["trace_id"] != "last"} == {1.0}
            assert_sums(ledger.engine)

    asyncio.run(go())


def test_a_server_that_is_down_at_the_start_is_waited_for(tmp_path: Path) -> None:
    url = f"postgresql+psycopg://postgres@/ledger?host={tmp_path}"

    async def go() -> None:
        async with opened(url) as ledger:
            await ledger.record(trace("t1", n_calls=2))
            assert (ledger.state, ledger.spooled) == ("spooling", 3)
        async with opened(url, down="refuse") as ledger:
            with pytest.raises(LedgerDown):
                ledger.check()
            with pytest.raises(LedgerDown) as caught:
                await ledger.record(trace("t1"))
            assert (ledger.state, caught.value.status, caught.value.retry_after_s) == ("down", 503, 10.0)

    asyncio.run(go())


def test_a_file_that_is_locked_for_long_is_a_database_that_is_down(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"

    async def go() -> None:
        async with opened(url) as ledger:
            with writing(ledger.engine):
                await ledger.record(trace("t1"))
                await ledger.readings({"t1/0": (1.0, None)})
                assert (ledger.state, ledger.spooled) == ("spooling", 3)
                ledger.check()
            await until(lambda: ledger.state == "ok" and not ledger.spooled)
            assert [row["busy_s"] for row in rows_of(ledger.engine, calls)] == [1.0]
            assert_sums(ledger.engine)

    asyncio.run(go())


@pytest.mark.slow
def test_a_process_drains_what_another_left_behind(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"

    async def go() -> None:
        async with opened(url) as ledger:
            with writing(ledger.engine):
                await ledger.record(trace("t1"))
                await ledger.close()
            assert ledger.spooled == 2
        async with opened(url) as ledger:
            await until(lambda: count(ledger.engine, traces) == 1)
            await until(lambda: not list(ledger.store.spool.folder.glob("rows-*")))

    asyncio.run(go())


def test_the_spool_is_bounded_by_age_and_size(tmp_path: Path) -> None:
    url, now = f"sqlite:///{tmp_path / 'ledger.db'}", [2e9]

    async def go() -> None:
        settings = config.Ledger(url=url, journal_s=0, spool_max_s=60, spool_max_bytes=5000, keep_days=None)
        ledger = Ledger(settings, ticks=lambda: now[0])
        await ledger.open()
        with writing(ledger.engine):
            await ledger.record(trace("t0"))
            ledger.check()
            now[0] += 61
            with pytest.raises(LedgerDown, match="for 61 s, spool_max_s allows 60"):
                ledger.check()
            await ledger.record(trace("t1"))  # it had begun before
            now[0] -= 61
            with pytest.raises(LedgerDown, match="spool_max_bytes allows 5000"):
                for n in range(2, 20):
                    await ledger.record(trace(f"t{n}"))
            assert ledger.state == "down"
            assert ledger.store.spool.size <= 5000
        await until(lambda: ledger.state == "ok" and not ledger.spooled)
        ledger.check()
        assert count(ledger.engine, traces) == n_before_full(ledger)
        await ledger.close()

    asyncio.run(go())


def n_before_full(ledger: Ledger) -> int:
    """They were kept in order, without a gap."""
    ids = sorted(int(row["id"][1:]) for row in rows_of(ledger.engine, traces))
    assert ids == list(range(len(ids)))
    return len(ids)


@pytest.mark.slow
def test_a_full_database_is_one_that_is_down(tmp_path: Path) -> None:
    """SQLite's own error of a full disk, brought about by a limit of pages."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    pages = [1_000_000]

    async def go() -> None:
        async with opened(url) as ledger:
            event.listen(ledger.engine, "begin", lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={pages[0]}"))
            pages[0] = 1
            for n in range(40):
                await ledger.record(trace(f"t{n}", error="x" * 60))
            assert "full" in ledger.store.why
            assert ledger.state == "spooling"
            pages[0] = 1_000_000
            await until(lambda: ledger.state == "ok" and not ledger.spooled)
            assert count(ledger.engine, traces) == 40
            assert_sums(ledger.engine)

    asyncio.run(go())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True).returncode
    ):
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_under_the_spool_refuses_until_there_is_room(tmp_path: Path, small_disk: Path) -> None:
    """A real file system of 64 KiB; the rows that were acknowledged are drained, those that were refused are not."""
    url, kept = f"sqlite:///{tmp_path / 'ledger.db'}", []

    async def go() -> None:
        async with opened(url) as ledger:
            ledger.store.spool.folder = small_disk
            with writing(ledger.engine):
                with pytest.raises(LedgerDown, match="No space left"):
                    for n in range(1000):
                        await ledger.record(trace(f"t{n}", error="x" * 60))
                        kept.append(f"t{n}")
                assert ledger.state == "down"
            await until(lambda: ledger.state == "ok" and not ledger.spooled)
            assert sorted(row["id"] for row in rows_of(ledger.engine, traces)) == sorted(kept)
            assert_sums(ledger.engine)

    asyncio.run(go())


def test_a_row_that_can_never_be_written_blocks_no_other(url: str) -> None:
    async def go() -> None:
        async with opened(url) as ledger:
            bad = trace("bad", calls=(call("bad", 0, input_tokens=2**70), call("bad", 1)))
            await asyncio.gather(ledger.record(bad), *(ledger.record(trace(f"t{n}")) for n in range(5)))
            assert ledger.state == "ok"
            assert sorted(row["id"] for row in rows_of(ledger.engine, traces)) == ["bad", "t0", "t1", "t2", "t3", "t4"]
            assert (count(ledger.engine, calls), ledger.store.rejected) == (6, 1)
            assert b'"bad/0"' in (ledger.store.spool.folder / "rejected.jsonl").read_bytes()
            assert_sums(ledger.engine)

    asyncio.run(go())


TEXTS = [
    "\0",
    "half \ud800 of a pair",
    "\udfff\ud800",
    "pair \ud83d\ude00",
    "long " * 100,
    b"\xff".decode(errors="surrogateescape"),
]


def test_texts_of_any_kind_are_written(url: str) -> None:
    async def go() -> None:
        async with opened(url, store="all") as ledger:
            await asyncio.gather(*(ledger.record(trace(f"t{n}", wanted=x, prompt=x, answer=x)) for n, x in enumerate(TEXTS)))
            kept: dict[str, Any] = {row["id"]: row for row in rows_of(ledger.engine, traces)}
            assert len(kept) == len(TEXTS)
            assert kept["t1"]["prompt"] == "half \ufffd of a pair"
            assert kept["t3"]["prompt"] == "pair \U0001f600"
            assert (len(kept["t4"]["wanted"]), kept["t4"]["answer"]) == (128, "long " * 100)
            assert ledger.store.rejected == 0

    asyncio.run(go())


def test_nothing_is_recorded_before_the_start_and_after_the_end(tmp_path: Path) -> None:
    async def go() -> None:
        ledger = Ledger(config.Ledger(url=f"sqlite:///{tmp_path / 'ledger.db'}"))
        with pytest.raises(LedgerDown):
            await ledger.record(trace("t1"))
        await ledger.open()
        await asyncio.gather(*(ledger.record(trace(f"t{n}")) for n in range(20)), ledger.close(), return_exceptions=True)
        with pytest.raises(LedgerDown):
            await ledger.record(trace("t99"))
        assert count(ledger.engine, traces) == 20

    asyncio.run(go())
