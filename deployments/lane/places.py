"""How many calls a replica takes at a time, those by other ways among them."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol


class Places(Protocol):
    """A replica's places for calls."""

    def free(self) -> bool:
        """Whether it takes one more."""

    def one(self) -> AbstractAsyncContextManager[None]:
        """One place, while a call is answered."""

    def taken(self) -> int:
        """Calls that it has."""


class CountedPlaces:
    """most: calls that come by lanes at a time; those by other ways are not known here."""

    def __init__(self, most: float = float("inf")) -> None:
        self.most, self.count = most, 0

    def free(self) -> bool:
        return self.count < self.most

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1

    def taken(self) -> int:
        return self.count
