"""What nvidia-smi says of this machine's GPUs."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from router.errors import BadInput

FIELDS = ("index", "name", "memory.total", "memory.used")
MIB_OF_GIB = 1024
PATIENCE_S = 30


@dataclass(frozen=True)
class Card:
    """One GPU."""

    index: int
    name: str
    total_gib: float
    used_gib: float


def read_cards(text: str) -> list[Card]:
    """From `nvidia-smi --query-gpu`, in CSV without header and units. Raises BadInput."""
    return [read_card(line) for line in text.splitlines() if line.strip()]


def read_card(line: str) -> Card:
    parts = [part.strip() for part in line.split(",")]
    try:
        index, *name, total, used = parts
        return Card(int(index), ", ".join(name), float(total) / MIB_OF_GIB, float(used) / MIB_OF_GIB)
    except ValueError:
        raise BadInput(
            f"nvidia-smi said {line!r}, expected {', '.join(FIELDS)} with both in MiB; a slice of a card (MIG) does not tell "
            "them: run on a whole GPU"
        ) from None


def cards(run: Callable[[list[str]], str] | None = None) -> list[Card]:
    """This machine's GPUs. run: returns what a command writes. Raises BadInput where there is none."""
    return read_cards((run or said)(["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"])) or none()


def none() -> list[Card]:
    raise BadInput("found no GPU: nvidia-smi lists none; this check needs a machine with an NVIDIA GPU of 24 GB or more")


def said(command: list[str]) -> str:
    """Raises BadInput."""
    if shutil.which(command[0]) is None:
        raise BadInput("found no GPU: there is no nvidia-smi; this check needs a machine with an NVIDIA GPU of 24 GB or more")
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        told = (getattr(error, "stdout", "") or getattr(error, "stderr", "") or str(error)).strip()
        raise BadInput(f"found no GPU that works: nvidia-smi says: {told[:300]}; mend the driver, then run this again") from None
