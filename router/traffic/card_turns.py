"""Whose turn it is on a GPU that does not hold all its tiers at once: a pure decision on what each of them says of itself."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Holder:
    """One engine on the card, as it last said."""

    name: str
    """its replica's"""
    gib: float
    """that it holds while it is awake"""
    kept_gib: float
    """that it still holds while it dozes"""
    awake: bool
    calls: int
    """under way or waiting"""
    last_s: float
    """when its last call ended, in seconds of the wall clock"""

    @property
    def held_gib(self) -> float:
        return self.gib if self.awake else self.kept_gib


def who_dozes(wanted_gib: float, total_gib: float, others: Sequence[Holder]) -> list[str] | None:
    """Whom to let doze so that `wanted_gib` fit beside the others: as few as it takes of those without calls, idle longest first.

    Empty: they fit now. None: they do not, whoever of them dozes; wait until one of the busy ones is idle.
    """
    missing_gib = wanted_gib + sum(other.held_gib for other in others) - total_gib
    dozing: list[str] = []
    for other in sorted((o for o in others if o.awake and not o.calls), key=lambda o: (o.last_s, o.name)):
        if missing_gib <= 0:
            break
        dozing.append(other.name)
        missing_gib -= other.gib - other.kept_gib
    return dozing if missing_gib <= 0 else None
