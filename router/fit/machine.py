"""The machine that a ladder is to fit on: cards of one kind, or a computer's memory."""

import re
from dataclasses import dataclass

from router.errors import BadInput

GIB = 2**30
GPU_SHARE = 0.92
"""of a card's memory that an engine may use: vLLM's default gpu_memory_utilization"""
CPU_SHARE = 0.8
"""of a computer's memory for engines; the rest is for the system, Ray and the ingress"""
USD_FOR_GIB = 2.5 / 80
"""USD an hour for each GiB of a card, as 2.50 for one of 80 GB, where nobody says a price"""
USD_FOR_CPUS = 0.03
"""USD an hour of a computer without cards: electricity, 0.1 kW at 0.30 USD a kWh"""
NAMES = {80: "H100", 141: "H200"}
"""GB of a card -> what it is taken for where it has no name, for Ray"""
BLOCK = {"gpu": 16, "cpu": 128}
"""tokens of a block of vLLM's cache"""
SMALL_CARD = 20
"""GiB below which windows are short by default"""
LARGE_CARD = 70
"""GiB from which vLLM works on more tokens in a step"""
GIVEN = re.compile(r"(?:(\d{1,3})x)?(?:(\d+(?:\.\d+)?)GB|([A-Z][\w-]*):(\d+(?:\.\d+)?)GB)")
CPU = re.compile(r"cpu:(\d+(?:\.\d+)?)GB")
EXPECTED = "expected such as 1x24GB, 2x80GB, 8xH200:141GB or cpu:32GB"


@dataclass(frozen=True)
class Machine:
    """Cards of one kind, or, with none, a computer's memory."""

    cards: int
    """how many; 0: models run on CPUs"""
    memory: float
    """bytes of one card, or of the computer"""
    usable: float
    """bytes of it that engines may use"""
    usd_hour: float
    """USD an hour of one card, or of the computer"""
    name: str | None = None
    """Ray's name of the card; none: not known"""
    cpus: int = 8
    """cores for the engines of a computer without cards"""

    @property
    def kind(self) -> str:
        return "gpu" if self.cards else "cpu"

    @property
    def block(self) -> int:
        """Tokens of a block of vLLM's cache."""
        return BLOCK[self.kind]

    @property
    def batch(self) -> int:
        """Tokens of a step, vLLM's default for the card; written into the file, because the peak depends on it."""
        return 8192 if self.cards and self.memory >= LARGE_CARD * GIB else 2048

    @property
    def ahead(self) -> int:
        """Tokens in work at once: on cards vLLM prepares the next step while one runs (asynchronous scheduling)."""
        return self.batch * (2 if self.cards else 1)

    @property
    def context(self) -> int:
        """Tokens of a window by default."""
        return 32_768 if self.cards and self.memory >= SMALL_CARD * GIB else 8_192

    def __str__(self) -> str:
        size = f"{self.memory / GIB:.4g} GB"
        return f"{self.cards} x {self.name + ' ' if self.name else ''}{size}" if self.cards else f"CPUs with {size}"


def parsed(text: str, usd_hour: float | None = None, name: str | None = None, cpus: int = 8) -> Machine:
    """A machine as people write it: 1x24GB, 2x80GB, 8xH200:141GB, cpu:32GB. A GB is 2**30 bytes, as on cards.

    usd_hour: of one card, or of the computer; None: by its size. name: Ray's, of the card. Raises BadInput.
    """
    if found := CPU.fullmatch(text):
        return computer(float(found[1]) * GIB, float(found[1]) * GIB, usd_hour, cpus)
    found = GIVEN.fullmatch(text)
    if found is None or int(found[1] or 1) < 1:
        raise BadInput(f"--gpus: found {text!r}, {EXPECTED}")
    size = float(found[2] or found[4])
    memory = size * GIB
    return cards(int(found[1] or 1), memory, memory * GPU_SHARE, usd_hour, name or found[3] or NAMES.get(round(size)))


def cards(number: int, memory: float, usable: float, usd_hour: float | None, name: str | None) -> Machine:
    """Cards of so many bytes each, of which `usable` may be used."""
    price = round(memory / GIB * USD_FOR_GIB, 2) if usd_hour is None else usd_hour
    return Machine(number, memory, usable, price, name)


def computer(memory: float, free: float, usd_hour: float | None, cpus: int) -> Machine:
    """A computer without cards; `free` bytes of its memory are free now."""
    return Machine(0, memory, min(free, memory * CPU_SHARE), USD_FOR_CPUS if usd_hour is None else usd_hour, None, cpus)
