"""Runs one flow: makes the calls it asks for side by side, sends the replies back in, passes its answer to the client.

However the request ends, by an answer, a failure or a client that leaves, every call that still runs is stopped.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

from deployments.beside_loop import beside_loop, by_length, by_size
from deployments.endpoint.answer_usage import shown_usage
from deployments.endpoint.held_answer import ClientCalls, HeldAnswer
from deployments.endpoint.ongoing_request import CallRecord, OngoingRequest, count_call
from deployments.endpoint.openai_json import chunks_of, document, read_answer, stripped
from deployments.learning.kept.collected import Said
from deployments.tiers.tier import Tier, event
from deployments.tiers.tier_answer import WAITING
from router.cascade.code_tests import CodeCheck
from router.delegate.splice import Splicer, splice
from router.errors import NoReplica, RequestFailed
from router.request.body import wants_json
from router.request.shown_reasoning import ShownReasoning
from router.request.thoughts import in_field, spoken
from router.types import Call, Commit, End, Flow, Path, Reply, Request, Say, Step, Usage

log = logging.getLogger("stepdown")
PATH: Path = "chat/completions"
LONG = 16_384  # characters of an answer


def following(flow: Flow, replies: Sequence[Reply] | None) -> Step | End:
    """What the flow does with these replies; None starts it."""
    try:
        return next(flow) if replies is None else flow.send(replies)
    except StopIteration as done:
        end: End = done.value
        return end


def read_document(call: Call, raw: bytes) -> tuple[dict[str, Any], Reply]:
    """A whole answer, as JSON and as a reply."""
    body = json.loads(raw)
    return body, read_answer(call, body)


def slow_to_judge(reply: Reply) -> bool:
    """Whether judging the reply may take long: it is long, or is checked against a schema of the client's."""
    called = sum(len(str(call)) for call in reply.tool_calls) if len(reply.text) <= LONG else 0
    return len(reply.text) + called > LONG or not reply.partial and wants_json(reply.call.body)


@dataclass(slots=True)
class FlowDriver:
    """Drives the flow of one request.

    own_logprobs: the flow asks for log-probabilities that the client did not ask for.
    keep: (end, tier) -> name under which the end's hidden messages are kept.
    """

    tiers: Mapping[str, Tier]
    ongoing: OngoingRequest
    own_logprobs: bool = False
    keep: Callable[[Commit, str], str] | None = None
    check: CodeCheck | None = None
    """runs the tests of a call that has some"""
    check_s: float = 10.0
    """seconds to wait for that"""
    moves: Callable[[str], Awaitable[None]] | None = None
    """reserves what a plain call costs at another tier than the one decided on"""
    running: dict[str, "asyncio.Task[Reply]"] = field(default_factory=dict)
    held: dict[str, HeldAnswer] = field(default_factory=dict)
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    phase: str = ""

    @property
    def records(self) -> dict[str, CallRecord]:
        return self.ongoing.records

    @property
    def request(self) -> Request:
        return self.ongoing.asked

    def now(self) -> float:
        """Seconds since the request."""
        return self.ongoing.now()

    # -- the flow --------------------------------------------------------------------------------------------------

    async def run(self, flow: Flow) -> End:
        """Drive the flow to its end, then stop every call that is not part of the answer."""
        end: End | None = None
        replies: Sequence[Reply] | None = None
        try:
            while end is None:
                step = await self.advance(flow, replies)
                if isinstance(step, Step):
                    await self.start(step)
                    replies = await self.arrived(step)
                else:
                    end = step
        finally:
            flow.close()
            await self.stop(keep=end.call_id if isinstance(end, Commit) else None)
        await self.ongoing.count()
        self.note(end.outcomes)
        self.ongoing.tier = self.answered_by(end)
        self.ongoing.degraded = bool(end.report.get("degraded"))
        self.ongoing.departed = not isinstance(end, Commit) or end.departed
        return end

    async def advance(self, flow: Flow, replies: Sequence[Reply] | None) -> Step | End:
        """The flow's next step, or its end. Long answers and client's schemas are judged beside the loop."""
        if any(map(slow_to_judge, replies or ())):
            return await beside_loop(following, flow, replies)
        return await by_size(following, flow, replies)

    def answered_by(self, end: End) -> str:
        """The tier whose answer the client gets; empty where the flow failed."""
        if isinstance(end, Commit):
            return self.records[end.call_id].call.tier
        return end.tier if isinstance(end, Say) else ""

    async def start(self, step: Step) -> None:
        self.phase = step.phase or self.phase
        self.ongoing.flow = step.kind or self.ongoing.flow
        self.note(step.outcomes)
        for name in step.cancel:
            await self.give_up(name)
        for call in step.start:
            said = Said() if self.ongoing.collecting else None
            self.records[call.id] = CallRecord(call, self.now(), said=said)
            self.running[call.id] = asyncio.create_task(self.fetch(call))

    def note(self, outcomes: Mapping[str, str]) -> None:
        for name, outcome in outcomes.items():
            self.records[name].outcome = outcome

    async def give_up(self, name: str) -> None:
        """Stop a call, so that its tier stops generating, and count what it made until now."""
        task, held = self.running.pop(name, None), self.held.get(name)
        if task:
            task.cancel()
            await asyncio.wait({task})
        streaming = held is not None and not held.ended  # it may have begun in this very moment
        if held and streaming:
            await held.close()
        if streaming or (task and task.cancelled()):
            record = self.records[name]
            record.outcome = record.outcome or "cancelled"
            record.took_s = self.now() - record.began_s
            record.ended = True

    async def arrived(self, step: Step) -> list[Reply]:
        """Wait for at least one reply; none where nothing runs or `until_s` has passed."""
        if not self.running:
            return []
        wait_s = None if step.until_s is None else max(0.0, step.until_s - self.now())
        done, _ = await asyncio.wait(self.running.values(), timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        names = [name for name, task in self.running.items() if task in done]
        return [self.running.pop(name).result() for name in names]

    async def stop(self, keep: str | None = None) -> None:
        """Cancel the calls that run and close the streams of unwanted answers. keep: the call that the client gets."""
        unwanted = [name for name in {**self.running, **self.held} if name != keep]
        await asyncio.gather(*map(self.give_up, unwanted))

    # -- one call ------------------------------------------------------------------------------------------------------

    async def fetch(self, call: Call) -> Reply:
        """The reply to one call; a failure is a reply too."""
        try:
            if self.moves and self.ongoing.flow == "direct" and call.tier != self.ongoing.decided.tier:
                await self.moves(call.tier)
            async with asyncio.timeout(call.timeout_s):
                reply = await (self.hold(call) if call.hold and self.request.stream else self.complete(call))
        except RequestFailed as error:
            reply = Reply(call, error=error)
        except TimeoutError:
            self.records[call.id].ended = True
            reply = Reply(call, error=NoReplica(call.tier, f"no answer within {call.timeout_s:.1f} s"))
        record = self.records[call.id]
        record.took_s = self.now() - record.began_s
        if reply.error is not None:
            record.failed(reply.error)
        if reply.error is None and not reply.partial:
            self.settle(record, reply.usage)
            if record.uncounted:
                await count_call(record, self.ongoing.reader(call.tier))
            reply = replace(reply, usage=record.usage)
            if self.check and call.tests and not reply.tool_calls:
                reply = replace(reply, passed=await self.tested(self.check, reply.text, call.tests))
        return replace(reply, at_s=self.now(), sent=2 if record.reading.twin else 1)

    async def tested(self, check: CodeCheck, text: str, tests: str) -> bool | None:
        """Whether the answer's code passes its tests; None where the operator's function fails or takes too long."""
        try:
            async with asyncio.timeout(self.check_s):
                passed = await asyncio.to_thread(check, text, tests)
        except Exception as error:  # noqa: BLE001 it is not ours, and may raise anything
            log.warning("escalation.tests could not tell: %s", type(error).__name__)
            return None
        return passed if isinstance(passed, bool) else None

    async def complete(self, call: Call) -> Reply:
        body = {**await self.ongoing.within_window(call.body, call.tier), "model": call.tier, "stream": False}
        reading = self.records[call.id].reading
        raw = await self.tiers[call.tier].complete(PATH, body, reading, self.ongoing.call_id(call.id))
        self.bodies[call.id], reply = await by_length(raw, read_document, call, raw)
        record = self.records[call.id]
        record.received.body(self.bodies[call.id])
        if record.said:
            record.said.document(self.bodies[call.id]["choices"][0], len(raw))
        return reply

    async def hold(self, call: Call) -> Reply:
        """Open the stream and read its first tokens; the rest waits for the flow's decision."""
        body = {**await self.ongoing.within_window(call.body, call.tier), "model": call.tier, "stream": True}
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        record = self.records[call.id]
        events = self.tiers[call.tier].stream(PATH, body, record.reading, self.ongoing.call_id(call.id))
        held = HeldAnswer(call, events, partial(self.first_token, record), record.said)
        self.held[call.id], record.received = held, held.received
        try:
            await held.read(call.hold)
        except BaseException:
            await held.close()
            raise
        return held.reply()

    def first_token(self, record: CallRecord) -> None:
        record.first_token_s = self.now() - record.began_s

    def settle(self, record: CallRecord, usage: Usage) -> None:
        record.ended = True
        if not record.estimated:  # a stream that was read to its end is counted before the client gets it
            record.usage = usage

    # -- what the client gets ------------------------------------------------------------------------------------------

    def usage(self, end: Commit | Say) -> dict[str, Any]:
        """What the client is told about tokens and calls, once it has the answer."""
        name = end.call_id if isinstance(end, Commit) else ""
        given = self.held[name].given_usage if name in self.held else self.bodies.get(name, {}).get("usage")
        return shown_usage(self.ongoing, end, given or {})

    def whole(self, end: Commit | Say) -> dict[str, Any]:
        """The answer as one document."""
        self.ongoing.sent()
        if isinstance(end, Say):
            self.ongoing.answer = [end.text]
            return self.named(document(end.tier, end.text, self.usage(end)), end)
        body = stripped(self.bodies[end.call_id]) if self.own_logprobs else dict(self.bodies[end.call_id])
        self.calls(end).clean(body["choices"][0], "message")
        message = body["choices"][0]["message"]
        if end.splice:
            message["content"] = splice(message.get("content") or "", end.splice)
        self.ongoing.answer = [message.get("content") or ""]
        self.ongoing.thought = spoken(message).thought
        made = self.named(body | {"usage": self.usage(end)}, end)
        return shown.document(made) if (shown := self.shown_reasoning(end)) else made

    def named(self, body: dict[str, Any], end: Commit | Say) -> dict[str, Any]:
        """The answer, or a chunk of it, under the id by which it is kept, if it is."""
        return self.ongoing.collecting.named(body, end, self.records) if self.ongoing.collecting else body

    def calls(self, end: Commit) -> ClientCalls:
        keep = self.keep
        if not end.hidden or keep is None:
            return ClientCalls()
        return ClientCalls(cache(lambda: keep(end, self.records[end.call_id].call.tier)))

    async def streamed(self, end: Commit | Say) -> AsyncGenerator[bytes]:
        """The answer as events, without [DONE]. No chunk but the last, usage, is without choices: clients read `choices[0]`."""
        last: dict[str, Any] = {}
        if isinstance(end, Say):
            self.ongoing.answer = [end.text]
            for chunk in chunks_of(end.tier, end.text):
                last = self.named(chunk, end)
                self.ongoing.sent()
                yield event(last)
        else:
            async with aclosing(self.passed_on(end)) as passed:
                async for shown in passed:
                    last = shown or last
                    yield event(shown) if shown else WAITING
        if self.ongoing.wants_usage:
            await self.ongoing.count()
            yield event({**last, "choices": [], "usage": self.usage(end)})

    def said(self, delta: Mapping[str, Any]) -> None:
        if content := delta.get("content"):
            self.ongoing.answer.append(content)
        if content or in_field(delta):
            self.ongoing.sent()

    def shown_reasoning(self, end: Commit) -> ShownReasoning | None:
        """Changes the answer to what the client gets of its reasoning; None: it passes as it is."""
        settings = self.ongoing.tiers[self.records[end.call_id].call.tier].thinking
        one_name = "reasoning" if self.ongoing.spoken else None  # what other protocols are written from
        return ShownReasoning.of(self.ongoing.server, self.request.body, settings, one_name)

    async def passed_on(self, end: Commit) -> AsyncGenerator[dict[str, Any] | None]:
        """The held events, then the others as they come, without the tier's own usage and [DONE].

        None: hidden ones, in place of which the client should get a sign of life.
        """
        held, record = self.held[end.call_id], self.records[end.call_id]
        splicer, calls = Splicer(end.splice), self.calls(end)
        reasoning = self.shown_reasoning(end)
        cut = "cancelled"
        async with aclosing(held.events):
            try:
                async for data in held.all():
                    whole = self.named(held.shown(data, splicer, self.own_logprobs, calls), end)
                    passed = reasoning.chunk(whole) if reasoning else whole
                    if passed:
                        self.said(passed["choices"][0].get("delta") or {})
                    if passed or (reasoning and reasoning.silent(self.now())):
                        yield passed
            except RequestFailed as error:
                cut = error.code
                raise
            finally:
                record.took_s = self.now() - record.began_s
                self.ongoing.thought = "".join(held.reader.thought)
                self.settle(record, held.usage)
                if not held.ended:
                    record.outcome = cut
