"""One request, from its parsed body to its answer: decided, admitted, asked, followed, written down."""

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from deployments.endpoint.accounts import Accounts, Key
from deployments.endpoint.audit import Auditor
from deployments.endpoint.deadline import Streamed, timed, within
from deployments.endpoint.flow_driver import Driver
from deployments.endpoint.plain_call import Direct
from deployments.endpoint.replies import cost_header, ended, error_response, headers
from deployments.endpoint.request_record import LEFT, Job
from deployments.tiers.tier import DONE, SESSION, Tier, event
from deployments.traffic.balance import Balancer
from deployments.traffic.watched_tier import Watched, down
from router.choose_flow import one_call
from router.costs import prices
from router.decide.sessions import Sessions, key_of
from router.delegate.hidden_turns import Hidden, remembered
from router.engine import Router
from router.errors import DeadlineExceeded, RequestFailed, TierCold
from router.limits import reservation
from router.request import server_tools
from router.traffic.breaker import Breaker, instead
from router.traffic.retries import Retries
from router.types import Commit, Decision, End, Fail, Flow
from router.types import Request as Asked

HEARTBEAT_S = 5.0  # a stream that has nothing to say yet says so; proxies close silent ones after 30 to 60 s
FLOWS = {"delegate": "delegation", "tool_mode": "tools", "run": "cascade", "remembered": "tools"}  # a generator's name -> ours


class Answering:
    """What is alive for all requests: the router of now, the tiers and what is known of their health, sessions, audits."""

    def __init__(self, router: Router, tiers: Mapping[str, Tier], accounts: Accounts) -> None:
        self.router, self.accounts = router, accounts
        self.breaker = Breaker(time.monotonic, random.random)
        self.retries = Retries(random.random)
        self.settings = {t.name: t for t in router.tiers}
        self.tiers = {name: self.watched(tier) for name, tier in tiers.items()}
        self.balancer = Balancer(router.tiers, self.tiers, router.config.server.replicas)
        self.prices = {t.name: prices.prices(t) for t in router.tiers}
        top, rate = self.tiers[router.names[-1]], router.config.escalation.audit_rate
        self.auditor = Auditor(top, rate, lambda: self.router.flows.promises)
        self.sessions = Sessions()
        self.hidden = Hidden()

    def watched(self, tier: Tier) -> Watched:
        slow = self.settings[tier.name].hedge_after_s
        return Watched(tier, self.breaker, self.retries, self.settings[tier.name].most_replicas, slow)

    def use(self, router: Router) -> None:
        """From now on; requests under way keep the flow they have."""
        self.router, self.auditor.share = router, router.config.escalation.audit_rate

    def decide(self, asked: Asked, key: Key, before: str | None = None) -> Decision:
        """Among the tiers that the key may use. Raises BadRequest, UnknownModel, NotAllowed."""
        wanted = str(asked.body["model"])
        target = self.router.target_of(wanted)
        key.allow(wanted if target is None else None, target)
        barred = key.excluded(self.router.names)
        if target is not None:
            barred |= self.breaker.down([name for name in self.router.names if name not in barred])
        decided = self.router.decide(asked, before, barred)
        stays = decided.reason in ("kept in a tool loop", "only one fits")
        return decided if stays else self.balancer.place(decided, self.router.rule(target) if target else None)

    async def read_ahead(self, asked: Asked) -> None:
        """Before `decide`: where a pretrained model reads prompts, it does so beside the event loop, and nobody else waits."""
        if self.router.artefact is not None and self.router.artefact.slow:
            await asyncio.to_thread(self.router.read_ahead, asked)

    async def answer(self, request: Request, key: Key, asked: Asked) -> Response:
        """Raises RequestFailed for what is refused before it is decided on; what fails later is an answer written down."""
        owner = request.headers.get("authorization", "")
        named = request.headers.get("x-session-id")
        session = key_of(asked.body, named, owner)
        SESSION.set(session if named and session else "")
        asked, recalled = self.hidden.recall(owner, asked)
        began = time.perf_counter()
        await self.read_ahead(asked)
        decided = self.decide(asked, key, (recalled and recalled.tier) or self.sessions.tier(session))
        self.sessions.remember(session, decided.tier)
        took_ms = (time.perf_counter() - began) * 1e3
        job = Job(self.accounts, key, asked, decided, self.settings, self.prices, self.router.count, took_ms)
        job.limit_s = self.router.config.server.request_timeout_s
        shown = headers(decided, took_ms, job.id)
        if key.budgeted:  # an answer without a limit would set a whole window aside
            tier = self.settings[decided.tier]
            job.asked = asked = replace(asked, body=reservation.capped(asked.body, tier, self.router.count[tier.name]))
        flow = self.router.flow(asked, decided)
        if recalled and asked.path == "chat/completions":
            flow = remembered(flow or one_call(decided.tier, server_tools.without(asked.body), {}), recalled)
        job.flow = FLOWS.get(getattr(flow, "__name__", ""), "direct")
        try:
            await self.admit(job)
            if flow is None:
                return await self.passed(job, shown)
            keep = partial(self.keep, owner)
            tests = self.router.check, self.router.config.escalation.tests_timeout_s
            driver = Driver(self.tiers, job, not asked.body.get("logprobs"), keep, *tests)
            return await self.follow(request, driver, flow, shown)
        except RequestFailed as error:
            return await self.refused(job, error, shown)
        except Exception as error:
            job.left(LEFT if isinstance(error, ClientDisconnect) else 500)
            raise
        except BaseException:  # cancelled: the client left
            job.left()
            raise

    async def admit(self, job: Job) -> None:
        """Reserve what the request may cost. Raises RateLimited, BudgetSpent."""
        if job.key.limited:
            size, usd = reservation.most(self.router.config, self.router.count, job.asked, job.decided, job.flow)
            job.grant = await self.accounts.keys.admit(job.key, job.id, size, usd)

    async def refused(self, job: Job, error: RequestFailed, shown: Mapping[str, str]) -> Response:
        """The error as the client gets it, written down like an answer."""
        try:
            await job.finish(error.status, error)
        except RequestFailed as down:
            return error_response(down, shown)
        return error_response(error, shown)

    async def passed(self, job: Job, shown: dict[str, str]) -> Response:
        """One plain call; where its tier is down, the next one's. Raises RequestFailed before anything was sent."""
        others = self.instead(job.decided)
        while True:
            try:
                return await self.plain(job, shown, self.tiers[job.tier or job.decided.tier])
            except RequestFailed as error:
                if not (down(error) or isinstance(error, TierCold)) or not others:
                    raise
                shown["x-stepdown-degraded"] = f"{job.tier} {error.code}"
                job.tier = shown["x-stepdown-tier"] = others.pop(0)
                await self.moved(job)

    async def moved(self, job: Job) -> None:
        """Another tier than the one decided on is to answer, and may be dearer. Raises BudgetSpent."""
        if job.grant:
            _, usd = reservation.most(
                self.router.config, self.router.count, job.asked, replace(job.decided, tier=job.tier), job.flow
            )
            job.grant = await self.accounts.keys.exchange(job.grant, job.key, usd)

    def instead(self, decided: Decision) -> list[str]:
        """Who may answer for the tier decided on; nobody where the client named it."""
        how = self.router.config.routing.when_down if decided.target not in self.router.names else "none"
        return instead(self.router.names, decided.tier, {**decided.excluded, **self.balancer.cold()}, how)

    async def plain(self, job: Job, shown: dict[str, str], tier: Tier) -> Response:
        direct = Direct.of(tier, job)
        if not job.asked.stream:
            raw = await within(job, direct.complete())
            await job.finish()
            return Response(raw, media_type="application/json", headers=shown | cost_header(job))
        events = direct.stream()
        first = await within(job, anext(events, b""))  # errors before the first event still get their status
        return Streamed(job, self.ending(job, first, events), shown, events.aclose)

    async def ending(self, job: Job, first: bytes, events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        """The stream; before its end it is written down. A failure in the middle is an event, not silence."""
        try:
            async with aclosing(events):
                if first:
                    yield first
                async for item in timed(job, events):
                    yield item
            await job.finish()
            self.auditor.answered(job)
        except RequestFailed as error:
            with suppress(RequestFailed):  # the client is told of the first failure
                await job.finish(error.status, error)
            yield event(error.body())
        except Exception:
            job.left(500)
            raise
        yield DONE

    def keep(self, owner: str, end: Commit, tier: str) -> str:
        return self.hidden.keep(owner, end.hidden, end.splice, tier)

    async def follow(self, request: Request, driver: Driver, flow: Flow, shown: dict[str, str]) -> Response:
        """Run a flow; while a stream waits for its first byte it is kept open by comments. Raises RequestFailed."""
        running, left = asyncio.create_task(driver.run(flow)), asyncio.create_task(gone(request))
        stop = partial(stopped, running, driver)
        try:
            # Errors that come soon still get a status of their own; later ones are events in the stream.
            wait_s = HEARTBEAT_S if driver.request.stream else driver.job.left_s
            await asyncio.wait({running, left}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            if left.done():
                raise ClientDisconnect
            if running.done():
                end = running.result()
                shown.update(ended(driver, end))
                if isinstance(end, Fail):
                    raise end.error
                if not driver.request.stream:
                    body = driver.whole(end)
                    await driver.job.finish()
                    self.auditor.answered(driver.job)
                    text = json.dumps(body)  # ASCII: a tier's answer may hold half a character, which UTF-8 cannot
                    return Response(text, media_type="application/json", headers=shown | cost_header(driver.job))
            elif not driver.request.stream:
                raise DeadlineExceeded(driver.job.limit_s)
            events = self.driven(driver, running)
            return Streamed(driver.job, self.ending(driver.job, b"", events), shown, stop)
        except BaseException:
            await stop()
            raise
        finally:
            left.cancel()

    async def driven(self, driver: Driver, running: "asyncio.Task[End]") -> AsyncGenerator[bytes]:
        """What a flow says, without the last event, [DONE]. Raises RequestFailed."""
        while not running.done():
            yield f": stepdown {driver.phase}\n\n".encode()
            await asyncio.wait({running}, timeout=HEARTBEAT_S)
        end = running.result()
        if isinstance(end, Fail):
            raise end.error
        async with aclosing(driver.streamed(end)) as events:
            async for item in events:
                yield item


async def stopped(running: "asyncio.Task[End]", driver: Driver) -> None:
    """The flow and its calls are stopped and counted, before they are written down; also a stream that was about to be sent."""
    running.cancel()
    await asyncio.wait({running})
    await driver.stop()


async def gone(request: Request) -> None:
    """Returns when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
