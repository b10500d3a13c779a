"""Events of a response's stream, as its items tell them."""

from collections.abc import Callable
from typing import Any

Tell = Callable[[str, dict[str, Any]], None]
"""takes an event's type and fields; the stream numbers and writes them, a whole answer drops them"""
Item = dict[str, Any]
ADDED = "response.output_item.added"
DONE = "response.output_item.done"
