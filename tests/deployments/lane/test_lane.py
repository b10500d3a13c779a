"""The straight line to a tier's one replica: what comes through, what breaks, what is given up; both ends on one loop."""

import asyncio
import json
import os
import time
from contextlib import asynccontextmanager, suppress

import pytest

from deployments.lane import client, server
from deployments.lane.client import Lane
from deployments.lane.server import LaneServer
from deployments.tiers.serve_tier import CallPolicy, ServeTier
from router.errors import NoReplica, TierFailed
from router.trace import Reading

BODY = {"model": "it", "messages": [{"role": "user", "content": "Zürich\n\u2028 \U0001f600"}]}
TOLD = '{"replica": "r", "busy_s": 0.5, "cached_tokens": 3, "late": {}, "replica_busy_s": 1, "replica_began_s": 2, "ratio": 1}'


class Replica:
    """What a replica answers to each call, and what it was asked."""

    def __init__(self) -> None:
        self.asked, self.ended, self.items, self.fault = [], 0, [(200, '{"text": "gr\u00fc\u00df"}', TOLD)], None
        self.go, self.gate_after = asyncio.Event(), 10**9

    async def openai(self, path, raw, call_id="", missed=(), hint=""):
        self.asked.append((path, raw, call_id, list(missed), hint))
        try:
            for n, item in enumerate(self.items):
                if n == self.gate_after:
                    await self.go.wait()
                yield item
            if self.fault:
                raise self.fault
        finally:
            self.ended += 1


class Handle:
    """Serve's: it is asked while there is no lane."""

    deployment_name = "tier-it"

    def __init__(self, replica):
        self.replica, self.calls = replica, 0

    def options(self, **_):
        return self

    def remote(self, *arguments):
        self.calls += 1
        return Items(self.replica.openai(*arguments))


class Items:
    def __init__(self, items):
        self.items = items

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await anext(self.items)

    def cancel(self):
        pass


async def one():
    return 1


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(server.tempfile, "gettempdir", lambda: "/tmp" if len(str(tmp_path)) > 60 else str(tmp_path))


@asynccontextmanager
async def laid(timeout_s=5.0, there="here"):
    """(tier, replica, its end of the lane), with the lane found."""
    replica = Replica()
    end = LaneServer(replica.openai, f"test-{os.getpid()}-{time.monotonic_ns()}")
    await end.start()

    async def where():
        return there, end.path

    line = Lane(where, "here")
    tier = ServeTier("it", Handle(replica), one, CallPolicy(timeout_s), lane=line)
    await line.connection()
    if line.looking:
        await line.looking
    if line.path:
        await until(lambda: end.open)
    try:
        yield tier, replica, end
    finally:
        await tier.close()
        await end.close(1.0)


def go(scenario):
    async def limited():
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(limited())


def test_a_whole_answer_and_its_reading_come_through_and_the_connection_is_used_again():
    async def scenario():
        async with laid() as (tier, replica, end):
            for n in range(5):
                reading = Reading()
                assert await tier.complete("chat/completions", BODY, reading, f"c{n}") == '{"text": "grüß"}'.encode()
                assert (reading.busy_s, reading.cached_tokens, reading.replica) == (0.5, 3, "r")
                await asyncio.sleep(0)
            assert tier.handle.calls == 0 and len(end.open) == 1 and replica.ended == 5
            assert json.loads(replica.asked[0][1]) == BODY and replica.asked[0][2:] == ("c0", [], "")

    go(scenario)


def test_a_stream_comes_item_by_item_and_many_at_once_do_not_mix():
    async def scenario():
        async with laid() as (tier, replica, end):

            async def numbered(path, raw, call_id="", missed=(), hint=""):
                for n in range(20):
                    await asyncio.sleep(0)
                    yield 200, f"data: {call_id} {n} " + "x" * 5000 + "\n\n", ""

            end.answer = numbered

            async def read(call_id):
                return [item async for item in tier.stream("chat/completions", BODY, None, call_id)]

            every = await asyncio.gather(*(read(f"c{n}") for n in range(30)))
            for n, items in enumerate(every):
                assert [item.split()[1:3] for item in items] == [[f"c{n}".encode(), b"%d" % k] for k in range(20)]
            assert len(end.open) == len(tier.lane.free) == 30 and tier.lane.busy == 0  # all may be used again

    go(scenario)


def test_who_leaves_stops_the_replica_and_the_next_call_is_answered():
    async def scenario():
        async with laid() as (tier, replica, end):
            replica.items = [*replica.items, *replica.items]
            for stream in (False, True):
                replica.gate_after, ended = 1 if stream else 0, replica.ended
                asked = asyncio.create_task(all_of(tier) if stream else tier.complete("chat/completions", BODY, None, "c"))
                await until(lambda: len(replica.asked) > ended)  # noqa: B023
                await asyncio.sleep(0.01)
                asked.cancel()
                with suppress(asyncio.CancelledError):
                    await asked
                await until(lambda: replica.ended == ended + 1)  # noqa: B023
                assert "c" in tier.missed  # its reading is asked for by the next
            replica.items, replica.gate_after = replica.items[:1], 10**9
            assert await tier.complete("chat/completions", BODY)
            await until(lambda: len(end.open) == 1)
            assert replica.asked[-1][3] == ["c"] and tier.lane.busy == 0

    go(scenario)


def test_a_replica_that_dies_before_its_first_item_is_a_lost_one_and_after_it_a_broken_stream():
    async def scenario():
        async with laid() as (tier, replica, end):
            replica.gate_after = 0
            asked = asyncio.create_task(tier.complete("chat/completions", BODY, None, "c"))
            await until(lambda: replica.asked)
            killed(end)
            with pytest.raises(NoReplica) as found:
                await asked
            assert found.value.lost and found.value.status == 503
            replica.items, replica.gate_after = [*replica.items, *replica.items], 1
            got = []
            with pytest.raises(TierFailed, match="mid-answer"):
                async for item in tier.stream("chat/completions", BODY):
                    got.append(item)
                    killed(end)
            assert len(got) == 1 and tier.handle.calls == 0 and tier.lane.busy == 0

    go(scenario)


def test_more_calls_than_the_tier_takes_go_by_the_handle():
    async def scenario():
        async with laid() as (tier, replica, end):
            tier.lane.limit, replica.gate_after = 3, 0
            asked = [asyncio.create_task(tier.complete("chat/completions", BODY)) for _ in range(5)]
            await until(lambda: len(replica.asked) == 5)
            assert tier.handle.calls == 2 and len(end.open) == 3
            replica.go.set()
            assert len(await asyncio.gather(*asked)) == 5 and tier.lane.busy == 0
            assert await tier.complete("chat/completions", BODY)
            assert tier.handle.calls == 2

    go(scenario)


def test_hundreds_of_calls_at_one_stroke_are_all_answered():
    async def scenario():
        async with laid() as (tier, replica, end):
            answers = await asyncio.gather(*(tier.complete("chat/completions", BODY, None, f"c{n}") for n in range(600)))
            assert len(answers) == len({asked[2] for asked in replica.asked}) == 600 and tier.lane.busy == 0
            await until(lambda: len(end.open) <= client.IDLE)

    go(scenario)


def test_a_socket_that_cannot_be_reached_from_here_is_no_lane():
    """The replica is in another container on the machine."""

    async def scenario():
        async with laid() as (_, _, _):

            async def where():
                return "here", "/nowhere/at-all"

            found = Lane(where, "here")
            assert await found.connection() is None
            await found.looking
            assert await found.connection() is None and not found.path and found.next_look_s > time.monotonic() + 30

    go(scenario)


def test_a_failure_in_the_replica_is_a_lost_replica_too(caplog):
    async def scenario():
        async with laid() as (tier, replica, _):
            replica.items, replica.fault = [], RuntimeError("the engine is dead")
            with pytest.raises(NoReplica, match="LaneLost"):
                await tier.complete("chat/completions", BODY)
            assert "the engine is dead" in caplog.text

    go(scenario)


def test_an_error_of_the_engine_has_its_status():
    async def scenario():
        async with laid() as (tier, replica, _):
            replica.items = [(400, '{"error": {"message": "no such thing"}}', "")]
            with pytest.raises(TierFailed, match="no such thing") as found:
                await tier.complete("chat/completions", BODY)
            assert found.value.status == 400

    go(scenario)


def test_no_first_token_in_time():
    async def scenario():
        async with laid(timeout_s=0.05) as (tier, replica, _):
            replica.gate_after = 0
            with pytest.raises(NoReplica, match="no first token within"):
                await tier.complete("chat/completions", BODY)
            await until(lambda: replica.ended == 1)

    go(scenario)


def test_calls_go_by_the_handle_until_there_is_a_lane_and_after_it_broke():
    async def scenario():
        async with laid() as (tier, replica, end):
            end.server.close()
            killed(end)
            os.unlink(end.path)
            await asyncio.sleep(0.01)
            assert await tier.complete("chat/completions", BODY)
            assert tier.handle.calls == 1 and not tier.lane.path
            tier.lane.next_look_s = float("-inf")
            await end.start()  # the replica that Serve put in its place
            assert await tier.complete("chat/completions", BODY)
            await tier.lane.looking
            assert await tier.complete("chat/completions", BODY)
            assert tier.handle.calls == 2 and tier.lane.path == end.path

    go(scenario)


def test_a_replica_on_another_machine_is_asked_by_the_handle():
    async def scenario():
        async with laid(there="elsewhere") as (tier, _, _):
            assert await tier.complete("chat/completions", BODY)
            assert tier.handle.calls == 1 and not tier.lane.path

    go(scenario)


def test_a_lane_that_cannot_be_found_is_looked_for_again_but_not_by_each_call():
    async def scenario():
        looks = []

        async def where():
            looks.append(1)
            raise RuntimeError("Ray's")

        now = [0.0]
        found = Lane(where, "here", clock=lambda: now[0])
        for _ in range(5):
            assert await found.connection() is None
            await found.looking
        assert len(looks) == 1
        now[0] = 10.0
        await found.connection()
        await found.looking
        assert len(looks) == 2

    go(scenario)


@pytest.mark.slow
def test_a_reader_that_does_not_read_holds_the_replica_up():
    async def scenario():
        async with laid() as (tier, _, end):
            made = []

            async def long(path, raw, call_id="", missed=(), hint=""):
                for n in range(2000):
                    made.append(n)
                    yield 200, "x" * 10_000, ""

            end.answer = long
            (line,) = tier.lane.free
            events = tier.stream("chat/completions", BODY)
            assert await anext(events)
            line.transport.pause_reading()
            await asyncio.sleep(0.2)
            assert len(made) < 500
            line.transport.resume_reading()
            assert len([item async for item in events]) == 1999

    go(scenario)


def test_closing_waits_for_calls_under_way_and_takes_no_new_ones():
    async def scenario():
        async with laid() as (tier, replica, end):
            replica.gate_after = 0
            asked = asyncio.create_task(tier.complete("chat/completions", BODY))
            await until(lambda: replica.asked)
            closing = asyncio.create_task(end.close())
            await asyncio.sleep(0.1)
            assert not closing.done() and not os.path.exists(end.path)
            replica.go.set()
            assert await asked
            await closing
            replica.gate_after = 10**9
            assert await tier.complete("chat/completions", BODY)
            assert tier.handle.calls == 1

    go(scenario)


@pytest.mark.parametrize("sent", [b"no json\n", b"7\n", b'["p", "x", "", [], ""]\n', b"[]\n", b'["p", 1, "", [], ""]\nxy\n'])
def test_what_is_not_the_language_ends_the_connection_and_nothing_else(sent):
    async def scenario():
        async with laid() as (tier, replica, end):
            replica.gate_after = 0
            reader, writer = await asyncio.open_unix_connection(end.path)
            writer.write(sent)
            with suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
            replica.gate_after = 10**9
            assert await tier.complete("chat/completions", BODY)

    go(scenario)


def test_a_connection_that_closed_before_it_was_used_is_a_lost_replica_at_once():
    async def scenario():
        async with laid() as (tier, _, end):
            (line,) = tier.lane.free
            killed(end)
            await until(line.transport.is_closing)
            tier.lane.busy += 1  # as where it was handed out just before
            with pytest.raises(client.LaneLost):
                await anext(line.ask("chat/completions", "{}", "", [], ""))
            assert tier.lane.busy == 0

    go(scenario)


def test_the_folder_must_be_ours_alone(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(server.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = server.own_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)

    async def scenario():
        end = LaneServer(Replica().openai, "x")
        await end.start()  # no lane; the replica serves by handles
        assert end.path == "" and "mend its owner and mode" in caplog.text
        await end.close()

    go(scenario)


def test_sockets_that_killed_replicas_left_are_removed_and_others_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(server.tempfile, "gettempdir", lambda: str(tmp_path))

    async def scenario():
        here = LaneServer(Replica().openai, "lives")
        await here.start()
        gone = LaneServer(Replica().openai, "gone")
        await gone.start()
        gone.server.close()
        await gone.server.wait_closed()
        folder = server.own_folder()
        if not (folder / "gone").exists():  # newer Pythons remove it
            (folder / "gone").touch()
        server.sweep(folder, time.time())
        assert {path.name for path in folder.iterdir()} == {"lives", "gone"}  # too young to be sure
        server.sweep(folder, time.time() + 100)
        assert {path.name for path in folder.iterdir()} == {"lives"}
        await here.close()

    go(scenario)


async def all_of(tier):
    return [item async for item in tier.stream("chat/completions", BODY, None, "c")]


def killed(end):
    """As the system does with a killed process: its connections go, its calls get no word."""
    for connection in list(end.open):
        connection.transport.abort()


async def until(true):
    while not true():
        await asyncio.sleep(0.005)
