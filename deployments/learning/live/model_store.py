"""Learned artefacts in the database, with their files, so that every ingress of a cluster can load them.

An artefact is known by a digest over the names and contents of its files. What is read back is checked against it, file by file.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, select

from deployments.ledger.database import state_folder
from deployments.ledger.rows import Row
from deployments.ledger.schema import model_files, model_rows, models
from deployments.ledger.statements import insert_new
from router.errors import BadInput

MOST_FILES = 64
MOST_BYTES = 64_000_000
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}", re.ASCII)  # of a file: no path, and nothing hidden
DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
WEIGHTS = "weights"  # kind of a row whose files are in the store of weights
MANIFEST = "manifest.json"
CACHE = "learned"  # folder of fetched artefacts, in the state folder
BATCH = 500  # rows of one statement
OLD_S = 86_400.0  # cached artefacts that nobody uses are kept for so long: another process may be reading one


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def digest_over(files: Mapping[str, str]) -> str:
    """The artefact's digest. files: name -> SHA-256 of the content."""
    return sha256(json.dumps(dict(sorted(files.items()))).encode())


def listed(folder: str | Path) -> list[Path]:
    """The artefact's files. Folders and hidden files in it are no part of it. Raises BadInput."""
    try:
        return sorted(path for path in Path(folder).iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise BadInput(f"{folder}: cannot be read ({error.strerror}); expected the folder of a trained router") from None


def digest_of(folder: str | Path) -> str:
    """The digest of an artefact in a folder. Raises BadInput."""
    try:
        return digest_over({path.name: sha256(path.read_bytes()) for path in listed(folder)})
    except OSError as error:
        raise BadInput(f"{folder}: cannot be read ({error}); expected the folder of a trained router") from None


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> content of the artefact's files. Raises BadInput for what is no artefact, by number, size or names."""
    found = listed(folder)
    if not found or len(found) > MOST_FILES:
        raise BadInput(f"{folder}: holds {len(found)} files, expected 1 to {MOST_FILES}; give the folder of a trained router")
    if bad := next((path.name for path in found if not NAME.fullmatch(path.name)), None):
        raise BadInput(f"{folder}: the file name {bad!r} cannot be stored; use letters, digits, '.', '_' and '-'")
    try:
        size = sum(path.stat().st_size for path in found)
        if size > MOST_BYTES:
            raise BadInput(
                f"{folder}: {size / 1e6:.0f} MB, at most {MOST_BYTES / 1e6:.0f} MB can be stored; train a smaller classifier"
            )
        return {path.name: path.read_bytes() for path in found}
    except OSError as error:
        raise BadInput(f"{folder}: cannot be read ({error}); expected the folder of a trained router") from None


def save(
    connection: Connection,
    folder: Path,
    *,
    kind: str,
    parent: str,
    run_id: str,
    method: str,
    dataset: str,
    seed: int,
    licence: str,
    made_s: float,
    trace_ids: Iterable[str],
) -> str:
    """Store the artefact of a folder and what it was made from; returns its digest. The same one is stored once.

    trace_ids: the requests that it was trained or calibrated on. Raises BadInput for a folder that is no artefact.
    """
    found = contents(folder)
    files = {name: sha256(content) for name, content in found.items()}
    digest = digest_over(files)
    row: Row = {"digest": digest, "kind": kind, "parent": parent, "run_id": run_id, "method": method[:64], "dataset": dataset}
    row |= {"seed": seed, "licence": licence[:64], "made_s": made_s, "files": json.dumps(files)}
    insert_new(connection, models, [row])
    for name, content in found.items():  # one at a time: one statement with all would hold them twice in memory
        insert_new(connection, model_files, [{"digest": digest, "name": name, "content": content}])
    for part in batches(trace_ids):
        insert_new(connection, model_rows, [{"digest": digest, "trace_id": id} for id in part])
    return digest


def save_weights(
    connection: Connection,
    digest: str,
    files: Mapping[str, str],
    tier: str,
    parent: str,
    run_id: str,
    method: str,
    dataset: str,
    seed: int,
    licence: str,
    made_s: float,
    numbers: Mapping[str, Any],
    trace_ids: Iterable[str],
) -> None:
    """Note weights that lie in the store of weights, and what they were made from. The same ones are noted once.

    files: name -> SHA-256. parent: digest of the weights that they replace; empty: the configured ones. numbers: what this
    generation learned, cost and saves. trace_ids: the requests that it was trained or evaluated on.
    """
    row: Row = {"digest": digest, "kind": WEIGHTS, "parent": parent, "run_id": run_id, "method": method[:64], "dataset": dataset}
    row |= {"seed": seed, "licence": licence[:64], "made_s": made_s, "files": json.dumps(dict(files))}
    insert_new(connection, models, [row | {"tier": tier, "numbers": json.dumps(dict(numbers))}])
    for part in batches(trace_ids):
        insert_new(connection, model_rows, [{"digest": digest, "trace_id": id} for id in part])


@dataclass(frozen=True, slots=True)
class Weights:
    """A row of learned weights: the columns of `models` say what each means."""

    digest: str
    tier: str
    parent: str
    run_id: str
    method: str
    dataset: str
    seed: int
    licence: str
    made_s: float
    files: Mapping[str, str]
    numbers: Mapping[str, Any]


def weights_row(connection: Connection, digest: str) -> Weights | None:
    """None: nobody has noted such weights."""
    found = select(models).where(models.c.digest == digest, models.c.kind == WEIGHTS)
    row = connection.execute(found).mappings().first()
    return None if row is None else as_weights(dict(row))


def weights_listed(connection: Connection) -> list[Weights]:
    """All weights that were learned, the first made first."""
    found = select(models).where(models.c.kind == WEIGHTS).order_by(models.c.made_s, models.c.digest)
    return [as_weights(dict(row)) for row in connection.execute(found).mappings()]


def as_weights(row: Row) -> Weights:
    plain = {name: value for name, value in row.items() if name != "kind"}
    return Weights(**plain | {name: json.loads(row[name]) for name in ("files", "numbers")})


def batches(trace_ids: Iterable[str]) -> Iterator[Sequence[str]]:
    """Each id once, in parts that one statement takes."""
    found = list(dict.fromkeys(trace_ids))
    return (found[at : at + BATCH] for at in range(0, len(found), BATCH))


def trained_with(connection: Connection, trace_ids: Iterable[str]) -> dict[str, list[str]]:
    """Trace id -> digests of the artefacts that were made from it; only those of which there are some."""
    made: dict[str, list[str]] = {}
    chosen = select(model_rows.c.trace_id, model_rows.c.digest).order_by(model_rows.c.trace_id, model_rows.c.digest)
    for part in batches(trace_ids):
        for id, digest in connection.execute(chosen.where(model_rows.c.trace_id.in_(part))):
            made.setdefault(id, []).append(digest)
    return made


# -- reading back ----------------------------------------------------------------------------------------------------------


def manifest(connection: Connection, digest: str) -> dict[str, Any]:
    """The manifest of a stored artefact, checked against the artefact's list of files. Raises BadInput."""
    listing = connection.execute(select(models.c.files).where(models.c.digest == digest)).scalar_one_or_none()
    chosen = select(model_files.c.content).where(model_files.c.digest == digest, model_files.c.name == MANIFEST)
    content = connection.execute(chosen).scalar_one_or_none()
    if listing is None or content is None:
        raise BadInput(f"the artefact {digest[:12]} is not in the ledger's database; it was deleted, or made on another one")
    if listing_of(listing, digest).get(MANIFEST) != sha256(bytes(content)):
        raise BadInput(f"the artefact {digest[:12]} was changed after it was stored: {MANIFEST}; train again")
    try:
        return dict(json.loads(content))
    except (ValueError, TypeError, RecursionError):
        raise BadInput(f"the artefact {digest[:12]} has a {MANIFEST} that is no JSON object; train again") from None


def fetch(engine: Engine, digest: str, cache: Path) -> Path:
    """The folder of a stored artefact inside `cache`, written first where it is not there or not whole.

    Raises BadInput where it is not stored or does not fit its digest, OSError, and the database's errors.
    """
    if not DIGEST.fullmatch(digest):
        raise BadInput(f"{digest[:80]!r} is no artefact's digest; expected 64 hexadecimal digits")
    folder = cache / digest
    if not whole(folder, digest):
        write(folder, digest, checked(engine, digest))
        if not whole(folder, digest):
            raise BadInput(f"{folder}: was written, but holds something else; look who else writes there")
    with suppress(OSError):
        os.utime(folder)  # it was used now; see `tidy`
    return folder


def whole(folder: Path, digest: str) -> bool:
    try:
        return folder.is_dir() and digest_of(folder) == digest
    except BadInput:
        return False


def checked(engine: Engine, digest: str) -> dict[str, bytes]:
    """The files as they are stored. Raises BadInput where they are not what the digest says."""
    with engine.connect() as connection:
        listing = connection.execute(select(models.c.files).where(models.c.digest == digest)).scalar_one_or_none()
        if listing is None:
            raise BadInput(f"the artefact {digest[:12]} is not in the ledger's database; it was deleted, or made on another one")
        files = listing_of(listing, digest)
        chosen = select(model_files.c.name, model_files.c.content).where(model_files.c.digest == digest)
        found = {name: bytes(content) for name, content in connection.execute(chosen.limit(MOST_FILES + 1))}
    odd = sorted(name for name in files.keys() | found.keys() if name not in found or files.get(name) != sha256(found[name]))
    if odd:
        raise BadInput(f"the artefact {digest[:12]} was changed after it was stored: {', '.join(odd)[:200]}; train again")
    return found


def listing_of(text: str, digest: str) -> dict[str, str]:
    """Name -> SHA-256, as the digest was made of it. Raises BadInput."""
    try:
        files = {str(name): str(made) for name, made in json.loads(text).items()}
    except (ValueError, AttributeError, RecursionError):
        files = {}
    named = all(NAME.fullmatch(name) for name in files)
    if not named or not 0 < len(files) <= MOST_FILES or digest_over(files) != digest:
        raise BadInput(f"the artefact {digest[:12]} was changed after it was stored: its list of files; train again")
    return files


def write(folder: Path, digest: str, files: Mapping[str, bytes]) -> None:
    """Write the folder whole, or leave it as it was. Several processes may do so at the same time. Raises OSError."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        for name, content in files.items():
            (fresh / name).write_bytes(content)
        try:
            fresh.rename(folder)
        except OSError:  # something is there: another process was quicker, or it is damaged
            if whole(folder, digest):
                return
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def tidy(cache: Path, used: Iterable[str]) -> None:
    """Delete cached artefacts that this process does not use and nobody fetched for a day."""
    keep, before = set(used), time.time() - OLD_S
    with suppress(OSError):
        for folder in cache.iterdir():
            if folder.name not in keep and folder.stat().st_mtime < before:
                shutil.rmtree(folder, ignore_errors=True)


def cache() -> Path:
    """The folder of fetched artefacts, for all processes of a machine. Raises BadConfig where there is no state folder."""
    return state_folder() / CACHE
