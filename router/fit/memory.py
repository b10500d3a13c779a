"""The memory of one engine on one card, and what it leaves for requests.

An engine takes its weights, a peak while it works on a step, and what CUDA and communication take beside it; the cache gets the
rest. Peaks are measured, vLLM 0.19 on an H100 with 8,192 tokens a step (llm-d-planner); smaller cards take fewer tokens a step
and less. The CPU's is one run of vLLM 0.29.
"""

from dataclasses import dataclass

from router.fit.cache import Pool, pool
from router.fit.families import Model
from router.fit.machine import GIB, Machine
from router.fit.shape import Checkpoint

PEAK = {"dense": 2.2 * GIB, "moe": 2.7 * GIB, "gemma": 3.9 * GIB}
ALONE = 0.27 * GIB
"""what one card takes beside that"""
TOGETHER = 2.1 * GIB
"""the same where cards share a model: buffers of their communication"""
ON_CPU = 2.1e9
"""peak and rest of an engine on CPUs"""
SHORT = 2_048
"""tokens of a short request"""
STEP = 2**20
"""the cache's size is written in whole MiB"""


@dataclass(frozen=True)
class Engine:
    """A model in one precision on so many cards, before it is known how much of them it gets."""

    model: Model
    checkpoint: Checkpoint
    machine: Machine
    cards: int = 1
    """how many share one replica"""
    context: int = 32_768
    """tokens of a window"""

    @property
    def weights(self) -> float:
        """Bytes of the weights on each card."""
        return self.checkpoint.bytes_of(self.model.shape) / self.cards

    @property
    def peak(self) -> float:
        """Bytes beside the weights and the cache, on each card."""
        if not self.machine.cards:
            return ON_CPU
        return PEAK[self.model.shape.kind] + (ALONE if self.cards == 1 else TOGETHER)

    @property
    def pool(self) -> Pool:
        return pool(self.model.shape, self.cards, self.machine.block, self.machine.ahead)

    @property
    def window(self) -> int:
        """Bytes of the cache that a full window takes, on each card."""
        return self.pool.bytes_of(self.context)

    def need(self, windows: float) -> float:
        """Bytes on each card with a cache of so many windows."""
        return self.weights + self.peak + windows * self.window + STEP

    def placed(self, memory: float, share: float | None = None, replicas: int = 1) -> "Placed":
        """With so many bytes of each card. share: of one card, where others are on it too."""
        left = max(0.0, memory - self.weights - self.peak)
        return Placed(self, int(left // STEP) * STEP, share, replicas)


@dataclass(frozen=True)
class Placed:
    """An engine with its part of the machine."""

    engine: Engine
    cache: int
    """bytes of the cache on each card, kv_cache_memory_bytes"""
    share: float | None = None
    """of one card, or of the computer's memory; none: whole cards"""
    replicas: int = 1
    """how many of it, each on cards of its own"""

    @property
    def windows(self) -> float:
        """Full windows at once, as vLLM calls it: maximum concurrency."""
        return self.engine.pool.requests(self.cache, self.engine.context)

    @property
    def tokens(self) -> int:
        """Tokens that the cache holds, in full windows."""
        return int(self.windows * self.engine.context)

    @property
    def short(self) -> int:
        """Requests of 2,048 tokens at once."""
        return int(self.engine.pool.requests(self.cache, min(SHORT, self.engine.context)))

    @property
    def usd_hour(self) -> float:
        """USD an hour of one replica."""
        return self.engine.machine.usd_hour * (self.engine.cards if self.share is None else self.share)
