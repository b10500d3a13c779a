"""An artefact comes back from the database as it was stored, or not at all."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, insert, update

from deployments.learning.live import model_store
from deployments.learning.live.model_store import digest_of, fetch, trained_with
from deployments.ledger.database import writing
from deployments.ledger.schema import model_files, models
from router.errors import BadInput

pytestmark = pytest.mark.slow
MADE: dict[str, Any] = {"kind": "router", "parent": "", "run_id": "run", "method": "light", "dataset": "d" * 64, "seed": 1}
MADE |= {"licence": "apache-2.0", "made_s": 5.0}


def artefact(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True)
    for name, content in {"manifest_json": b"{}", "model_skops": bytes(range(256)) * 10, **files}.items():
        (folder / name.replace("_", ".")).write_bytes(content)
    return folder


def stored(engine: Engine, folder: Path, trace_ids=("a", "b")) -> str:
    with writing(engine) as connection:
        return model_store.save(connection, folder, **MADE, trace_ids=trace_ids)


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_comes_back_byte_for_byte(either, tmp_path):
    folder = artefact(tmp_path / "made")
    digest = stored(either, folder)
    assert digest == digest_of(folder)
    got = fetch(either, digest, tmp_path / "cache")
    assert read(got) == read(folder) and digest_of(got) == digest
    assert stored(either, folder) == digest  # again: the same one, once


def test_it_is_read_from_the_database_once(engine, tmp_path):
    digest = stored(engine, artefact(tmp_path / "made"))
    fetch(engine, digest, tmp_path / "cache")
    with writing(engine) as connection:
        connection.execute(delete(model_files))
    assert digest_of(fetch(engine, digest, tmp_path / "cache")) == digest


def test_a_damaged_copy_is_written_again(engine, tmp_path):
    digest = stored(engine, artefact(tmp_path / "made"))
    got = fetch(engine, digest, tmp_path / "cache")
    (got / "model.skops").write_bytes(b"half")
    assert digest_of(fetch(engine, digest, tmp_path / "cache")) == digest
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [digest]  # nothing half written beside it


def test_several_that_fetch_at_the_same_time_each_get_it_whole(engine, tmp_path):
    digest = stored(engine, artefact(tmp_path / "made"))
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: digest_of(fetch(engine, digest, tmp_path / "cache")), range(24)))
    assert set(got) == {digest} and [path.name for path in (tmp_path / "cache").iterdir()] == [digest]


@pytest.mark.parametrize("content, listing", [(b"another model", None), (None, {"manifest.json": "0" * 64}), (None, None)])
def test_a_tampered_one_is_refused(either, tmp_path, content, listing):
    digest = stored(either, artefact(tmp_path / "made"))
    of_model = model_files.c.name == "model.skops"
    with writing(either) as connection:
        if listing is not None:
            connection.execute(update(models).values(files=json.dumps(listing)))
        elif content is not None:
            connection.execute(update(model_files).where(of_model).values(content=content))
        else:
            connection.execute(delete(model_files).where(of_model))
    with pytest.raises(BadInput, match="was changed after it was stored"):
        fetch(either, digest, tmp_path / "cache")
    assert not (tmp_path / "cache" / digest).exists()


def test_a_file_that_was_slipped_in_is_refused(engine, tmp_path):
    digest = stored(engine, artefact(tmp_path / "made"))
    with writing(engine) as connection:
        connection.execute(insert(model_files).values(digest=digest, name="../../else.py", content=b"evil"))
    with pytest.raises(BadInput, match="was changed"):
        fetch(engine, digest, tmp_path / "cache")


@pytest.mark.parametrize("digest", ["", "../..", "f" * 64, "F" * 64])
def test_what_is_not_stored_is_said_to_be_missing(engine, tmp_path, digest):
    with pytest.raises(BadInput, match="not in the ledger's database|no artefact's digest"):
        fetch(engine, digest, tmp_path / "cache")


def test_a_folder_that_is_no_artefact_is_not_stored(engine, tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="cannot be read"):
        stored(engine, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="holds 0 files, expected 1 to 64"):
        stored(engine, tmp_path / "empty")
    many = artefact(tmp_path / "many", **{f"f{n}": b"" for n in range(63)})
    with pytest.raises(BadInput, match="holds 65 files"):
        stored(engine, many)
    odd = artefact(tmp_path / "odd")
    (odd / "a b").write_bytes(b"")
    with pytest.raises(BadInput, match="cannot be stored"):
        stored(engine, odd)
    monkeypatch.setattr(model_store, "MOST_BYTES", 1000)
    with pytest.raises(BadInput, match="can be stored; train a smaller classifier"):
        stored(engine, artefact(tmp_path / "large"))


def test_the_digest_is_of_names_and_contents_but_of_no_hidden_file(tmp_path):
    one, same, renamed = artefact(tmp_path / "one"), artefact(tmp_path / "same"), artefact(tmp_path / "renamed")
    (same / ".hidden").write_bytes(b"x")
    (same / "folder").mkdir()
    (renamed / "model.skops").rename(renamed / "model2.skops")
    assert digest_of(one) == digest_of(same) != digest_of(renamed)


def test_it_is_known_which_requests_an_artefact_was_made_from(either, tmp_path):
    first = stored(either, artefact(tmp_path / "first"), (f"t{n}" for n in range(1200)))
    second = stored(either, artefact(tmp_path / "second", more=b"x"), ["t7", "t7", "other"])
    with either.connect() as connection:
        found = trained_with(connection, [f"t{n}" for n in range(1300)])
    assert len(found) == 1200 and found["t7"] == sorted([first, second]) and found["t1199"] == [first]


def test_old_copies_that_nobody_uses_are_deleted(engine, tmp_path):
    cache = tmp_path / "cache"
    used, unused, fresh = (
        fetch(engine, stored(engine, artefact(tmp_path / name, more=name.encode())), cache)
        for name in ("used", "unused", "fresh")
    )
    for folder in (used, unused):
        os.utime(folder, (time.time() - 1e6,) * 2)
    model_store.tidy(cache, [used.name])
    assert {path.name for path in cache.iterdir()} == {used.name, fresh.name}
