"""Weights that were trained elsewhere: what is noted of them beside the store until a run takes them in.

`DIGEST.json` lies beside the folder `DIGEST` of the store: it is no part of the model.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from classifiers.files import atomic_write
from deployments.learning.live import weights
from router.errors import BadInput


def keep(folder: Path, store: Path, about: Mapping[str, Any]) -> str:
    """Keep the model in the store, and what is known of it; returns its digest. Raises BadInput, OSError."""
    digest = weights.keep(folder, store)
    atomic_write(store / f"{digest}.json", json.dumps({**about, "digest": digest}, indent=2, ensure_ascii=False) + "\n")
    return digest


def read(digest: str, store: Path) -> dict[str, Any]:
    """What is known of adopted weights. Raises BadInput where they were not adopted here."""
    if not weights.DIGEST.fullmatch(digest):
        raise BadInput(f"{digest[:80]!r} is no digest of weights; `stepdown distil adopt` prints it")
    path = store / f"{digest}.json"
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError:
        raise BadInput(f"the weights {digest[:12]} were not adopted in {store}; run `stepdown distil adopt` first") from None
    except ValueError:
        raise BadInput(f"{path}: is not JSON; adopt the model again") from None
    return dict(found)
