"""Splits kept requests into what trains a student, what chooses among its weights, and what tests it once.

train  the oldest 70 % of the time that drawn requests span; also those that were not drawn
dev    drawn requests of the next 10 %, and older ones of conversations that are never trained on
test   all drawn requests of the newest 20 %

An hour, or 1 % of the log's time, is left out between the sides. What is like a row of test leaves dev and train, and what is
like one of dev leaves train, so that the test stays the traffic as it came.
"""

from collections.abc import Sequence

from router.flywheel.rows.near_duplicates import near_duplicates
from router.flywheel.rows.sides import Ints, Sides, asked_text, grouped
from router.flywheel.served import Served


class StudentSides(Sides):
    """The side of each row: train, dev or test."""

    shares = (0.70, 0.10)
    between = "dev"
    counts_held_out = False
    """what comes after the training's time and is held out makes the student's router, for which it cannot be too much"""

    def separate(self) -> None:
        self.part("dev", ("test",), "like one of test")
        self.part("train", ("dev", "test"), "like one of dev or test")


def groups_of(rows: Sequence[Served]) -> Ints:
    """(n,) the group of each row: conversations and near-duplicates."""
    return grouped(rows, near_duplicates([asked_text(row) for row in rows]))
