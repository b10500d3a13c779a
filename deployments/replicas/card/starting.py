"""Where a replica that shares its card meets its dozer: it starts in its turn, and its calls wait until it is awake."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from typing import NamedTuple

from deployments.lane.frames import Item
from deployments.replicas.card.board import CardBoard, folder_of
from deployments.replicas.card.dozer import Alone, Dozer, Engine, Turns, room
from deployments.replicas.card.node_lock import NodeLock, node_lock
from deployments.replicas.replica_health import FailureStreak
from router.config import VllmTier
from router.doze_settings import Card
from router.errors import TierDozing


class Place(NamedTuple):
    """A replica's place on its card."""

    lock: NodeLock
    turns: Turns


@asynccontextmanager
async def in_turn(name: str, shares: bool, card: Card | None, replica: Callable[[], str]) -> AsyncIterator[Place | None]:
    """Around the start of a replica's engine, its first requests included: no other replica of this machine that shares a card
    starts, dozes or wakes meanwhile. None: it has its cards alone, and waits for nobody.

    name: of its tier or service. replica: its own, asked for only where it takes turns. Raises OSError, BadConfig where the lock
    cannot be had.
    """
    if not shares:
        yield None
        return
    place = Place(node_lock(name), Alone())
    if card:
        async with place.lock.held():
            place = place._replace(turns=CardBoard(folder_of(card.group, place.lock.path.parent), replica(), card))
    try:
        async with room(place.lock, place.turns):
            yield place
    except BaseException:  # it does not start, so it holds nothing
        place.turns.close()
        raise


def started_dozer(
    tier: VllmTier | None, place: Place | None, engine: Engine, try_token: Callable[[], Awaitable[None]]
) -> Dozer | None:
    """A dozer that looks from now on whether it is time to doze. None: the tier never does."""
    if tier is None or tier.doze is None or place is None:
        return None
    wait_s = tier.scaling.cold_start_wait_s if tier.scaling.when_cold == "degrade" else float("inf")
    made = Dozer(tier.name, engine, tier.doze.after_s, wait_s, place.lock, try_token, place.turns)
    made.start()
    return made


def awake(dozer: Dozer | None) -> AbstractAsyncContextManager[None]:
    """Around what needs the engine. dozer: None: it always is awake."""
    return dozer.call() if dozer else nullcontext()


async def woken(dozer: Dozer | None, held: AsyncExitStack, streak: FailureStreak) -> Item | None:
    """Keep the engine awake until `held` ends. Returns what to answer a call that cannot wait until it is; None: it is.

    Raises what waking raised, which counts as the engine's failure.
    """
    if dozer is None:
        return None
    try:
        await held.enter_async_context(dozer.call())
    except TierDozing as error:
        return error.status, json.dumps(error.body()), ""
    except Exception:
        streak.note(500)
        raise
    return None
