"""How many bytes of vLLM's cache one request takes.

After vLLM 0.29, v1/core/kv_cache_utils.py and v1/kv_cache_interface.py: layers of one kind form groups of equal size, groups
share a pool of blocks whose pages have one size, and a request takes whole blocks of each group.
"""

from dataclasses import dataclass, replace
from math import ceil

from router.fit.shape import Attention, Shape

STATES = 2
"""pages that a request takes in each layer with a state: with prefix caching one for the step and one that is kept"""
MUCH_LARGER = 1.5
"""a kind with so many times the layers of the smallest is cut into groups of that size; less: groups of the larger size"""


@dataclass(frozen=True)
class Kind:
    """Layers with one kind of cache."""

    layers: int
    page: int
    """bytes of a block in one layer"""
    block: int
    """tokens of a block"""
    window: int | None = None
    """tokens that it looks back"""
    state: bool = False
    """it keeps a state and no tokens"""

    def blocks(self, tokens: int, ahead: int) -> int:
        """Blocks of a request with so many tokens, at most."""
        if self.state:
            return STATES
        if self.window is None:
            return ceil(tokens / self.block)
        return ceil(min(self.window - 1 + ahead, tokens) / self.block) + 1


@dataclass(frozen=True)
class Pool:
    """The blocks of a model on one card."""

    block: int
    """bytes of one block of a group, over all its layers"""
    groups: tuple[tuple[Kind, int], ...]
    """each kind of layers, and in how many groups it is"""
    ahead: int
    """tokens that are in work at once: they hold blocks of sliding windows"""

    def blocks(self, tokens: int) -> int:
        """Blocks that one request with so many tokens takes."""
        return sum(number * kind.blocks(tokens, self.ahead) for kind, number in self.groups)

    def bytes_of(self, tokens: int) -> int:
        """The same in bytes."""
        return self.block * self.blocks(tokens)

    def requests(self, memory: float, tokens: int) -> float:
        """How many requests of so many tokens this memory holds at once."""
        return max(0, memory // self.block) / self.blocks(tokens)


def pool(shape: Shape, cards: int, block: int, ahead: int) -> Pool:
    """The blocks of a model on each of `cards` that share it. block: vLLM's, in tokens. ahead: tokens in work at once."""
    found = kinds(shape, cards, block)
    if all(kind.window is None and not kind.state for kind in found):
        whole = replace(found[0], layers=sum(kind.layers for kind in found))
        return Pool(sum(kind.page * kind.layers for kind in found), ((whole, 1),), ahead)
    page = max(kind.page for kind in found)
    even = [stretched(kind, page) for kind in found]
    layers = [kind.layers for kind in even]
    size = max(layers) if max(layers) < MUCH_LARGER * min(layers) else min(layers)
    return Pool(size * page, tuple((kind, ceil(kind.layers / size)) for kind in even), ahead)


def kinds(shape: Shape, cards: int, block: int) -> list[Kind]:
    """Kinds of layers. In a hybrid a block has so many tokens that its page holds a state."""
    if shape.state is None:
        return [tokens_kept(each, cards, block) for each in shape.attention]
    token = max(each.token_bytes(cards) for each in shape.attention)
    wide = block * ceil(shape.state.page(cards) / (block * token))
    state = Kind(shape.state.layers, wide * token, wide, state=True)
    return [*(tokens_kept(each, cards, wide) for each in shape.attention), state]


def tokens_kept(each: Attention, cards: int, block: int) -> Kind:
    return Kind(each.layers, each.token_bytes(cards) * block, block, each.window)


def stretched(kind: Kind, page: int) -> Kind:
    """The kind with pages of this size: of more tokens where that divides evenly, else padded."""
    if kind.state or page % kind.page:
        return replace(kind, page=page)
    return replace(kind, page=page, block=kind.block * (page // kind.page))
