"""Texts that one ingress keeps for a while and any of them may need: hidden turns, answers to be continued. In memory only."""

import time
from collections import OrderedDict
from collections.abc import Callable

TTL_S = 1_800.0  # after their last use


class Shelf:
    """Texts by name, within `most_bytes`; the longest unused are forgotten first. clock: seconds that never jump."""

    def __init__(self, most_bytes: int, ttl_s: float = TTL_S, clock: Callable[[], float] = time.monotonic) -> None:
        self.most_bytes, self.ttl_s, self.clock = most_bytes, ttl_s, clock
        self.known: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        """name -> until when, the text; in the order of their use"""
        self.bytes = 0

    def put(self, name: str, text: bytes) -> None:
        self.drop(name)
        self.known[name] = self.clock() + self.ttl_s, text
        self.bytes += len(text)
        while self.known and (self.bytes > self.most_bytes or next(iter(self.known.values()))[0] <= self.clock()):
            self.drop(next(iter(self.known)))

    def get(self, name: str) -> bytes | None:
        until, text = self.known.get(name, (0.0, b""))
        if self.clock() >= until:
            self.drop(name)
            return None
        self.known[name] = self.clock() + self.ttl_s, text
        self.known.move_to_end(name)
        return text

    def drop(self, name: str) -> None:
        self.bytes -= len(self.known.pop(name, (0.0, b""))[1])
