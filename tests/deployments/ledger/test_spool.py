"""Files of the spool: who may drain them, and what a crash or a failing disk leaves of them."""

import errno
import os
import sqlite3
import threading
from pathlib import Path

import pytest
from made import trace

from deployments.ledger.rows import Rows, from_line, from_trace
from deployments.ledger.spool import Spool, SpoolFull
from deployments.ledger.store import Store
from router.config import Ledger as Settings


def never(line: bytes, why: str) -> None:
    raise AssertionError(why)


def drained(spool: Spool) -> list[str]:
    ids: list[str] = []
    for path in spool.waiting():
        spool.drain(path, lambda rows: ids.extend(row["id"] for row in rows.traces), never)
    return ids


def spooled(folder: Path, *ids: str) -> Spool:
    spool = Spool(folder, 100_000)
    spool.append([from_trace(trace(id)) for id in ids])
    return spool


def test_a_line_reads_back_as_it_was() -> None:
    rows = from_trace(trace("t1", prompt="\u2028 \U0001f600 \n"))
    rows.readings = {"t1/0": (1.5, None)}
    assert from_line(rows.line()) == rows
    assert rows.line().count(b"\n") == 1


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b'{"other": 1}', b'{"readings": {"a": 1}}', b"\xff"])
def test_what_is_no_line_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        from_line(line)


def test_a_file_is_drained_by_others_only_when_its_process_has_closed_it(tmp_path: Path) -> None:
    first, second = spooled(tmp_path, "a"), Spool(tmp_path, 100_000)
    assert drained(second) == []
    first.close_file()
    assert drained(second) == ["a"]
    assert (first.waiting(), first.rows, first.size) == ([], 0, 0)


def test_rows_go_on_in_a_new_file_while_the_old_one_is_drained(tmp_path: Path) -> None:
    spool = spooled(tmp_path, "a")
    spool.close_file()
    spool.append([from_trace(trace("b"))])
    assert drained(spool) == ["a"]
    assert spool.rows == 2  # trace b and its call
    spool.close_file()
    assert drained(spool) == ["b"]


def test_a_torn_last_line_was_never_acknowledged(tmp_path: Path) -> None:
    spool = spooled(tmp_path, "a", "b")
    spool.close_file()
    (path,) = spool.waiting()
    path.write_bytes(path.read_bytes()[:-20])
    assert drained(spool) == ["a"]


def test_a_damaged_line_is_set_aside(tmp_path: Path) -> None:
    spool, refused = spooled(tmp_path, "a", "b"), []
    spool.close_file()
    (path,) = spool.waiting()
    path.write_bytes(b"damaged\n" + path.read_bytes())
    assert spool.drain(path, lambda rows: None, lambda line, why: refused.append(line))
    assert refused == [b"damaged\n"]


def test_a_file_stays_until_all_its_rows_are_written(tmp_path: Path) -> None:
    spool = spooled(tmp_path, "a")
    spool.close_file()

    def fails(rows: Rows) -> None:
        raise OSError("down")

    with pytest.raises(OSError):
        spool.drain(spool.waiting()[0], fails, never)
    assert drained(spool) == ["a"]


def test_it_holds_no_more_than_it_may(tmp_path: Path) -> None:
    spool = Spool(tmp_path, len(from_trace(trace("a")).line()))
    spool.append([from_trace(trace("a"))])
    with pytest.raises(SpoolFull):
        spool.append([from_trace(trace("b"))])
    spool.close_file()
    assert drained(spool) == ["a"]
    spool.append([from_trace(trace("b"))])


def test_what_a_failing_disk_took_in_part_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = spooled(tmp_path, "a")

    def half(file: int, data: bytes) -> None:
        os.write(file, data[: len(data) // 2])
        raise OSError(errno.EIO, "the disk fails")

    with monkeypatch.context() as patch:
        patch.setattr("deployments.ledger.spool.write_synced", half)
        with pytest.raises(OSError):
            spool.append([from_trace(trace("b"))])
    spool.append([from_trace(trace("c"))])
    spool.close_file()
    assert sorted(drained(spool)) == ["a", "c"]


def test_texts_in_the_spool_are_for_its_user_only(tmp_path: Path) -> None:
    spool = spooled(tmp_path / "spool", "a")
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in spool.folder.iterdir()] == [0o600]


@pytest.mark.slow
def test_a_file_that_is_just_made_is_no_sign_that_the_database_is_back(tmp_path: Path) -> None:
    store = Store(Settings(url=f"sqlite:///{tmp_path}/ledger.db"))
    store.start()
    store.spool.folder.mkdir(exist_ok=True)
    (store.spool.folder / "rows-1-new.jsonl").touch()
    holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    store.mark_down(OSError("locked"))
    assert not store.recover() and store.state == "spooling"
    holder.execute("ROLLBACK")
    assert store.recover() and store.state == "ok"
    holder.close()
    store.engine.dispose()


def test_the_next_file_is_there_before_the_last_one_is_drained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = spooled(tmp_path, "a")
    spool.turn_over()
    monkeypatch.setattr("deployments.ledger.spool.new_file", lambda folder: pytest.fail("a row waited for a file to be made"))
    spool.append([from_trace(trace("b"))])
    assert drained(spool) == ["a"]
    spool.close_file()
    assert drained(spool) == ["b"] and not list(tmp_path.iterdir())


def test_a_file_that_nothing_was_written_into_is_kept_until_it_is_closed(tmp_path: Path) -> None:
    spool = spooled(tmp_path, "a")
    spool.turn_over()
    (fresh,) = {spool.file and spool.file[0]}
    spool.turn_over()
    assert spool.file and spool.file[0] == fresh and drained(spool) == ["a"]
    spool.close_file()
    assert not list(tmp_path.iterdir())


def test_rows_that_come_while_files_are_turned_over_are_drained_once_each(tmp_path: Path) -> None:
    spool, found = Spool(tmp_path, 10_000_000), list[str]()
    names = [f"t{n}" for n in range(200)]

    def write() -> None:
        for name in names:
            spool.append([from_trace(trace(name))])

    writing = threading.Thread(target=write)
    writing.start()
    while writing.is_alive():
        spool.turn_over()
        found += drained(spool)
    spool.turn_over()
    found += drained(spool)
    assert sorted(found) == sorted(names)
