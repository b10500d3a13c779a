"""The straight line to one replica: what comes through, what breaks, what is given up; both ends on one loop."""

import asyncio
import json
import os
import time
from contextlib import suppress

import pytest
from laid_lanes import BODY, Replica, all_of, go, killed, laid, lane_of, until

from deployments.lane import client, sockets
from deployments.lane.address import Address
from deployments.lane.client import Lane
from deployments.lane.server import LaneServer
from router.errors import NoReplica, TierFailed
from router.trace import Reading


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sockets.tempfile, "gettempdir", lambda: "/tmp" if len(str(tmp_path)) > 60 else str(tmp_path))


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
            assert len(end.open) == len(lane_of(tier).free) == 30 and lane_of(tier).busy == 0  # all may be used again

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
            assert replica.asked[-1][3] == ["c"] and lane_of(tier).busy == 0

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
            assert found.value.lost and found.value.status == 503 and lane_of(tier).gone
            await lane_of(tier).looking  # the replica can be reached again
            replica.items, replica.gate_after = [*replica.items, *replica.items], 1
            got = []
            with pytest.raises(TierFailed, match="mid-answer"):
                async for item in tier.stream("chat/completions", BODY):
                    got.append(item)
                    killed(end)
            assert len(got) == 1 and tier.handle.calls == 0 and lane_of(tier).busy == 0

    go(scenario)


def test_more_calls_than_the_tier_takes_go_by_the_handle():
    async def scenario():
        async with laid() as (tier, replica, end):
            lane_of(tier).limit, replica.gate_after = 3, 0
            asked = [asyncio.create_task(tier.complete("chat/completions", BODY)) for _ in range(5)]
            await until(lambda: len(replica.asked) == 5)
            assert tier.handle.calls == 2 and len(end.open) == 3
            replica.go.set()
            assert len(await asyncio.gather(*asked)) == 5 and lane_of(tier).busy == 0
            assert await tier.complete("chat/completions", BODY)
            assert tier.handle.calls == 2

    go(scenario)


def test_hundreds_of_calls_at_one_stroke_are_all_answered():
    async def scenario():
        async with laid() as (tier, replica, end):
            answers = await asyncio.gather(*(tier.complete("chat/completions", BODY, None, f"c{n}") for n in range(600)))
            assert len(answers) == len({asked[2] for asked in replica.asked}) == 600 and lane_of(tier).busy == 0
            await until(lambda: len(end.open) <= client.IDLE)

    go(scenario)


def test_a_socket_that_cannot_be_reached_from_here_is_no_lane():
    """The replica is in another container on the machine."""

    async def scenario():
        found = Lane("r", Address("here", "/nowhere/at-all"), "here")
        assert await found.connection() is None
        await found.looking
        assert await found.connection() is None and not found.way and found.next_look_s > time.monotonic() + 30

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


@pytest.mark.parametrize("limit", [None, 1_000])
def test_a_whole_answer_may_take_longer_than_a_first_token(limit):
    async def scenario():
        async with laid(timeout_s=0.05) as (tier, replica, _):
            replica.gate_after = 0
            asked = asyncio.create_task(tier.complete("chat/completions", {**BODY, "max_tokens": limit}))
            await asyncio.sleep(0.15)
            replica.go.set()
            assert await asked

    go(scenario)


def test_a_whole_answer_of_few_tokens_is_not_waited_for_endlessly():
    async def scenario():
        async with laid(timeout_s=0.05) as (tier, replica, _):
            replica.gate_after = 0
            with pytest.raises(NoReplica, match="no answer within"):
                await tier.complete("chat/completions", {**BODY, "max_tokens": 1})

    go(scenario)


def test_no_first_token_in_time():
    async def scenario():
        async with laid(timeout_s=0.05) as (tier, replica, _):
            replica.gate_after = 0
            with pytest.raises(NoReplica, match="no first token within"):
                await anext(tier.stream("chat/completions", BODY))
            await until(lambda: replica.ended == 1)

    go(scenario)


def test_calls_go_by_the_handle_after_the_lane_broke_and_until_it_is_found_again():
    async def scenario():
        async with laid() as (tier, replica, end):
            (listening,) = end.listening
            listening.close()
            killed(end)
            os.unlink(end.address.path)
            await asyncio.sleep(0.01)
            assert await tier.complete("chat/completions", BODY)
            assert tier.handle.calls == 1 and not lane_of(tier).way and lane_of(tier).gone
            await lane_of(tier).looking
            lane_of(tier).next_look_s = float("-inf")
            await end.start()
            assert await tier.complete("chat/completions", BODY)
            await lane_of(tier).looking
            assert await tier.complete("chat/completions", BODY)
            assert tier.handle.calls == 2 and lane_of(tier).way and not lane_of(tier).gone

    go(scenario)


def test_a_replica_on_another_machine_that_does_not_listen_on_tcp_is_asked_by_the_handle():
    async def scenario():
        async with laid(here="elsewhere") as (tier, _, _):
            assert await tier.complete("chat/completions", BODY)
            assert tier.handle.calls == 1 and not lane_of(tier).way and not lane_of(tier).looking

    go(scenario)


def test_a_lane_that_cannot_be_found_is_looked_for_again_but_not_by_each_call():
    async def scenario():
        looks = []

        async def way():
            looks.append(1)
            raise ConnectionRefusedError

        now = [0.0]
        found = Lane("r", Address("here", "/nowhere"), "here", clock=lambda: now[0])
        found.ways = [way]
        for _ in range(5):
            assert await found.connection() is None
            await found.looking
        assert len(looks) == 1
        now[0] = 61.0
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
            (line,) = lane_of(tier).free
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
            assert not closing.done() and not os.path.exists(end.address.path)
            replica.go.set()
            assert await asked
            await closing
            replica.gate_after = 10**9
            assert await tier.complete("chat/completions", BODY)
            assert tier.handle.calls == 1

    go(scenario)


@pytest.mark.parametrize(
    "sent",
    [
        b"no json\n",
        b"7\n",
        b'["p", "x", "", [], ""]\n',
        b"[]\n",
        b'["p", 1, "", [], ""]\nxy\n',
        b'["p", -1]\n',
        b'["p", true]\n',
        b'["p", 999999999999]\n',
        b"x" * 70_000,
    ],
)
def test_what_is_not_the_language_ends_the_connection_and_nothing_else(sent):
    async def scenario():
        async with laid() as (tier, replica, end):
            replica.gate_after = 0
            reader, writer = await asyncio.open_unix_connection(end.address.path)
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
            (line,) = lane_of(tier).free
            killed(end)
            await until(line.transport.is_closing)
            lane_of(tier).busy += 1  # as where it was handed out just before
            with pytest.raises(client.LaneLost):
                await anext(line.ask("chat/completions", "{}", "", [], ""))
            assert lane_of(tier).busy == 0

    go(scenario)


def test_the_folder_must_be_ours_alone(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sockets.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = sockets.own_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)

    async def scenario():
        end = LaneServer(Replica().openai, "x")
        await end.start()  # no lane; the replica serves by handles
        assert end.address.path == "" and "mend its owner and mode" in caplog.text
        await end.close()

    go(scenario)


def test_sockets_that_killed_replicas_left_are_removed_and_others_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(sockets.tempfile, "gettempdir", lambda: str(tmp_path))

    async def scenario():
        here = LaneServer(Replica().openai, "lives")
        await here.start()
        gone = LaneServer(Replica().openai, "gone")
        await gone.start()
        gone.listening[0].close()
        folder = sockets.own_folder()
        sockets.sweep(folder, time.time())
        assert {path.name for path in folder.iterdir()} == {"lives", "gone"}  # too young to be sure
        sockets.sweep(folder, time.time() + 100)
        assert {path.name for path in folder.iterdir()} == {"lives"}
        await here.close()

    go(scenario)
