"""The folder of one training: what it is of, how far it is, and what came of it. A folder belongs to one training for good.

Files: wanted.json (from the first moment), checkpoint.safetensors and best.safetensors (while it runs), progress.jsonl, model/,
adapter/ where LoRA was trained, card.md, and manifest.json, which is written last: it says that the training is finished.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classifiers.files import atomic_write
from deployments.distil import checkpoint
from deployments.distil.base_models import json_of
from deployments.distil.trainer import BEST, CHECKPOINT
from router.errors import BadInput

WANTED = "wanted.json"
MANIFEST = "manifest.json"
PROGRESS = "progress.jsonl"
MODEL = "model"
ADAPTER = "adapter"
CARD = "card.md"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One folder."""

    folder: Path

    @property
    def manifest(self) -> Mapping[str, Any] | None:
        """What came of a finished training; None: it is not finished."""
        return json_of(self.folder / MANIFEST) or None

    def claim(self, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        """Begin in this folder, or go on if it is the same training: what is `asked` of it, its rows and its base.

        Returns what was wanted when it began, with its recipe then. Raises BadInput where the folder is another training's.
        """
        found = json_of(self.folder / WANTED)
        if not found:
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise BadInput(f"{self.folder}: is not empty and no training's; choose a new folder")
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_write(self.folder / WANTED, json.dumps(wanted, indent=1))
            return wanted
        for name in ("asked", "rows_sha256", "scores_sha256", "base_sha256"):
            if found.get(name) != wanted.get(name):
                was, now = shown(found.get(name)), shown(wanted.get(name))
                raise BadInput(
                    f"{self.folder}: belongs to a training with {name} {was}, this one has {now}; "
                    "choose another folder, or give what it began with"
                )
        return found

    def publish(self, name: str, write: Callable[[Path], None]) -> Path:
        """Write a folder in it, whole or not at all, in place of an old one. Raises OSError."""
        target = self.folder / name
        fresh = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=self.folder))
        try:
            write(fresh)
            fresh.chmod(0o755)
            if target.exists():
                shutil.rmtree(target)
            os.rename(fresh, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return target

    def finish(self, manifest: Mapping[str, Any], card: str) -> None:
        """Say that it is finished, and remove what only a running training needs."""
        atomic_write(self.folder / CARD, card)
        atomic_write(self.folder / MANIFEST, json.dumps(manifest, indent=1))
        for name in (CHECKPOINT, BEST):
            checkpoint.remove(self.folder / name)
        for left in self.folder.glob(".*-*"):  # of a publication that was killed
            shutil.rmtree(left, ignore_errors=True)

    def note(self, line: Mapping[str, Any]) -> None:
        """Append one line to progress.jsonl."""
        with (self.folder / PROGRESS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def shown(value: Any) -> str:
    return value[:12] if isinstance(value, str) else json.dumps(value)
