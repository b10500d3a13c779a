"""What may stand after `auto:`: a target of the trained router, or a chance."""

from typing import get_args

from router.config import NamedTarget

TARGETS: tuple[str, ...] = get_args(NamedTarget)


def as_chance(text: str) -> float | None:
    """The number, if the text is one from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None
