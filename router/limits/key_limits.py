"""The limits of an API key: tiers, targets, requests and tokens per minute, USD per day and month. The time is an argument."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from router.decide.targets import as_chance
from router.errors import NotAllowed, RateLimited
from router.limits.consent import Consent
from router.limits.reservation import Size

MINUTE_S = 60
USUAL_ANSWER = 256  # tokens assumed for an answer until it is known, if the request sets no limit
RIGHTS = ("costs", "admin", "learn")


@dataclass(frozen=True, slots=True)
class Period:
    """A day or a month in UTC that has a budget."""

    kind: Literal["day", "month"]
    name: str
    """`2026-11-24` or `2026-11`"""
    began_s: float
    """Unix time"""
    ends_s: float
    """Unix time at which the next period begins"""


def day_of(now_s: float) -> Period:
    now = datetime.fromtimestamp(now_s, UTC)
    began = now.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    return Period("day", f"{now:%Y-%m-%d}", began, began + 86_400)


def month_of(now_s: float) -> Period:
    first = datetime.fromtimestamp(now_s, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return Period("month", f"{first:%Y-%m}", first.timestamp(), following.timestamp())


def period_named(name: str) -> Period:
    """The period whose `Period.name` is given."""
    began_s = datetime.fromisoformat(name if len(name) == 10 else f"{name}-01").replace(tzinfo=UTC).timestamp()
    return day_of(began_s) if len(name) == 10 else month_of(began_s)


@dataclass(frozen=True, slots=True)
class Key:
    """An API key and its limits. None: no limit."""

    id: str
    """shown in lists and reports; not secret"""
    name: str
    tiers: frozenset[str] | None = None
    targets: frozenset[str] | None = None
    """`cheap`, `0.97`, ...: targets that `auto` may be used with"""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    usd_per_day: float | None = None
    usd_per_month: float | None = None
    rights: frozenset[str] = frozenset()
    """of RIGHTS"""
    learning: Consent = "never"
    """which of its requests may be kept to learn from, where the operator collects them"""

    def require(self, right: str) -> None:
        """Raises NotAllowed."""
        if right not in self.rights:
            raise NotAllowed(f"key {self.name} lacks the right {right!r}; a key made with `--rights {right}` has it")

    def shown(self) -> dict[str, Any]:
        """What its holder may know of it, as JSON; null: no limit."""
        sets = {
            name: None if found is None else sorted(found) for name, found in (("tiers", self.tiers), ("targets", self.targets))
        }
        limits = ("requests_per_minute", "tokens_per_minute", "usd_per_day", "usd_per_month")
        numbers = {name: getattr(self, name) for name in limits}
        return {"id": self.id, "name": self.name, **sets, **numbers, "rights": sorted(self.rights), "learning": self.learning}

    def excluded(self, names: Iterable[str]) -> dict[str, str]:
        """The tiers among `names` that may not answer this key, each with the reason, as `policy.exclude` gives it."""
        return {} if self.tiers is None else {name: "not allowed for this key" for name in names if name not in self.tiers}

    def may_name(self, tier: str) -> bool:
        """Whether this tier may be asked for by name. A key with targets but without tiers may name none."""
        return self.targets is None if self.tiers is None else tier in self.tiers

    def check_model(self, tier: str | None, target: str | None) -> None:
        """Whether the key may ask for this tier or target; one of them is None. Raises NotAllowed."""
        if tier is not None and not self.may_name(tier):
            raise NotAllowed(f"key {self.name} may not ask for tier {tier!r}; its `model` may be {self.models()}")
        if target is not None and self.targets is not None and target not in self.targets and not self.same_chance(target):
            raise NotAllowed(f"key {self.name} may not use target {target!r}; its `model` may be {self.models()}")

    @property
    def limited(self) -> bool:
        """Whether requests must be admitted."""
        return self.budgeted or self.requests_per_minute is not None or self.tokens_per_minute is not None

    @property
    def budgeted(self) -> bool:
        return self.usd_per_day is not None or self.usd_per_month is not None

    def same_chance(self, target: str) -> bool:
        """Whether a target of the key is the same chance, as `0.90` is for `0.9`."""
        chances = {as_chance(t) for t in self.targets or ()} - {None}
        return as_chance(target) in chances

    def models(self) -> str:
        """The values of `model` that this key may send, for messages."""
        ways = ["auto and its targets"] if self.targets is None else [f"auto:{t}" for t in sorted(self.targets)]
        return ", ".join([*ways, *sorted(self.tiers or ())])

    def budgets(self, now_s: float) -> list[tuple[Period, float]]:
        """Periods with their budgets in USD, in the order in which their rows must be locked."""
        both = ((month_of(now_s), self.usd_per_month), (day_of(now_s), self.usd_per_day))
        return [(period, usd) for period, usd in both if usd is not None]


# -- requests and tokens a minute ------------------------------------------------------------------------------------------


class Minute:
    """Use within the last minute, counted in slots of one second.

    Any 60 seconds hold at most the limit; a token bucket would let nearly twice as much through. A slot is dropped when all of it
    is a minute old, so up to a second late and never early.
    """

    def __init__(self) -> None:
        self.slots: dict[int, int] = {}

    def used(self, now_s: float) -> int:
        for slot in [slot for slot in self.slots if slot + 1 + MINUTE_S <= now_s]:
            del self.slots[slot]
        return sum(self.slots.values())

    def wait_s(self, amount: int, limit: int, now_s: float) -> float:
        """Seconds until `amount` fits, which must be at most `limit`; 0: now."""
        over = self.used(now_s) + amount - limit
        for slot in sorted(self.slots):
            if over <= 0:
                break
            over -= self.slots[slot]
            if over <= 0:
                return slot + 1 + MINUTE_S - now_s
        return 0.0

    def add(self, amount: int, now_s: float) -> int:
        """Returns the slot, for `correct`."""
        slot = math.floor(now_s)
        self.slots[slot] = self.slots.get(slot, 0) + amount
        return slot

    def correct(self, slot: int, by: int) -> None:
        """Add to what was counted in a slot, unless it was dropped."""
        if slot in self.slots:
            self.slots[slot] = max(0, self.slots[slot] + by)


@dataclass(frozen=True, slots=True)
class TakenRate:
    """What one request took of its key's rate limits."""

    key_id: str
    slot: int
    tokens: int
    requests: int = 1


@dataclass(slots=True)
class RateLimits:
    """Use of all keys in this process.

    replicas: processes that share the work. Each grants its share of a limit, so that together they never exceed it (or grant
    one request each, if the limit is smaller than their number).
    """

    replicas: int = 1
    requests: dict[str, Minute] = field(default_factory=dict)
    tokens: dict[str, Minute] = field(default_factory=dict)

    def share(self, limit: int) -> int:
        return max(1, limit // self.replicas)

    def take_request(self, key: Key, now_s: float) -> None:
        """Count a request whose tokens are not known yet. Raises RateLimited, also where no token is left for it."""
        self.check(key, 1, 1, now_s)
        self.count(key, 1, 0, now_s)

    def take(self, key: Key, size: Size, now_s: float) -> TakenRate:
        """Count a request before it runs. Raises RateLimited, and then counts nothing."""
        needed = self.needed(key, size)
        self.check(key, 1, needed, now_s)
        return self.count(key, 1, needed, now_s)

    def check(self, key: Key, requests: int, tokens: int, now_s: float) -> None:
        """Whether so many more fit into the minute. Raises RateLimited."""
        for limit, unit, minutes, amount in (
            (key.requests_per_minute, "requests", self.requests, requests),
            (key.tokens_per_minute, "tokens", self.tokens, tokens),
        ):
            if limit is not None:
                wait_s = minutes.setdefault(key.id, Minute()).wait_s(amount, self.share(limit), now_s)
                if wait_s:
                    raise RateLimited(limit, unit, wait_s)

    def needed(self, key: Key, size: Size) -> int:
        """Tokens to count until the real number is known: the most that it may be, or with a usual answer if no limit is set.

        Raises RateLimited for a request whose prompt is larger than the limit of a whole minute.
        """
        limit, most = key.tokens_per_minute, size.input_tokens + (size.answer_tokens or USUAL_ANSWER)
        if limit is None:
            return most
        if size.input_tokens >= self.share(limit):
            raise RateLimited(limit, "tokens", MINUTE_S, needed=size.input_tokens + 1)
        return min(most, self.share(limit))

    def count(self, key: Key, requests: int, tokens: int, now_s: float) -> TakenRate:
        """Count what was checked. A key without a limit of requests has none to give back."""
        counted = requests if key.requests_per_minute is not None else 0
        if counted:
            self.requests[key.id].add(requests, now_s)
        if key.tokens_per_minute is not None:
            self.tokens[key.id].add(tokens, now_s)
        return TakenRate(key.id, math.floor(now_s), tokens, counted)

    def settle(self, taken: TakenRate, tokens: int) -> None:
        """Correct the count: the request is over and used that many tokens."""
        if taken.key_id in self.tokens:
            self.tokens[taken.key_id].correct(taken.slot, tokens - taken.tokens)

    def undo(self, taken: TakenRate) -> None:
        """Uncount a request that did not run."""
        self.settle(taken, 0)
        if taken.requests:
            self.requests[taken.key_id].correct(taken.slot, -taken.requests)
