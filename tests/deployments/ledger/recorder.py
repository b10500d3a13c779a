"""What a child process does in the tests: record, and say so by a line in a file once a trace is durable."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

from made import call, opened, trace

from deployments.ledger import database


def record(url: str, name: str, total: int, said: Path, busy_s: float = 5.0) -> None:
    """Eight requests at once, one after the other until `total`; half of their calls are measured late."""
    database.BUSY_S = busy_s
    asyncio.run(requests(url, name, iter(range(total)), os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND)))


async def requests(url: str, name: str, numbers: Iterator[int], said: int) -> None:
    async with opened(url) as ledger:

        async def one_after_the_other() -> None:
            for n in numbers:
                id = f"{name}-{n}"
                await ledger.record(trace(id, n_calls=1 + n % 3, key_id=f"key{n % 3}"))
                os.write(said, f"{id}\n".encode())
                if n % 2:
                    await ledger.readings({f"{id}/0": (1.0, 0.5)})
                if n % 5 == 0:
                    await ledger.add([call(id, 9, role="audit")])

        await asyncio.gather(*(one_after_the_other() for _ in range(8)))
