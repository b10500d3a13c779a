"""Which models a machine gets, on how many of its cards, and with what part of each."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from router.errors import DoesNotFit
from router.fit.families import Model
from router.fit.machine import GIB, Machine
from router.fit.memory import Engine, Placed
from router.fit.refusal import refusal

TOGETHER = (1, 2, 4, 8)
"""cards that may share a replica: vLLM divides heads evenly among them"""
SMALLER = 3
"""a smaller model passes at most one in so many of the larger one's active parameters"""
WINDOWS = 4.0
"""full windows that must be left by a model that is chosen here"""
NAMED_WINDOWS = 1.0
"""the same of one that somebody names: without one it cannot start"""
WHOLE = 100
"""shares of a card are given in hundredths"""
ON_CPU = ("bf16",)
"""weights that were tried on CPUs"""


@dataclass(frozen=True)
class Wish:
    """What a ladder must leave for requests."""

    windows: float = WINDOWS
    """full windows at once, of each model"""
    context: int = 32_768
    """tokens of a window, if the model's own is not smaller"""


def engines(model: Model, machine: Machine, wish: Wish, cards: int) -> Iterator[Engine]:
    """A model in each precision on one to so many cards, the most precise first, then the fewest cards.

    Several cards share a replica only where Ray has a name for them. On CPUs only weights that were tried there.
    """
    context = min(wish.context, model.shape.context)
    most = cards if machine.name else 1
    for checkpoint in model.checkpoints if machine.cards else [each for each in model.checkpoints if each.weights in ON_CPU]:
        for number in TOGETHER:
            if number <= max(1, most):
                yield Engine(model, checkpoint, machine, number, context)


def fitting(model: Model, machine: Machine, wish: Wish, cards: int, memory: float | None = None) -> Engine | None:
    """The first of them that leaves the windows in so many bytes of each card; None: none does. memory: by default all."""
    room = machine.usable if memory is None else memory
    return next((engine for engine in engines(model, machine, wish, cards) if engine.need(wish.windows) <= room), None)


def chosen(machine: Machine, models: Sequence[Model], wish: Wish) -> list[Placed]:
    """The largest of the models that leaves the windows, and a smaller one if room remains.

    Of several cards the largest gets half at most, so that there is room for a smaller one: a ladder of one model saves nothing
    but thoughts. models: the largest first. Raises DoesNotFit.
    """
    half = max(1, machine.cards // 2)
    large = next((found for model in models if (found := fitting(model, machine, wish, half))), None)
    if large is None:
        smallest = models[-1]
        raise DoesNotFit(refusal(smallest, machine, wish.windows, wish.context, half))
    limit = large.model.shape.active / SMALLER
    left = machine.cards - large.cards
    room = None if left > 0 else machine.usable * (WHOLE - hundredths(large, wish)) / WHOLE
    for model in models:
        if model.shape.active <= limit and (small := fitting(model, machine, wish, max(1, left // 2), room)):
            return placed(machine, [small, large], wish)
    return placed(machine, [large], wish)


def named(machine: Machine, models: Iterable[Model], wish: Wish) -> list[Placed]:
    """All of these models. Raises DoesNotFit where one has no room."""
    found: list[Engine] = []
    left = machine.cards
    waiting = sorted(models, key=lambda model: model.shape.total, reverse=True)
    for i, model in enumerate(waiting):
        others = len(waiting) - i - 1
        most = max(1, left - others)
        engine = fitting(model, machine, wish, most)
        if engine is None:
            raise DoesNotFit(refusal(model, machine, wish.windows, wish.context, most))
        found.append(engine)
        left -= engine.cards
    return placed(machine, found, wish)


def placed(machine: Machine, found: Sequence[Engine], wish: Wish) -> list[Placed]:
    """Engines with their parts of the machine. Cards that are left are replicas of the one with the fewest active parameters.

    Raises DoesNotFit where they need more cards than there are, even if several share one.
    """
    ordered = sorted(found, key=lambda engine: engine.model.shape.active)
    wanted = sum(engine.cards for engine in found)
    if machine.cards and wanted <= machine.cards:
        spare = (machine.cards - wanted) // ordered[0].cards
        return [engine.placed(machine.usable, replicas=1 + (0 if i else spare)) for i, engine in enumerate(ordered)]
    small = [engine for engine in ordered if engine.cards == 1]
    whole = [engine.placed(machine.usable) for engine in ordered if engine.cards > 1]
    shelves = packed(small, machine, wish, max(1, machine.cards) - sum(each.engine.cards for each in whole))
    return [*(each for shelf in shelves for each in shared(shelf, machine, wish)), *whole]


def hundredths(engine: Engine, wish: Wish) -> int:
    """The least share of a card that an engine needs, in hundredths."""
    return ceil(engine.need(wish.windows) / engine.machine.usable * WHOLE)


def packed(small: Sequence[Engine], machine: Machine, wish: Wish, cards: int) -> list[list[Engine]]:
    """Engines by the card that they share, the largest first, each on the first that has room. Raises DoesNotFit."""
    shelves: list[list[Engine]] = [[] for _ in range(max(0, cards))]
    for engine in sorted(small, key=lambda each: hundredths(each, wish), reverse=True):
        free = (shelf for shelf in shelves if sum(hundredths(each, wish) for each in [*shelf, engine]) <= WHOLE)
        shelf = next(free, None)
        if shelf is None:
            wanted = " + ".join(f"{each.need(wish.windows) / GIB:.1f} ({each.checkpoint.source})" for each in small)
            raise DoesNotFit(
                f"together they need {wanted} GiB with {wish.windows:g} windows of {wish.context:,} tokens each, and there are "
                f"{max(1, machine.cards)} x {machine.usable / GIB:.1f}; name fewer or smaller models, or ask for less with "
                "--windows and --context"
            )
        shelf.append(engine)
    return [shelf for shelf in shelves if shelf]


def shared(shelf: Sequence[Engine], machine: Machine, wish: Wish) -> Iterator[Placed]:
    """The engines of one card: all of it for one, else what each needs and its part of the rest, in hundredths."""
    if len(shelf) == 1:
        yield shelf[0].placed(machine.usable)
        return
    least = [hundredths(engine, wish) for engine in shelf]
    for engine, own in zip(shelf, least, strict=True):
        share = (own + (WHOLE - sum(least)) * own // sum(least)) / WHOLE
        yield engine.placed(machine.usable * share, share)
