"""A file is replaced as a whole or stays as it was."""

from pathlib import Path

import pytest

from classifiers.files import atomic_write, replaced


@pytest.mark.parametrize("data", ["text: ä", b"\x00bytes"])
def test_the_file_is_replaced_whole_and_nothing_is_left_beside_it(data: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    atomic_write(path, data)
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replaced(path) as fresh:
        fresh.write_text("half")
        1 / 0  # noqa: B018
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError) as raised:
        atomic_write(tmp_path / "none" / "a.json", "x")
    assert "none" in str(raised.value.filename)
