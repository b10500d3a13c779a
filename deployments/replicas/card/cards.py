"""Which GPUs of one machine Ray gives to the replicas of a ladder, worked out beforehand.

Ray's rule, as observed on pretended GPUs: a share goes to the card that has least left of those where it fits, the first of
equals; a whole GPU goes to one that is entirely free. Replicas are placed one after the other, and none is moved later, so what
needs most has to come first: 0.6, 0.6, 0.4, 0.4 fit on two cards, 0.4, 0.4, 0.6, 0.6 do not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from router.engine_settings import VllmReplicas
from router.errors import BadConfig

UNIT = 10_000  # parts of a card; Ray counts in no smaller ones


@dataclass(frozen=True, slots=True)
class Need:
    """GPUs of one replica."""

    name: str
    """of its tier or service"""
    share: float
    """of each card, more than 0 and at most 1"""
    cards: int = 1
    """cards that work on it together"""


def needs(those: Iterable[VllmReplicas]) -> list[Need]:
    """One for each replica that is to run on GPUs, the largest first: the order in which they are deployed.

    A tier that sleeps counts once, for it has to find a place when it wakes.
    """
    found = [
        Need(str(getattr(one, "name", "")), one.gpu or 1.0, one.tensor_parallel)
        for one in those
        if not one.on_cpu
        for _ in range(max(1, one.replicas))
    ]
    return sorted(found, key=lambda need: -need.share * need.cards)


def placed(wanted: Sequence[Need], cards: int) -> list[tuple[Need, tuple[int, ...]]]:
    """Each replica with the numbers of its cards, in the order in which they are placed. cards: of the machine.

    Raises BadConfig where one has no place, or would have two parts of one model on the same card.
    """
    left, found = [UNIT] * cards, list[tuple[Need, tuple[int, ...]]]()
    for need in wanted:
        its = tuple(put(need, left) for _ in range(need.cards))
        if -1 in its:
            raise BadConfig(no_place(need, wanted, cards, found))
        if len(set(its)) < len(its):
            raise BadConfig(
                f"{need.name}: Ray would put {need.cards} parts of its model on the same GPU, where they cannot work together; "
                "give it whole GPUs (remove gpu)"
            )
        found.append((need, its))
    return found


def put(need: Need, left: list[int]) -> int:
    """The card that one part gets, which is taken off `left`; -1: none has room."""
    parts = round(need.share * UNIT)
    fits = [card for card, free in enumerate(left) if free >= parts]
    if not fits:
        return -1
    card = min(fits, key=lambda each: left[each])
    left[card] -= parts
    return card


def no_place(need: Need, wanted: Sequence[Need], cards: int, found: Sequence[tuple[Need, tuple[int, ...]]]) -> str:
    taken = "; ".join(f"{one.name} {one.share:g} on {', '.join(map(str, its))}" for one, its in found) or "nothing"
    least = fewest(wanted)
    return (
        f"{need.name} needs {need.share:g} of {need.cards} GPU{'s' if need.cards > 1 else ''}, and has no place on a machine "
        f"with {cards} (placed before: {taken}); make shares smaller, so that they add up to at most 1 on each card, or use "
        f"{least} GPUs"
    )


def fewest(wanted: Sequence[Need]) -> int:
    """GPUs of the smallest machine on which all have a place; each needs at most as many as it has parts."""
    for cards in range(1, sum(need.cards for need in wanted) + 1):
        left = [UNIT] * cards
        if all(put(need, left) >= 0 for need in wanted for _ in range(need.cards)):
            return cards
    return 0
