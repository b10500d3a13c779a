"""Loads a further LoRA adapter on all replicas of a host while they serve, and forgets an old one.

A successor is always another adapter under another name, beside the one in use; `RungTier.served` then switches new requests.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from deployments.replicas.adapter_files import Adapter
from deployments.replicas.adapters import on_board, write_board
from router.errors import BadInput

LOOK_S = 0.5  # between two looks at the replicas
LOAD_S = 600.0  # until all replicas of a host must have it


async def load_on_all(
    handle: Any, running: Callable[[], Awaitable[int]], board: Path, adapter: Adapter, most_s: float = LOAD_S
) -> None:
    """Return when every running replica has the adapter and was tried with it; replicas that start later read the board.

    handle: of the host's deployment. running: counts its replicas. Raises BadConfig where a replica cannot load it, BadInput
    where not all have it in time; then none keeps it.
    """
    before = on_board(board)
    write_board(board, {**before, adapter.name: adapter.folder})
    try:
        async with asyncio.timeout(most_s):
            while count := await running():
                loaded = await handle.broadcast("load_adapter", adapter.name, adapter.folder).results_async()
                if len(loaded) >= count:
                    return
                await asyncio.sleep(LOOK_S)
    except BaseException as error:
        await unload_from_all(handle, running, board, adapter.name)
        if isinstance(error, TimeoutError):
            raise BadInput(f"{adapter.name}: not all replicas of its host could load it within {most_s:g} s; try again") from None
        raise


async def unload_from_all(handle: Any, running: Callable[[], Awaitable[int]], board: Path, name: str) -> None:
    """Forget an adapter that is asked for no more. What is being answered by it is answered to the end."""
    write_board(board, {other: folder for other, folder in on_board(board).items() if other != name})
    if await running():
        await handle.broadcast("unload_adapter", name).results_async()
