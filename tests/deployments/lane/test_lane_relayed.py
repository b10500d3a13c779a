"""Items that go on from a lane to the client's socket without a reader, and those that must not."""

import asyncio

import pytest
from laid_lanes import BODY, TOLD, go, laid, lane_of

from deployments.lane import sockets
from deployments.tiers.rung_tier import RungTier
from router.trace import Reading


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sockets.tempfile, "gettempdir", lambda: "/tmp" if len(str(tmp_path)) > 60 else str(tmp_path))


class Relayed:
    """A relay: takes what the client's socket takes."""

    def __init__(self, taken):
        self.taken = taken

    def take(self, part, changed=None):
        if b"plain" in part:
            self.taken.append(changed(part) if changed else part)
            return True
        return False


def test_items_that_mean_nothing_but_their_text_go_the_short_way_and_none_changes_its_place():
    async def scenario():
        async with laid() as (tier, replica, _):
            replica.items = [(200, f"data: {'plain' if n % 10 else 'odd'} {n}\n\n", TOLD if n == 99 else "") for n in range(100)]
            reading, seen = Reading(), []
            reading.relay = Relayed(seen)
            async for item in tier.stream("chat/completions", BODY, reading, "c"):
                seen.append(item)
            assert [int(part.split()[2]) for part in b"".join(seen).split(b"\n\n") if part] == list(range(100))
            assert reading.busy_s == 0.5 and lane_of(tier).busy == 0  # the last item was read, with its measurement

    go(scenario)


def test_what_comes_while_somebody_waits_goes_the_short_way_and_what_is_left_to_read_does_not():
    async def scenario():
        async with laid() as (tier, replica, _):
            replica.items = [(200, f"data: plain {n}\n\n", "") for n in range(40)]
            reading = Reading()
            reading.relay = Relayed(short := [])
            events = tier.stream("chat/completions", BODY, reading, "c")
            read = [await anext(events)]
            await asyncio.sleep(0.1)  # nobody waits: all of them are kept
            assert not short
            read += [item async for item in events]
            assert [int(item.split()[2]) for item in read] == list(range(40)) and not short
            replica.gate_after = 1
            events = tier.stream("chat/completions", BODY, reading, "d")
            assert await anext(events)
            rest = asyncio.create_task(anext(events, None))
            await asyncio.sleep(0)
            replica.go.set()
            assert await rest is None and len(short) == 39

    go(scenario)


def test_an_error_in_mid_stream_is_never_taken_for_a_text():
    async def scenario():
        async with laid() as (tier, replica, _):
            replica.items, replica.gate_after = [(200, "data: odd\n\n", ""), (500, "plain", "")], 1
            reading = Reading()
            reading.relay = Relayed(short := [])
            events = tier.stream("chat/completions", BODY, reading, "c")
            assert await anext(events) == b"data: odd\n\n"
            rest = asyncio.create_task(anext(events, None))
            await asyncio.sleep(0)
            replica.go.set()
            assert await rest == b"plain" and not short
            await events.aclose()

    go(scenario)


def test_a_rungs_name_is_put_in_on_the_short_way_too():
    async def scenario():
        async with laid() as (host, replica, _):
            rung = RungTier("mail", host, "mail@0123")
            replica.gate_after, replica.items = 1, [(200, f'data: {{"model":"mail@0123"}} plain {n}\n\n', "") for n in range(3)]
            reading = Reading()
            reading.relay = Relayed(seen := [])
            events = rung.stream("chat/completions", BODY, reading, "c")
            seen.append(await anext(events))
            rest = asyncio.create_task(anext(events, None))
            await asyncio.sleep(0)
            rung.served = "mail@4567"  # counts for new streams
            replica.go.set()
            assert await rest is None
            assert len(seen) == 3 and all(b'"model":"mail"' in item for item in seen)

    go(scenario)


def test_what_is_left_to_read_is_bounded():
    async def scenario():
        async with laid() as (tier, _, end):
            made = []

            async def long(path, raw, call_id="", missed=(), hint=""):
                for n in range(2000):
                    made.append(n)
                    yield 200, "x" * 10_000, ""

            end.answer = long
            events = tier.stream("chat/completions", BODY)
            assert await anext(events)
            await asyncio.sleep(0.2)
            assert len(made) < 1000  # the socket's own buffers among them
            assert len([item async for item in events]) == 1999 and len(made) == 2000

    go(scenario)
