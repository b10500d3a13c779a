"""Answers one request: decides on its tier, reserves its cost, runs its flow, and writes it down before the answer ends."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from deployments.beside_loop import by_size
from deployments.endpoint.accounts import Accounts
from deployments.endpoint.audit import Auditor
from deployments.endpoint.deadline import LimitedStream, timed, within
from deployments.endpoint.draining import Draining
from deployments.endpoint.flow_driver import FlowDriver
from deployments.endpoint.lineup import Lineup, Lineups, on_weights
from deployments.endpoint.ongoing_request import LEFT, OngoingRequest
from deployments.endpoint.plain_call import PlainCall
from deployments.endpoint.replies import certificate_header, cost_header, decision_headers, end_headers, error_response
from deployments.endpoint.spoken.writer import EdgeWriter, Keep, with_heartbeats
from deployments.ids import current
from deployments.learning.live.routers_in_use import InUse, Routers
from deployments.learning.live.variant_tiers import Variants
from deployments.tiers.tier import SESSION, Tier
from deployments.traffic.balance import Balancer
from deployments.traffic.watched_tier import Watched
from router.cascade.other_tiers import OtherTiers
from router.choose_flow import one_call
from router.costs import prices
from router.decide.sessions import Sessions, key_of, name_of
from router.delegate.hidden_turns import HiddenTurns, with_recalled
from router.engine import Router
from router.errors import BadRequest, NoReplica, RequestFailed, TierBusy, WindowExceeded
from router.flywheel.variants import MARK
from router.limits import reservation
from router.limits.key_limits import Key
from router.protocols.edge import Edge
from router.request import server_tools
from router.traffic.breaker import Breaker, instead
from router.traffic.retries import Retries
from router.types import Commit, Decision, End, Fail, Flow
from router.types import Request as Asked

HEARTBEAT_S = 5.0  # between comments in a stream that waits for its first byte; proxies close silent ones after 30 to 60 s


class Answering:
    """Answers requests, and holds what they share: router, tiers and their health, sessions, hidden turns, audits."""

    def __init__(self, router: Router, tiers: Mapping[str, Tier], accounts: Accounts) -> None:
        self.routers, self.accounts = Routers(InUse(router)), accounts
        self.breaker = Breaker(time.monotonic, random.random, hosts=router.config.hosts)
        self.retries = Retries(random.random)
        self.settings = {t.name: t for t in router.tiers}
        self.tiers = {name: self.watched(tier) for name, tier in tiers.items()}
        self.balancer = Balancer(router.tiers, self.tiers, router.config.server.replicas)
        self.lineups = Lineups(self.balancer)
        self.variants: Variants | None = None
        """tiers on other weights, which who may can ask by name"""
        self.prices = {t.name: prices.prices(t) for t in router.tiers}
        top, rate = self.tiers[router.names[-1]], router.config.escalation.audit_rate
        self.auditor = Auditor(top, rate, lambda digest: self.routers.promises_of(digest))
        self.sessions = Sessions()
        self.hidden = HiddenTurns()
        self.draining = Draining()

    def watched(self, tier: Tier, alone: bool = False) -> Watched:
        """alone: with a circuit and retries of its own, as a tier on other weights has."""
        settings = self.settings[tier.name]
        how = settings.most_replicas, settings.hedge_after_s, settings.context, settings.thinking
        breaker = Breaker(time.monotonic, random.random) if alone else self.breaker
        retries = Retries(random.random) if alone else self.retries
        return Watched(tier, breaker, retries, *how, idle_s=self.router.config.server.stream_idle_s)

    async def state(self, name: str) -> str:
        """Whether a tier answers now: `ready`, `circuit open`, `cold` (it starts with its first request) or `no replica`."""
        lineup = self.lineups.of(self.routers.active)
        if lineup.left_s(name):
            return "circuit open"
        if await lineup.tiers[name].replicas():
            return "ready"
        return "cold" if self.settings[name].sleeps else "no replica"

    @property
    def router(self) -> Router:
        """The one that decides, but for a canary's conversations. All have the same tiers and settings but for the artefact."""
        return self.routers.active.router

    def use(self, routers: Routers) -> None:
        """Use these for new requests; those under way keep their flow and their tiers."""
        self.routers, self.auditor.share = routers, routers.active.router.config.escalation.audit_rate
        self.lineups.keep(routers)

    async def decide(self, asked: Asked, key: Key, before: str | None = None, using: InUse | None = None) -> Decision:
        """Choose among the tiers that the key may use. Raises BadRequest, UnknownModel, NotAllowed, Overloaded."""
        using = using or self.routers.active
        router, lineup = using.router, self.lineups.of(using)
        wanted = str(asked.body["model"])
        target = router.target_of(wanted)
        key.check_model(wanted if target is None else None, target)
        barred = key.excluded(router.names)
        await self.read_ahead(asked, router)
        decided = await by_size(router.decide, asked, before, barred)
        if target is not None and (resting := lineup.down([name for name in router.names if name not in barred])):
            decided = await by_size(self.decide_without, router, lineup, resting, asked, before, barred, decided)
        if decided.reason not in ("kept in a tool loop", "only one fits"):
            decided = lineup.balancer.place(decided, router.rule(target) if target else None)
        return self.with_others(decided, lineup)

    def decide_without(
        self,
        router: Router,
        lineup: Lineup,
        resting: Mapping[str, str],
        asked: Asked,
        before: str | None,
        barred: Mapping[str, str],
        wished: Decision,
    ) -> Decision:
        """Choose among the tiers that are not resting. wished: the decision if none were. Raises NoReplica where none is left."""
        codes = {name: TierBusy.code if not lineup.open_s(name) else NoReplica.code for name in resting}
        try:
            decided = router.decide(asked, before, {**barred, **resting})
        except BadRequest:  # the request is good, but whoever could take it is resting
            raise lineup.tiers[wished.tier].resting() or NoReplica(wished.tier, resting[wished.tier]) from None
        missed = next((name for name in (wished.tier, *wished.first) if name in resting), "")
        if wished.judge and not decided.judge:  # nobody is left to ask after the first answer
            missed = missed or list(codes)[-1]
        return replace(decided, resting=codes, degraded=f"{missed} {codes[missed]}" if missed else "")

    def with_others(self, decided: Decision, lineup: Lineup) -> Decision:
        """The decision with the tiers that may answer in place of the chosen one; none where the client named the tier."""
        if decided.target in self.router.names:
            return decided
        names, closed = self.router.names, {**decided.excluded, **lineup.balancer.cold()}
        others = instead(names, decided.tier, closed, self.router.config.routing.when_down)
        window = self.settings[decided.tier].context
        wider = [name for name in instead(names, decided.tier, closed, "any") if self.settings[name].context > window]
        return replace(decided, instead=tuple(others), wider=tuple(wider))

    async def read_ahead(self, asked: Asked, router: Router) -> None:
        """Called before `decide`: lets a pretrained model read the prompt in a thread, so that no other request waits for it."""
        if router.artefact is not None and router.artefact.slow:
            await asyncio.to_thread(router.read_ahead, asked)

    async def answer(
        self, request: Request, key: Key, asked: Asked, edge: Edge | None = None, keep: Keep | None = None
    ) -> Response:
        """Raises RequestFailed where no tier was decided on. Later failures are returned as answers and written down.

        edge: of a request in another protocol than OpenAI's chat and completions. keep: see `EdgeWriter`.
        """
        owner = key.id
        named = name_of(request.headers, asked.body, asked.metadata) or (edge.session if edge else "")
        session = await by_size(key_of, asked.body, named, owner)
        SESSION.set(session if named and session else "")
        sent = asked
        asked, recalled = await by_size(self.hidden.recall, owner, asked)
        began = time.perf_counter()
        using = self.routers.of(session or current())
        if MARK in str(asked.body["model"]):
            asked, using = on_weights(asked, key, using, self.variants)
        lineup = self.lineups.of(using)
        decided = await self.decide(asked, key, (recalled and recalled.tier) or self.sessions.tier(session), using)
        self.sessions.remember(session, decided.tier)
        took_ms = (time.perf_counter() - began) * 1e3
        ongoing = OngoingRequest(self.accounts, key, asked, decided, self.settings, self.prices, self.router.count, took_ms)
        ongoing.server, ongoing.draining = self.router.config.server, self.draining
        ongoing.handles, ongoing.models = lineup.tiers, lineup.models
        if edge:
            told = asked.stream and edge.tells_prompt
            prompt_tokens = await by_size(ongoing.reader(decided.tier).expected_total, asked.body) if told else 0
            ongoing.spoken, ongoing.writer = edge.name, EdgeWriter(edge, prompt_tokens, keep)
        ongoing.collecting, stored = self.accounts.collect(key, ongoing.id, sent, session or "")
        shown = decision_headers(decided, took_ms, ongoing.id) | stored
        if key.budgeted:  # else an answer without a limit would reserve a whole context window
            tier = self.settings[decided.tier]
            limited = await by_size(reservation.with_limit, asked.body, tier, self.router.count[tier.name])
            ongoing.asked = asked = replace(asked, body=limited)
        chosen = await by_size(using.router.flow, asked, decided)
        steps = chosen.steps
        if steps is None and (recalled or edge) and asked.path == "chat/completions":
            steps = one_call(decided.tier, server_tools.without(asked.body), {}, OtherTiers.of(decided))
        if steps and recalled:
            steps = with_recalled(steps, recalled)
        ongoing.flow = chosen.kind
        ongoing.router = "" if decided.target in self.router.names else using.digest
        try:
            await self.admit(ongoing)
            if steps is None:
                return await self.answer_plainly(ongoing, shown)
            hide = partial(self.keep, owner)
            tests = self.router.check, self.router.config.escalation.tests_timeout_s
            moves = partial(self.reserve_for_another_tier, ongoing)
            driver = FlowDriver(lineup.tiers, ongoing, not asked.body.get("logprobs"), hide, *tests, moves)
            return await self.follow(request, driver, steps, shown)
        except RequestFailed as error:
            return await self.record_failure(ongoing, error, shown)
        except Exception as error:
            ongoing.left(LEFT if isinstance(error, ClientDisconnect) else 500)
            raise
        except BaseException:  # cancelled: the client left
            ongoing.left()
            raise

    async def admit(self, ongoing: OngoingRequest) -> None:
        """Reserve what the request may cost. Raises RateLimited, BudgetSpent."""
        if ongoing.key.limited:
            given = self.router.config, self.router.count, ongoing.asked, ongoing.decided, ongoing.flow
            size, usd = await by_size(reservation.max_cost, *given)
            ongoing.grant = await self.accounts.keys.admit(ongoing.key, ongoing.id, size, usd, ongoing.at_s)

    async def record_failure(self, ongoing: OngoingRequest, error: RequestFailed, shown: Mapping[str, str]) -> Response:
        """Write the failure down like an answer. Returns it as the client gets it."""
        shown = {**shown, **certificate_header(ongoing)}
        try:
            await ongoing.finish(error.status, error)
        except RequestFailed as down:
            return error_response(down, shown)
        return error_response(error, shown)

    async def answer_plainly(self, ongoing: OngoingRequest, shown: dict[str, str]) -> Response:
        """Make one plain call, to another tier where the first cannot answer. Raises RequestFailed before anything was sent."""
        others = OtherTiers.of(ongoing.decided)
        while True:
            try:
                return await self.plain(ongoing, shown, ongoing.handles[ongoing.tier or ongoing.decided.tier])
            except RequestFailed as error:
                following = others.after(error)
                if not following:
                    raise others.error() from None
                if not isinstance(error, WindowExceeded):
                    shown["x-stepdown-degraded"] = f"{ongoing.tier} {error.code}"
                ongoing.tier = shown["x-stepdown-tier"] = following
                await self.reserve_for_another_tier(ongoing, following)

    async def reserve_for_another_tier(self, ongoing: OngoingRequest, tier: str) -> None:
        """A tier that may be dearer than the one decided on is to answer: reserve its price. Raises BudgetSpent."""
        if ongoing.grant:
            decided = replace(ongoing.decided, tier=tier)
            given = self.router.config, self.router.count, ongoing.asked, decided, ongoing.flow
            _, usd = await by_size(reservation.max_cost, *given)
            ongoing.grant = await self.accounts.keys.exchange(ongoing.grant, ongoing.key, usd)

    async def plain(self, ongoing: OngoingRequest, shown: dict[str, str], tier: Tier) -> Response:
        direct = await PlainCall.of(tier, ongoing)
        if not ongoing.asked.stream:
            raw = await within(ongoing, direct.complete())
            await ongoing.finish()
            headers = shown | certificate_header(ongoing) | cost_header(ongoing)
            return Response(raw, media_type="application/json", headers=headers)
        events = direct.stream()
        first = await within(ongoing, anext(events, b""))  # an error before the first event still gets its own status
        headers = shown | certificate_header(ongoing)
        return LimitedStream(ongoing, self.ending(ongoing, first, events), headers, events.aclose)

    async def ending(self, ongoing: OngoingRequest, first: bytes, events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        """The stream. The request is written down before the last event; a failure on the way is sent as an event."""
        writer = ongoing.writer
        if writer.heartbeats:
            events = with_heartbeats(events, HEARTBEAT_S)
        try:
            async with aclosing(events):
                if first:
                    yield writer.item(first)
                async for item in timed(ongoing, events):
                    if written := writer.item(item):
                        yield written
            await ongoing.finish()
            self.auditor.answered(ongoing)
        except RequestFailed as error:
            with suppress(RequestFailed):  # the first failure is the one that the client hears of
                await ongoing.finish(error.status, error)
            yield writer.failed(error)
            return
        except Exception:
            ongoing.left(500)
            raise
        yield await writer.ended()

    def keep(self, owner: str, end: Commit, tier: str) -> str:
        return self.hidden.keep(owner, end.hidden, end.splice, tier)

    async def follow(self, request: Request, driver: FlowDriver, flow: Flow, shown: dict[str, str]) -> Response:
        """Run a flow; comments keep a stream open until its first byte. Raises RequestFailed."""
        running, left = asyncio.create_task(driver.run(flow)), asyncio.create_task(gone(request))
        stop = partial(stopped, running, driver)
        try:
            # An error within this time still gets its own status; a later one becomes an event in the stream.
            wait_s = HEARTBEAT_S if driver.request.stream else driver.ongoing.left_s
            await asyncio.wait({running, left}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            if left.done():
                raise ClientDisconnect
            if running.done():
                end = running.result()
                shown.update(end_headers(driver, end))
                if isinstance(end, Fail):
                    raise end.error
                if not driver.request.stream:
                    body = driver.whole(end)
                    await driver.ongoing.finish()
                    self.auditor.answered(driver.ongoing)
                    headers = shown | cost_header(driver.ongoing)
                    return Response(await driver.ongoing.writer.document(body), media_type="application/json", headers=headers)
            elif not driver.request.stream:
                raise driver.ongoing.late()
            elif shown.get("x-stepdown-certificate") == "valid":
                del shown["x-stepdown-certificate"]  # too early to say; the usage at the stream's end says it
            events = self.driven(driver, running)
            return LimitedStream(driver.ongoing, self.ending(driver.ongoing, b"", events), shown, stop)
        except BaseException:
            await stop()
            raise
        finally:
            left.cancel()

    async def driven(self, driver: FlowDriver, running: "asyncio.Task[End]") -> AsyncGenerator[bytes]:
        """The events of a flow's answer without the last, [DONE]. Raises RequestFailed."""
        while not running.done():
            yield f": stepdown {driver.phase}\n\n".encode()
            await asyncio.wait({running}, timeout=HEARTBEAT_S)
        end = running.result()
        if isinstance(end, Fail):
            raise end.error
        async with aclosing(driver.streamed(end)) as events:
            async for item in events:
                yield item


async def stopped(running: "asyncio.Task[End]", driver: FlowDriver) -> None:
    """Stop the flow and its calls, a stream that was about to be sent included, and count what they used."""
    running.cancel()
    await asyncio.wait({running})
    await driver.stop()


async def gone(request: Request) -> None:
    """Returns when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
