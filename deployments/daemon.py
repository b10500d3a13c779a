"""Work in the background of requests, until it is stopped."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Daemon:
    """At most one task of `work()`, however often it is started."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.work = work
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = self.task or asyncio.create_task(self.work())

    async def stop(self) -> bool:
        """Returns when the task has ended. False: it was not running."""
        task, self.task = self.task, None
        if task is None:
            return False
        task.cancel()
        await asyncio.wait({task})
        return True
