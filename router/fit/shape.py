"""What a model's memory depends on: its parameters by part, and the layers that keep something of each request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Part = Literal["embeddings", "attention", "mlp", "experts", "other"]
PARTS: tuple[Part, ...] = ("embeddings", "attention", "mlp", "experts", "other")
"""`mlp` has the experts that every token passes; `other` are norms, biases, gates, which nobody quantises"""
LINEAR: tuple[Part, ...] = ("attention", "mlp", "experts")
"""parts that are quantised unless a checkpoint says otherwise"""
VALUE = 2  # bytes of a value in the cache, and of a weight that is not quantised: bfloat16
Weights = Literal["bf16", "fp8", "int4", "mxfp4", "nvfp4"]
BYTES: dict[Weights, float] = {
    "bf16": 2.0,
    "fp8": 1 + 4 / 128**2,  # a scale of 4 bytes for a square of 128
    "int4": 0.5 + 2.5 / 128,  # a scale of 2 bytes and a zero of half a byte for 128 weights
    "mxfp4": 0.5 + 1 / 32,  # a scale of 1 byte for 32 weights
    "nvfp4": 0.5 + 1 / 16,  # the same for 16
}
"""bytes of a quantised weight, its share of scales included. AWQ in groups of 128: 6.10 GB for Qwen3-8B, as its files"""


@dataclass(frozen=True)
class Attention:
    """Layers of one kind that keep keys and values."""

    layers: int
    """how many that have a cache of their own"""
    kv_heads: int
    """heads of keys and of values, of the whole model"""
    head_size: int
    """values of a head"""
    window: int | None = None
    """tokens that a layer looks back; none: all"""

    def token_bytes(self, cards: int) -> int:
        """Bytes that one token takes in one layer on each of the cards. A head is never split, so there is at least one."""
        return 2 * max(1, self.kv_heads // cards) * self.head_size * VALUE


@dataclass(frozen=True)
class State:
    """Layers that keep a state of fixed size for each request instead of keys and values (gated delta net)."""

    layers: int
    """how many"""
    convolved: int
    """values of the convolution's window, 2 bytes each"""
    recurrent: int
    """values of the recurrent state, 4 bytes each"""

    def page(self, cards: int) -> int:
        """Bytes of one state in one layer, on each of the cards."""
        return (self.convolved * VALUE + self.recurrent * 4) // cards


@dataclass(frozen=True)
class Shape:
    """A model's layers and parameters, whatever its weights' precision."""

    parameters: Mapping[Part, int]
    """how many in each part, without vision and audio, which text does not need"""
    active: int
    """how many a token passes, without the embeddings"""
    attention: tuple[Attention, ...]
    """kinds of layers with keys and values"""
    state: State | None
    """layers with a state, of a hybrid"""
    context: int
    """tokens of its largest window"""
    kind: Literal["dense", "moe", "gemma"]
    """which measured peak is used"""
    sees: bool = False
    """it has a part for images, which is left out"""

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(self.parameters.values())


@dataclass(frozen=True)
class Checkpoint:
    """Weights of one precision, as they can be loaded."""

    source: str
    """a hub id, or a folder"""
    weights: Weights = "bf16"
    """of the quantised parts"""
    left: tuple[Part, ...] = ()
    """linear parts that are not quantised"""
    measured: int | None = None
    """bytes of all weights as the files say; none: they are computed"""

    def bytes_of(self, shape: Shape) -> float:
        """Bytes of the weights on all cards together."""
        if self.measured is not None:
            return float(self.measured)
        small = [part for part in LINEAR if part not in self.left]
        return sum(number * (BYTES[self.weights] if part in small else VALUE) for part, number in shape.parameters.items())
