"""What benchmarks promise: a bound on a figure, and whether it held."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Line = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """A bound on one figure of every line of a scenario. of: tells the lines apart."""

    scenario: str
    figure: str
    bound: float
    least: bool = False
    """the bound is the least it may be, else the most"""
    of: str = ""

    def seen(self, lines: Iterable[Line]) -> Iterator[Line]:
        """One verdict a line. A figure that was not measured did not hold."""
        for line in lines:
            if line["scenario"] == self.scenario:
                value = line.get(self.figure)
                held = value is not None and (value >= self.bound if self.least else value <= self.bound)
                told = {"scenario": self.scenario, "figure": self.figure, "is": value}
                told |= {self.of: line[self.of]} if self.of else {}
                yield told | {"wanted": f"{'>=' if self.least else '<='} {self.bound:g}", "held": held}


def verdict(wanted: Iterable[Wanted], lines: list[Line]) -> Line:
    """All that was promised of these lines, and how much of it held."""
    seen = [told for one in wanted for told in one.seen(lines)]
    return {"summary": seen, "held": sum(told["held"] for told in seen), "of": len(seen)}
