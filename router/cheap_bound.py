"""A lower bound of a text's tokens that costs nothing to find: what surely exceeds a window is refused without being counted."""

from router.types import Counter, byte_bound


def fewest_tokens(text: str, count: Counter) -> int:
    """No token holds more bytes than the tokenizer's longest, the counter's `longest_bytes`; 0 where that is unknown."""
    longest = int(getattr(count, "longest_bytes", 0))
    return -(-byte_bound(text) // longest) if longest else 0


def surely_too_long(text: str, window: int, count: Counter) -> bool:
    """Whether the text alone exceeds a window of so many tokens, whatever its exact count is."""
    return fewest_tokens(text, count) > window
