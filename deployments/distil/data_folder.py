"""The folder that `stepdown distil data` writes: `train.jsonl`, `dev.jsonl`, `test.jsonl`, `card.md`, and `manifest.json`.

It is written whole or not at all, and its manifest has a hash of each file and of all rows, so that damage is found when it is
read.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.distil.card import card
from router.distil.dataset import StudentData, sha256_of, summary
from router.distil.rows import SIDES, Row, Side
from router.errors import BadInput
from router.flywheel.rows.outcome_rows import line_of

FORM = 1
MANIFEST = "manifest.json"
CARD = "card.md"
WRITTEN_BY = "`stepdown distil data` writes such folders"
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class DataFolder:
    """A data folder whose files are what its manifest says."""

    path: Path
    manifest: Mapping[str, Any]

    def rows(self, side: Side) -> Iterator[Row]:
        """The rows of one side, oldest first. Raises BadInput."""
        return rows_of(self.path / f"{side}.jsonl")

    @property
    def student(self) -> str:
        """The student's tier."""
        return str(self.manifest["student"]["tier"])


def write(folder: Path, found: StudentData, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write the folder, in place of an older data folder. Returns its manifest. Raises BadInput for a folder of something else,
    OSError.

    about: `student`, `teacher`, `template_sha256`, `tokenizer_sha256`, `vocab_size` and `made_s`.
    """
    if folder.exists() and not replaceable(folder):
        raise BadInput(f"{folder}: is there already and is no data folder; choose another -o, or move it away")
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.absolute().parent))
    try:
        for side, rows in found.sides.items():
            with (fresh / f"{side}.jsonl").open("w", encoding="utf-8") as file:
                file.writelines(line_of(row.as_json()) + "\n" for row in rows)
        files = {f"{side}.jsonl": sha256(fresh / f"{side}.jsonl") for side in SIDES}
        manifest = {"form": FORM, **about, **summary(found), "files": files}
        (fresh / CARD).write_text(card(manifest), "utf-8")
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", "utf-8")
        fresh.chmod(0o755)
        put(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return manifest


def replaceable(folder: Path) -> bool:
    """Whether it is empty, or a data folder."""
    return folder.is_dir() and (not any(folder.iterdir()) or (folder / MANIFEST).is_file())


def put(fresh: Path, folder: Path) -> None:
    """Rename into place; what was there is deleted afterwards."""
    old = Path(tempfile.mkdtemp(prefix=".old-", dir=fresh.parent))
    try:
        if folder.exists():
            os.rename(folder, old / "folder")
        os.rename(fresh, folder)
    finally:
        shutil.rmtree(old, ignore_errors=True)


def read(folder: Path, check_rows: bool = True) -> DataFolder:
    """Raises BadInput for what is no data folder, or a damaged one. check_rows: also compute the rows' hash again."""
    manifest = manifest_of(folder)
    for name, told in manifest["files"].items():
        try:
            found = sha256(folder / name)
        except OSError as error:
            raise BadInput(f"{folder / name}: cannot be read ({error.strerror}); make the data again") from None
        if found != told:
            raise BadInput(f"{folder / name}: was changed after it was written; make the data again")
    data = DataFolder(folder, manifest)
    if check_rows:
        sides = {side: list(rows_of(folder / f"{side}.jsonl")) for side in SIDES}
        if sha256_of(sides, int(manifest["seed"])) != manifest["dataset_sha256"]:
            raise BadInput(f"{folder}: its rows are not those of dataset_sha256 in {MANIFEST}; make the data again")
    return data


def manifest_of(folder: Path) -> dict[str, Any]:
    """Raises BadInput."""
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); expected a data folder, {WRITTEN_BY}") from None
    except (ValueError, RecursionError):
        raise BadInput(f"{path}: is not JSON; it is damaged, or {folder} is no data folder ({WRITTEN_BY})") from None
    needed = ("student", "teacher", "seed", "dataset_sha256", "files")
    if not isinstance(found, dict) or found.get("form") != FORM or any(name not in found for name in needed):
        raise BadInput(f"{path}: is not the manifest of a data folder of form {FORM}; {WRITTEN_BY}")
    if set(found["files"]) != {f"{side}.jsonl" for side in SIDES}:
        raise BadInput(f"{path}: names the files {', '.join(found['files'])[:200]}, expected train, dev and test; make it again")
    return found


def rows_of(path: Path) -> Iterator[Row]:
    """The rows of one file. Raises BadInput, which names the line."""
    try:
        with path.open("r", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield Row.from_json(json.loads(line))
                except (ValueError, RecursionError, BadInput) as error:
                    raise BadInput(f"{path}: line {number}: {error}") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); make the data again") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: is not UTF-8; make the data again") from None


def sha256(path: Path) -> str:
    """Raises OSError."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(CHUNK):
            found.update(part)
    return found.hexdigest()
