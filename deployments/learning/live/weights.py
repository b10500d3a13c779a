"""The store of learned weights: each version a folder named by the digest of its files, which is never changed.

It is on disk and not in the database, since models are large. Every machine that runs replicas must see the same folder:
`flywheel.weights`, by default `weights` in the state folder.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

from deployments.ledger.database import state_folder
from deployments.tiers.file_hashes import hashes
from router.config import Config
from router.errors import BadInput

DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
READ = (".safetensors", ".json", ".jinja", ".txt", ".model")
"""endings of the files that make a model; others in the folder, as a card, are no part of it"""
UNSAFE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".py")
"""endings of files that can run code when they are loaded"""


def root(config: Config) -> Path:
    """Raises BadConfig where there is no state folder."""
    return Path(config.flywheel.weights) if config.flywheel.weights else state_folder() / "weights"


def files_of(folder: Path) -> list[Path]:
    """The files that make the model, sorted. Raises BadInput for what is no model, or not a safe one."""
    try:
        found = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise BadInput(f"{folder}: cannot be read ({error.strerror}); expected the folder of a model") from None
    if unsafe := [path.name for path in found if path.suffix.lower() in UNSAFE]:
        raise BadInput(f"{folder}: holds {unsafe[0]}, which can run code when it is loaded; convert the model to safetensors")
    if not any(path.suffix == ".safetensors" for path in found):
        raise BadInput(f"{folder}: holds no .safetensors; expected a model's folder, as `stepdown distil train` writes it")
    return [path for path in found if path.suffix.lower() in READ]


def digest_of(folder: Path) -> str:
    """64 hexadecimal digits over names and contents. Raises BadInput."""
    files = files_of(folder)
    try:
        made = dict(zip((file.name for file in files), hashes(files), strict=True))
    except OSError as error:
        raise BadInput(f"{folder}: cannot be read ({error.strerror}); expected the folder of a model") from None
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()


def keep(folder: Path, store: Path) -> str:
    """Copy a model into the store, whole or not at all; returns its digest. Kept already: nothing happens.

    Raises BadInput, OSError.
    """
    digest = digest_of(folder)
    target = store / digest
    if not target.exists():
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=store))
        try:
            for file in files_of(folder):
                shutil.copyfile(file, fresh / file.name)
            if target.exists():
                return digest
            os.rename(fresh, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return digest


def find(digest: str, store: Path) -> Path:
    """The folder of kept weights. Raises BadInput where they are not there, or are no longer what their digest says."""
    if not DIGEST.fullmatch(digest):
        raise BadInput(f"{digest[:80]!r} is no digest of weights; expected 64 hexadecimal digits")
    folder = store / digest
    if not folder.is_dir():
        raise BadInput(
            f"the weights {digest[:12]} are not in {store}; every machine must see the same folder, see `flywheel.weights`"
        )
    if digest_of(folder) != digest:
        raise BadInput(f"{folder}: was changed after it was stored; train again, or put the files back")
    return folder
