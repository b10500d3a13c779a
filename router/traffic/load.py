"""Queue-aware choice: work moves off a crowded tier within what its target promises, at a bounded price, without swinging.

    placed = adjust(Asked(p, cost, rule, allowed, chosen), loads, state, now_s)   # Placed, or Full

The choice without load comes first (router/decide/policy.py) and stands wherever the tier's queue is short. Where it is not:

- Which tiers may take the request instead is the promise's matter. Rules on chances are kept for each request: only tiers
  at or above the bar. Rules on expected worth promise a mean: there a tier with less than the chosen one's chance is paid
  for by what earlier moves have gained, never on credit.
- How many requests move is a share for each tier. It begins at an expected wait of `start_s`, then follows the wait from
  none at `stop_s` to all at `all_s`, and changes by at most `slew_per_s`: what is seen is old by the time it is seen, and
  a controller that answers old news at once swings. Shares are dealt out evenly, not drawn.
- Where to: the cheapest tier with free places. It closes by a share of the same kind as they fill, from `idle` to all
  taken. Extra cost stays under `most_extra` of what the requests would have cost.
- A tier whose wait is beyond `most_wait_s` is full, and takes nothing. All that may take the request full: `Full`.

Nothing is done on news older than `stale_s`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from classifiers import Rule
from classifiers.choose import Floats

Why = Literal["", "moved", "overflow"]
FADE = 0.999  # of the accounts, at each request: a thousand requests ago is forgotten


@dataclass(frozen=True, slots=True)
class Load:
    """One tier over all its replicas, as seen at `at_s`."""

    waiting: float
    running: float
    capacity: float
    """requests that run at once at most; 0: no replica is ready"""
    rate: float | None
    """requests that it finishes in a second when all places are taken; None: not known yet"""
    at_s: float
    cold: bool = False
    """no replica while nobody asks: who is sent there waits for one, so nobody is moved there while others have a place"""

    @property
    def wait_s(self) -> float:
        """Seconds that a new request is expected to wait; infinite without a replica, 0 where the rate is not known."""
        if self.capacity <= 0:
            return float("inf")
        ahead = self.waiting + self.running - self.capacity + 1
        return max(0.0, ahead) / self.rate if self.rate else 0.0

    @property
    def busy(self) -> float:
        """Share of the places taken or waited for; above 1 where requests wait."""
        return (self.waiting + self.running) / self.capacity if self.capacity > 0 else float("inf")


@dataclass(frozen=True, slots=True)
class Balance:
    """Settings. With news every second, and two seconds old at most, the defaults do not swing
    (tests/router/traffic/test_load.py)."""

    start_s: float = 1.0
    """expected wait from which requests begin to move"""
    all_s: float = 8.0
    """expected wait at which all that may move do"""
    stop_s: float = 0.3
    """expected wait at which all have come back"""
    slew_per_s: float = 0.05
    """a share changes by at most that much in a second"""
    idle: float = 0.5
    """share of a tier's places taken from which it begins to refuse others' work"""
    most_extra: float = 0.25
    """extra cost of all moves, as a share of what all requests cost without them"""
    most_wait_s: float = 30.0
    """expected wait beyond which a tier is full"""
    most_queued: float = 4.0
    """times its places, where the rate is not known, beyond which a tier is full"""
    stale_s: float = 5.0
    """older news counts for nothing"""


USUAL = Balance()


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as decided without load. p, cost: (n_tiers,), cheapest first; cost in the top tier's mean."""

    p: Floats | Sequence[float]
    cost: Floats | Sequence[float]
    rule: Rule | None
    """None: the client asked for the tier"""
    allowed: Sequence[int]
    """positions of the tiers that can take it at all"""
    chosen: int


@dataclass(frozen=True, slots=True)
class Placed:
    tier: int
    why: Why = ""
    """moved: by share; overflow: the chosen tier is full"""
    wait_s: float = 0.0
    """expected, as far as it is known"""


@dataclass(frozen=True, slots=True)
class Full:
    """Every tier that may take the request is full or has no replica: answer 503 with Retry-After."""

    retry_after_s: float


@dataclass(slots=True)
class Share:
    """A share of requests, 0 to 1, that changes slowly and is dealt out evenly: every fourth for 0.25."""

    value: float = 0.0
    at_s: float | None = None
    owed: float = 0.0

    def toward(self, wanted: float, now_s: float, slew_per_s: float) -> None:
        step = slew_per_s * min(now_s - self.at_s, 1.0) if self.at_s is not None else 0.0
        self.value = min(max(wanted, self.value - step, 0.0), self.value + step, 1.0)
        self.at_s = now_s

    def due(self) -> bool:
        """Whether the next request is one of the share."""
        self.owed += self.value
        if self.owed < 1.0 - 1e-9:
            return False
        self.owed -= 1.0
        return True


@dataclass(slots=True)
class Steering:
    """What one ingress keeps between requests."""

    moving: dict[int, "Share"] = field(default_factory=dict)
    """tier -> share of its movable requests that are moved"""
    closed: dict[int, "Share"] = field(default_factory=dict)
    """tier -> share of others' requests that it refuses"""
    base: float = 0.0
    extra: float = 0.0
    """what requests would have cost without moves, and what moves cost more, both fading"""
    gained: float = 0.0
    """sum of chances that moves have gained, less what was spent; never below 0"""


def adjust(asked: Asked, loads: Sequence[Load], state: Steering, now_s: float, settings: Balance | None = None) -> Placed | Full:
    """Where the request goes. `state` is changed; `loads` and `now_s` are of one clock."""
    settings = settings or USUAL
    fresh = {k: loads[k] for k in asked.allowed if now_s - loads[k].at_s <= settings.stale_s}
    fade(state)
    state.base += float(asked.cost[asked.chosen])
    here = fresh.get(asked.chosen)
    if here is None or here.cold:
        return Placed(asked.chosen)
    leave(asked.chosen, here, state, now_s, settings)
    others = [k for k in fresh if k != asked.chosen and not full(fresh[k], settings) and keeps_promise(asked, k, state)]
    if full(here, settings):
        return overflow(asked, fresh, others, state, settings)
    better = [k for k in others if worth_it(asked, k, fresh, state, settings)]
    if better and state.moving[asked.chosen].due():
        for k in sorted(better, key=lambda k: float(asked.cost[k])):
            close(k, fresh[k], state, now_s, settings)
            if not state.closed[k].due():
                return move(asked, k, fresh, state, "moved")
    return Placed(asked.chosen, wait_s=here.wait_s)


def full(load: Load, settings: Balance) -> bool:
    if load.rate:
        return load.wait_s > settings.most_wait_s
    return load.capacity <= 0 or load.waiting > settings.most_queued * load.capacity


def keeps_promise(asked: Asked, k: int, state: Steering) -> bool:
    """Whether tier k is good enough for what the request's target promises."""
    rule, p, own = asked.rule, asked.p, float(asked.p[asked.chosen])
    if rule is None or rule.kind == "tier":
        return False
    if rule.kind in ("utility", "cascade"):
        return bool(p[k] + state.gained >= own)
    bar = rule.value * (max(float(p[j]) for j in asked.allowed) if rule.kind == "relative" else 1.0)
    return bool(p[k] >= min(bar, own))


def worth_it(asked: Asked, k: int, fresh: dict[int, Load], state: Steering, settings: Balance) -> bool:
    """Whether tier k has a free place, is quicker, and within the price."""
    extra = float(asked.cost[k] - asked.cost[asked.chosen])
    affordable = extra <= 0 or state.extra + extra <= settings.most_extra * state.base
    return affordable and not fresh[k].cold and fresh[k].busy < 1.0 and fresh[k].wait_s < fresh[asked.chosen].wait_s


def leave(k: int, load: Load, state: Steering, now_s: float, settings: Balance) -> None:
    """The share that moves off tier k, brought nearer to what its wait asks for."""
    share = state.moving.setdefault(k, Share())
    starts = share.value > 0 or load.wait_s >= settings.start_s
    wanted = (min(load.wait_s, settings.all_s) - settings.stop_s) / (settings.all_s - settings.stop_s)
    share.toward(wanted if starts else 0.0, now_s, settings.slew_per_s)


def close(k: int, load: Load, state: Steering, now_s: float, settings: Balance) -> None:
    """The share of others' requests that tier k refuses, likewise, by its places."""
    wanted = (min(load.busy, 1.0) - settings.idle) / (1.0 - settings.idle)
    state.closed.setdefault(k, Share()).toward(wanted, now_s, settings.slew_per_s)


def move(asked: Asked, k: int, fresh: dict[int, Load], state: Steering, why: Why) -> Placed:
    state.extra += max(0.0, float(asked.cost[k] - asked.cost[asked.chosen]))
    state.gained = max(0.0, state.gained + float(asked.p[k] - asked.p[asked.chosen]))
    return Placed(k, why, fresh[k].wait_s)


def overflow(asked: Asked, fresh: dict[int, Load], others: list[int], state: Steering, settings: Balance) -> Placed | Full:
    """The chosen tier is full: the shortest queue that keeps the promise, whatever it costs, or nothing."""
    if others:
        quickest = min(others, key=lambda k: (fresh[k].cold, fresh[k].wait_s, fresh[k].busy, float(asked.cost[k])))
        return move(asked, quickest, fresh, state, "overflow")
    could = [k for k in fresh if k == asked.chosen or keeps_promise(asked, k, state)]
    return Full(min(retry_after(fresh[k], settings) for k in could))


def retry_after(load: Load, settings: Balance) -> float:
    """Seconds until the tier may take requests again, 1 to 60; 10 where nobody knows."""
    if not load.rate or load.capacity <= 0:
        return 10.0
    return min(60.0, max(1.0, load.wait_s - settings.most_wait_s))


def fade(state: Steering) -> None:
    state.base *= FADE
    state.extra *= FADE
    state.gained *= FADE
