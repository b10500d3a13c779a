"""Checkpoints: tensors and a state in one file, replaced whole, so that a killed training leaves the old one or the new one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from classifiers.files import atomic_write, replaced
from router.errors import BadInput

STATE = "state"  # key of the state in the file's metadata


def save(file: Path, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    """The state stands in the file, which decides, and beside it as JSON for people and programs to read. Raises OSError."""
    text = json.dumps(state)
    with replaced(file) as fresh:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, fresh, {STATE: text})
    atomic_write(file.with_suffix(".json"), text)


def load(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(tensors, state) of a checkpoint. Raises BadInput where it is damaged."""
    try:
        with safe_open(file, "pt") as opened:
            state = json.loads(opened.metadata()[STATE])
            # Copied, because tensors in a mapped file lie where they happen to, and sums depend on that.
            return {name: opened.get_tensor(name).clone() for name in opened.keys()}, state  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{file}: not a checkpoint of this version ({error}); delete it to begin again") from None


def remove(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.with_suffix(".json").unlink(missing_ok=True)
