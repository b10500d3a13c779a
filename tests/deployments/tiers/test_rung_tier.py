"""Rungs on one host: an adapter's name goes out, the rung's comes back, and whatever the replicas are belongs to all siblings."""

import asyncio
import json

import pytest
from ray.exceptions import RayError

from deployments.replicas.event_batches import joined
from deployments.replicas.meter import ReplicaMeter
from deployments.tiers.rung_tier import RungTier, with_rungs
from deployments.tiers.serve_tier import CallPolicy, ServeTier
from router.config import Config
from router.errors import NoReplica, TierCold, TierFailed
from router.trace import Reading

BODY = {"model": "mail", "messages": [{"role": "user", "content": "hi"}]}
TRICK = 'it said "model":"mail@0123456789ab" to me'
PRICE = {"usd_per_1m_input": 1, "usd_per_1m_output": 1}


class Items:
    def __init__(self, source) -> None:
        self.source, self.cancelled = source, False

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await self.source.__anext__()

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """A replica of vLLM that says under which name it was asked. `fault`: what it does instead."""

    def __init__(self) -> None:
        self.meter, self.bodies, self.fault, self.woken = ReplicaMeter("r1"), [], None, 0

    def options(self, method_name="", **_):
        return Awake(self) if method_name == "awake" else self

    def remote(self, path, raw, call_id="", missed=(), hint=""):
        return Items(self.openai(path, raw, call_id, missed))

    async def openai(self, path, raw, call_id, missed):
        body = json.loads(raw)
        self.bodies.append(body)
        call = self.meter.start(call_id, raw, missed)
        if isinstance(self.fault, Exception):
            raise self.fault
        if self.fault:
            yield self.fault[0], self.fault[1], call.last()
            return
        named = {"id": "x", "created": 0, "model": body["model"]}
        text = json.dumps({**named, "choices": [{"index": 0, "message": {"role": "assistant", "content": TRICK}}]})
        text = text.replace('": ', '":')
        if not body.get("stream"):
            yield 200, text, call.last({"prompt_tokens": 1, "completion_tokens": 1})
            return
        events = [f"data: {json.dumps({**named, 'n': n}).replace(chr(34) + ': ', chr(34) + ':')}\n\n" for n in range(4)]
        yield 200, events[0], ""
        for status, text, _ in joined([(200, event, "") for event in events[1:]]):
            yield status, text, ""
        yield 200, "data: [DONE]\n\n", call.last()


class Awake:
    def __init__(self, handle) -> None:
        self.handle = handle

    async def remote(self):
        self.handle.woken += 1
        await asyncio.sleep(10)


def siblings(running=1, late=None, **policy):
    async def replicas() -> int:
        return running

    handle = Handle()
    host = ServeTier("small", handle, replicas, CallPolicy(5.0, **policy), late)
    return host, RungTier("mail", host, "mail@0123456789ab"), RungTier("sql", host, "sql@0123456789ab"), handle


async def streamed(tier, call_id="") -> bytes:
    return b"".join([item async for item in tier.stream("chat/completions", {**BODY, "stream": True}, Reading(), call_id)])


def test_the_adapters_name_goes_out_and_the_rungs_comes_back():
    _, mail, _, handle = siblings()
    answer = json.loads(asyncio.run(mail.complete("chat/completions", BODY)))
    assert handle.bodies[0]["model"] == "mail@0123456789ab" and answer["model"] == "mail"
    assert answer["choices"][0]["message"]["content"] == TRICK


def test_every_event_of_a_stream_is_renamed():
    _, mail, _, _ = siblings()
    events = [part for part in asyncio.run(streamed(mail)).decode().split("\n\n") if part]
    assert [json.loads(part[6:])["model"] for part in events[:-1]] == ["mail"] * 4 and events[-1] == "data: [DONE]"


def test_a_switch_counts_for_new_requests_and_lets_streams_end_under_the_old_name():
    _, mail, _, handle = siblings()

    async def go():
        stream = mail.stream("chat/completions", {**BODY, "stream": True})
        first = await anext(stream)
        mail.served = "mail@fedcba987654"
        rest = [item async for item in stream]
        return first, rest, await mail.complete("chat/completions", BODY)

    first, rest, then = asyncio.run(go())
    assert all(b"@0123" not in item for item in (first, *rest)) and json.loads(then)["model"] == "mail"
    assert [body["model"] for body in handle.bodies] == ["mail@0123456789ab", "mail@fedcba987654"]


@pytest.mark.parametrize("status, kind", [(503, NoReplica), (500, TierFailed), (400, TierFailed), (404, TierFailed)])
def test_errors_name_the_rung(status, kind):
    _, mail, _, handle = siblings()
    handle.fault = status, json.dumps({"error": {"message": "no", "type": "x", "code": status}})
    for ask in (mail.complete("chat/completions", BODY), streamed(mail)):
        with pytest.raises(kind, match="tier mail"):
            asyncio.run(ask)


def test_a_lost_replica_and_a_missing_one_name_the_rung_too():
    _, mail, _, handle = siblings()
    handle.fault = RayError("gone")
    with pytest.raises(NoReplica, match="tier mail"):
        asyncio.run(mail.complete("chat/completions", BODY))


def test_siblings_share_health_readings_and_what_was_missed():
    late = {}
    host, mail, sql, handle = siblings(late=late.update)
    assert host.health is mail.health is sql.health and host.missed is mail.missed
    host.missed["t/gone"] = 0

    async def ask():
        reading = Reading()
        await mail.complete("chat/completions", BODY, reading, "t/1")
        return reading

    reading = asyncio.run(ask())
    assert reading.replica == "r1" and reading.busy_s is not None
    assert host.missed == {"t/gone": 1} and list(host.heard) == ["r1"] == list(sql.heard)


def test_the_measurement_of_a_cut_off_call_of_one_comes_with_a_later_one_of_another_once():
    late = {}
    host, mail, sql, handle = siblings(late=late.update)

    async def go():
        stream = mail.stream("chat/completions", {**BODY, "stream": True}, Reading(), "t/left")
        await anext(stream)
        await stream.aclose()
        handle.meter.keep({"t/left": 0.5})
        readings = [Reading(), Reading()]
        await sql.complete("chat/completions", BODY, readings[0], "t/2")
        await host.complete("chat/completions", {**BODY, "model": "small"}, readings[1], "t/3")

    asyncio.run(go())
    assert late == {"t/left": 0.5} and not host.missed


@pytest.mark.slow
def test_a_sleeping_host_is_woken_once_for_all():
    host, mail, sql, handle = siblings(running=0, sleeps=True)

    async def stays(*_):
        await asyncio.sleep(10)
        yield 200, "", ""

    handle.openai = stays

    async def go():
        for tier in (mail, sql, host, mail):
            with pytest.raises(TierCold, match=f"tier {tier.name} was scaled to zero"):
                await tier.complete("chat/completions", BODY)
        await asyncio.sleep(0)
        woken = handle.woken
        host.waking.cancel()
        return woken

    assert asyncio.run(go()) == 1


def test_only_the_host_asks_what_the_replicas_can_do_and_closes_what_they_share():
    host, mail, _, _ = siblings()
    closed = []
    host.lane = type("Lane", (), {"close": lambda self: closed.append(1)})()
    mail.lane = host.lane

    async def go():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(mail.abilities(), 0.02)
        await mail.close()
        assert not closed
        await host.close()

    asyncio.run(go())
    assert closed == [1]


def test_a_ladder_has_all_tiers_in_order():
    small = {"name": "small", "engine": "vllm", "source": "x", "context": 9, "price": PRICE}
    config = Config.model_validate({"tiers": [{"name": "mail", "on": "small", "lora": "x"}, small]})
    host, *_ = siblings()
    tiers = with_rungs(config, {"small": host}, {"mail": "mail@0123456789ab"})
    assert list(tiers) == ["mail", "small"] and tiers["small"] is host and tiers["mail"].host is host
