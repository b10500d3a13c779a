"""Asks tiers for answers to learn from, within a budget of the day, and records what each call cost."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployments.beside_loop import by_length
from deployments.ids import fresh
from deployments.learning.filling.idleness import OwnCalls
from deployments.traffic import hedged_call
from deployments.traffic.watched_tier import Watched
from router.cascade.flow import with_logprobs
from router.config import Tier
from router.decide import policy
from router.decide.abilities import Abilities
from router.errors import BadRequest, NoReplica, RequestFailed, TierFailed
from router.flywheel.grading.filling import expected_usd
from router.flywheel.served import Answer
from router.flywheel.variants import tier_of
from router.learn.labels.labelling import logprob_stats
from router.limits import reservation
from router.limits.key_limits import day_of
from router.request import wire
from router.request.thoughts import apart, named
from router.request.token_bounds import Reader, text_tokens, within_window
from router.tier_settings import ANSWER_RESERVE
from router.trace import LEARNING, CallRow, Reading
from router.types import Counter, Path, Request, Role, Usage

PATH: Path = "chat/completions"
WAIT_S = 0.2  # between looks whether calls under way have cost less than was set aside


class Halted(Exception):
    """A request cannot be worked on now, for a reason that is none of its own; the message says which."""


class TooDear(Exception):
    """One answer would cost more than a whole day's budget."""


@dataclass(slots=True)
class Budget:
    """USD of a day (UTC) for calls to learn from. What calls under way may cost is set aside."""

    usd_day: float
    day: str = ""
    ends_s: float = 0.0
    """Unix time at which the next day begins"""
    spent: float = 0.0
    held: float = 0.0
    exhausted: bool = False
    """an answer was not asked for because what is left does not cover it; nothing cheaper is preferred to it"""

    def begin(self, now_s: float, spent: float) -> None:
        """Begin a day of which so much is spent already."""
        day = day_of(now_s)
        self.day, self.ends_s, self.spent, self.exhausted = day.name, day.ends_s, spent, False

    def hold(self, usd: float) -> bool:
        """Set aside what a call may cost. False: calls under way may need it. Raises TooDear, Halted."""
        if usd > self.usd_day > 0:
            raise TooDear(f"an answer would cost about {usd:.3g} USD, learning.fill_usd_day allows {self.usd_day:g} a day")
        if self.spent + usd > self.usd_day:
            self.exhausted = True
            raise Halted("the day's budget is spent")
        if self.held and self.spent + self.held + usd > self.usd_day:
            return False
        self.held += usd
        return True

    def paid(self, held: float, usd: float) -> None:
        self.held, self.spent = max(0.0, self.held - held), self.spent + usd


@dataclass(slots=True)
class Asker:
    """Asks tiers by the names of their weights, as `small@3f2a9c41e0d2`: to the replica, in prices and in the calls of the ledger
    it is `small`.

    ready: waits until a tier may be asked. add: writes a call down. reserve: `routing.answer_reserve`. clock: Unix time.
    """

    tiers: Mapping[str, Watched]
    """by name of the weights"""
    settings: Mapping[str, Tier]
    """by tier, as prices and counts"""
    prices: Mapping[str, Sequence[float]]
    counts: Mapping[str, Counter]
    abilities: Abilities
    models: Mapping[str, str]
    """name of the weights -> fingerprint"""
    budget: Budget
    ready: Callable[[str], Awaitable[None]]
    add: Callable[[Sequence[CallRow]], Awaitable[None]]
    timeout_s: float = 600.0
    reserve: int = ANSWER_RESERVE
    clock: Callable[[], float] = time.time
    own: OwnCalls = field(default_factory=OwnCalls)

    def cannot(self, body: Mapping[str, Any], tiers: Sequence[str]) -> dict[str, str]:
        """Tiers that cannot take a request, each with the reason. Counts tokens; for a thread. tiers: names of weights."""
        try:
            facts = wire.facts(Request(PATH, body))
            settings = [self.settings[name] for name in dict.fromkeys(map(tier_of, tiers))]
            found = policy.exclude(facts, settings, self.counts, self.abilities, self.reserve)
            return {name: found[tier_of(name)] for name in tiers if tier_of(name) in found}
        except (BadRequest, LookupError, TypeError, ValueError, AttributeError) as error:
            return dict.fromkeys(tiers, f"the request cannot be read ({type(error).__name__})")

    def reader(self, tier: str) -> Reader:
        return Reader.of(self.settings[tier], self.counts[tier])

    def measured(self, tier: str, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
        """The body with a limit of its answer, ours where the client set none, and its prompt's tokens. For a thread."""
        limited = within_window(reservation.with_limit(body, self.settings[tier], self.counts[tier]), self.reader(tier))
        return limited, self.reader(tier).expected_total(limited)

    async def ask(
        self, tier: str, body: Mapping[str, Any], role: Role, trace_id: str, known: Mapping[str, Answer]
    ) -> tuple[Answer, str]:
        """The tier's answer, and the id of the call's row.

        tier: the name of its weights. known: answers that it may be as long as.
        Raises RequestFailed, Halted, TooDear, LedgerDown.
        """
        name, tier = tier, tier_of(tier)
        sent: Mapping[str, Any] = wire.forwarded({**body, "stream": False}, tier)
        if role == "fill" and not self.abilities.lack(tier, "logprobs"):
            sent = with_logprobs(sent)
        sent, tokens = await asyncio.to_thread(self.measured, tier, sent)
        held = expected_usd(self.prices[tier], tokens, body, known)
        while not self.budget.hold(held):
            await asyncio.sleep(WAIT_S)
        paid = 0.0
        try:
            await self.ready(name)
            row_id = f"{trace_id}/{role}-{name}-{fresh()[:8]}"
            call = OneCall(self, name, sent, role, trace_id, row_id)
            try:
                return await call.answer(), row_id
            finally:
                paid = call.cost_usd
                await self.add(call.rows(tokens))
        finally:
            self.budget.paid(held, paid)


@dataclass(slots=True)
class OneCall:
    """One call to one tier."""

    asker: Asker
    name: str
    """of its weights"""
    body: Mapping[str, Any]
    role: Role
    trace_id: str
    id: str
    began_s: float = 0.0
    took_s: float = 0.0
    usage: Usage = Usage()
    estimated: bool = False
    outcome: str = "cancelled"
    reading: Reading = field(default_factory=Reading)

    @property
    def tier(self) -> str:
        return tier_of(self.name)

    @property
    def model(self) -> str:
        return self.asker.models.get(self.name, "")

    async def answer(self) -> Answer:
        """Raises RequestFailed."""
        self.began_s, began = self.asker.clock(), time.monotonic()
        try:
            with self.asker.own.call(self.name):
                async with asyncio.timeout(self.asker.timeout_s):
                    raw = await self.asker.tiers[self.name].complete(PATH, self.body, self.reading, self.id)
            found = await by_length(raw, read, raw, self.tier)
        except RequestFailed as error:
            self.outcome = error.outcome
            raise
        except TimeoutError:
            self.outcome = NoReplica.code
            raise NoReplica(self.tier, f"no answer within {self.asker.timeout_s:.0f} s") from None
        finally:
            self.took_s = time.monotonic() - began
        self.outcome = "answered"
        self.usage = Usage(found.input_tokens, found.output_tokens)
        if self.usage == Usage():
            self.usage, self.estimated = await asyncio.to_thread(self.counted, found), True
        return Answer(
            self.name,
            "fill",
            found.message,
            found.finish,
            self.usage.input_tokens,
            self.usage.output_tokens,
            self.cost_usd,
            found.signals,
            self.model,
        )

    def counted(self, found: Answer) -> Usage:
        reader = self.asker.reader(self.tier)
        return Usage(reader.expected_total(self.body), text_tokens(json.dumps(found.message), reader.count))

    @property
    def cost_usd(self) -> float:
        return hedged_call.cost_usd(self.usage, self.asker.prices[self.tier], self.reading)

    def rows(self, prompt_tokens: int) -> list[CallRow]:
        """What the ledger keeps: two rows where the call was sent to a second replica too."""
        if self.outcome == "cancelled":  # it read the prompt, or part of it
            self.usage, self.estimated = Usage(prompt_tokens, 0), True
        settings, prices = self.asker.settings[self.tier], self.asker.prices[self.tier]
        row = CallRow(
            id=self.id,
            trace_id=self.trace_id,
            key_id=LEARNING,
            role=self.role,
            tier=self.tier,
            outcome=self.outcome[:64],
            began_s=self.began_s,
            took_s=self.took_s,
            input_tokens=self.usage.input_tokens,
            output_tokens=self.usage.output_tokens,
            estimated=self.estimated,
            cost_usd=self.cost_usd,
            model=self.model,
            **hedged_call.measured(self.reading, settings),
        )
        twin = self.reading.twin
        return hedged_call.rows(row, self.reading, twin, prices, settings) if twin else [row]


def read(raw: bytes, tier: str) -> Answer:
    """A chat completion. Tokens are 0 where the tier reported none. Raises TierFailed."""
    try:
        body = json.loads(raw)
        choice, usage = body["choices"][0], body.get("usage") or {}
        said = named(apart(choice["message"]), ("reasoning",))
        message = {name: value for name, value in said.items() if value is not None}
        prompt, completion = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        finish = str(choice.get("finish_reason") or "")
        return Answer(tier, "fill", message, finish, prompt, completion, signals=logprob_stats(choice))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise TierFailed(tier, "it gave no chat completion") from None
