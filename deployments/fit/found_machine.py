"""The machine that this runs on: cards by nvidia-smi, else the memory that is free now."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from router.errors import BadInput
from router.fit.machine import GPU_SHARE, Machine, cards, computer

QUERY = ("--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits")
TIMEOUT_S = 20
MEMORY = Path("/proc/meminfo")
KNOWN = ("H100", "H200", "H800", "H20", "B200", "B300", "A100", "L40S", "L40", "L4", "A10G", "T4", "V100", "P100")
"""what the driver's name of a card has in it -> Ray's name; A100 has its memory beside it"""


def found_machine(usd_hour: float | None = None, name: str | None = None) -> Machine:
    """This machine. usd_hour, name: of a card, where they are not to be guessed. Raises BadInput."""
    if listed := cards_listed():
        return of_cards(listed, usd_hour, name)
    total, free = memory(MEMORY.read_text("utf-8") if MEMORY.exists() else "")
    return computer(total, free, usd_hour, os.cpu_count() or 1)


def cards_listed() -> list[str]:
    """nvidia-smi's lines; none where there is no card, or no driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    done = subprocess.run(["nvidia-smi", *QUERY], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    return [line for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def of_cards(listed: Sequence[str], usd_hour: float | None, name: str | None) -> Machine:
    """Cards of one kind, of which the fullest counts: each engine must fit on any of them. Raises BadInput."""
    split = [[field.strip() for field in line.split(",")] for line in listed]
    try:
        sizes = [(float(total) * 2**20, float(free) * 2**20) for _, total, free in split]
    except ValueError:
        raise BadInput(
            f"nvidia-smi: found {listed[0]!r}, expected a name and two numbers; describe the cards with --gpus"
        ) from None
    if len({fields[0] for fields in split}) > 1:
        kinds = ", ".join(sorted({fields[0] for fields in split}))
        raise BadInput(f"cards of several kinds: {kinds}; say with --gpus, such as --gpus 1x24GB, for which the ladder is to be")
    total, free = min(size[0] for size in sizes), min(size[1] for size in sizes)
    return cards(len(sizes), total, min(free, total * GPU_SHARE), usd_hour, name or ray_name(split[0][0], total))


def ray_name(driver: str, total: float) -> str | None:
    """Ray's name of a card, from the driver's; None: not known."""
    found = next((name for name in KNOWN if name in driver.replace("-", " ").split() or f"{name}-" in driver), None)
    return f"A100-{'80' if total > 60 * 2**30 else '40'}G" if found == "A100" else found


def memory(text: str) -> tuple[float, float]:
    """Bytes of /proc/meminfo: all, and what can be had without swapping. Raises BadInput."""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    try:
        total, free = (float(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (KeyError, IndexError, ValueError):
        raise BadInput("/proc/meminfo does not tell the memory; say it with --gpus, such as --gpus cpu:32GB") from None
    return total, free
