"""Which requests may teach, certify and test the router of a student: those that say how it does on requests it never saw.

On what it was trained on it is better than it will ever be, and what it was trained on was chosen by what it got wrong, so the
rest of that time is no fair sample either. Fair are the requests after it, and the conversations that no run ever trains on.
"""

from collections.abc import Collection, Sequence

from router.flywheel.rows.sides import held_out
from router.flywheel.served import Served

TRAINED_ON = "the student was trained on it, or on requests of its time"


def fair(rows: Sequence[Served], trained_ids: Collection[str], until_s: float) -> tuple[list[Served], dict[str, int]]:
    """The rows that may be used, and the number of the others by reason.

    trained_ids: the requests that the student was trained on. until_s: the time of the newest of them.
    """
    found = [row for row in rows if row.trace_id not in trained_ids and (row.at_s > until_s or held_out(row))]
    left = len(rows) - len(found)
    return found, {TRAINED_ON: left} if left else {}
