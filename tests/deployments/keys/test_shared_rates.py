"""Limits a minute that are counted elsewhere: by one message, by the own share without it, and never for a client that left."""

import asyncio

import pytest

from deployments.keys.shared_rates import REST_S, SharedRates, rate_settled, rate_taken
from router.errors import RateLimited
from router.limits.key_limits import Key, RateLimits
from router.limits.reservation import Size

TEN = Key("k", "k", requests_per_minute=10)
SIZE = Size(10, 10)


class Place:
    """Where all are counted. slow: an event that answers wait for."""

    def __init__(self) -> None:
        self.rates, self.asked, self.away = RateLimits(), [], False
        self.slow: asyncio.Event | None = None

    async def __call__(self, method, *given):
        self.asked.append(method)
        if self.away:
            raise ConnectionError
        if method == "take_rate":
            found = rate_taken(self.rates, *given, 0.0)
            if self.slow:
                await self.slow.wait()
            return found
        return rate_settled(self.rates, *given)

    @property
    def used(self) -> int:
        return self.rates.requests["k"].used(0.0)


def meeting(place, clock=lambda: 0.0) -> SharedRates:
    rates = SharedRates(RateLimits(2), clock)
    rates.ask = place
    return rates


def test_a_key_without_limits_asks_nobody():
    place = Place()

    async def run():
        rates = meeting(place)
        await rates.check(Key("free", "free"))
        rates.settle(await rates.take(Key("free", "free"), SIZE), 5)

    asyncio.run(run())
    assert place.asked == []


def test_a_refusal_comes_back_as_it_was_and_the_next_request_is_refused_before_it_is_read():
    place = Place()

    async def run():
        rates = meeting(place)
        await rates.check(TEN)
        assert place.asked == [], "nobody was refused yet"
        for _ in range(10):
            await rates.take(TEN, SIZE)
        with pytest.raises(RateLimited, match="10 requests a minute"):
            await rates.take(TEN, SIZE)
        with pytest.raises(RateLimited, match="10 requests a minute"):
            await rates.check(TEN)
        place.rates.requests["k"].slots.clear()
        await rates.check(TEN)

    asyncio.run(run())


def test_undone_there_what_was_taken_there_and_here_what_was_taken_here():
    place, now = Place(), [0.0]

    async def run():
        rates = meeting(place, lambda: now[0])
        there = await rates.take(TEN, SIZE)
        place.away = True
        here = await rates.take(TEN, SIZE)
        assert (there.shared, here.shared) == (True, False)
        before = len(place.asked)
        await rates.take(TEN, SIZE)
        assert len(place.asked) == before, "for a moment it is not asked"
        place.away = False
        rates.undo(here)
        assert rates.own.requests["k"].used(0.0) == 1
        rates.undo(there)
        await asyncio.gather(*rates.settling)
        now[0] = REST_S + 1
        await rates.take(TEN, SIZE)

    asyncio.run(run())
    assert place.used == 1


def test_a_client_that_leaves_while_it_is_counted_is_not_counted():
    place = Place()

    async def run():
        place.slow = asyncio.Event()
        rates = meeting(place)
        taking = asyncio.create_task(rates.take(TEN, SIZE))
        while not place.asked:
            await asyncio.sleep(0)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        assert place.used == 1
        place.slow.set()
        while not rates.settling:
            await asyncio.sleep(0)
        await asyncio.gather(*rates.settling)

    asyncio.run(run())
    assert place.used == 0
