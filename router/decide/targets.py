"""What may stand after `auto:`: a target of the trained router, or a chance."""

TARGETS = ("cheap", "balanced", "quality")


def as_chance(text: str) -> float | None:
    """A number in [0, 1], or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None
