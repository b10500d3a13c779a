"""Queue-aware choice: moves requests off a crowded tier within their target's promise, at a bounded cost, without swinging.

    placed = adjust(Asked(p, cost, rule, allowed, chosen), loads, state, now_s)   # Placed, or Full

The choice without load comes first (router/decide/policy.py) and stands wherever the tier's queue is short. Where it is not:

- The target's promise says which tiers may take the request instead. A rule on chances holds for each request, so only
  tiers at or above its bar qualify. A rule on expected worth promises a mean: a tier with a lower chance than the chosen
  one's qualifies only as far as earlier moves have gained chance, never on credit.
- Each tier has a share of its requests that moves. Moving begins at an expected wait of `start_s`; then the share follows
  the wait, from 0 at `stop_s` to 1 at `all_s`, and changes by at most `slew_per_s`: loads are old when they arrive, and a
  controller that follows old values at once swings. Shares are dealt out evenly, not drawn at random.
- Requests move to the cheapest tier with free places. Such a tier refuses a share of them, which grows from 0 at `idle` to
  1 when all its places are taken. The extra cost stays below `most_extra` of the cost without moves.
- A tier whose wait is beyond `most_wait_s` is full and takes nothing. Where all qualifying tiers are full, the result is `Full`.

A load older than `stale_s` is ignored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from classifiers import Rule
from classifiers.choose import Floats

Why = Literal["", "moved", "overflow"]
FADE = 0.999  # factor on the sums in BalanceState at each request, so that about the last thousand count


@dataclass(frozen=True, slots=True)
class Load:
    """The load of one tier over all its replicas, measured at `at_s`."""

    waiting: float
    running: float
    capacity: float
    """most requests that run at once; 0: no replica is ready"""
    rate: float | None
    """requests finished a second when all places are taken; None: not known yet"""
    at_s: float
    cold: bool = False
    """scaled to zero: a request sent there waits for a replica to start, so none is moved there while others have a place"""

    @property
    def wait_s(self) -> float:
        """Expected wait of a new request in seconds; infinite without a replica, 0 where the rate is not known."""
        if self.capacity <= 0:
            return float("inf")
        ahead = self.waiting + self.running - self.capacity + 1
        return max(0.0, ahead) / self.rate if self.rate else 0.0

    @property
    def busy(self) -> float:
        """Requests waiting and running over places; above 1 where requests wait."""
        return (self.waiting + self.running) / self.capacity if self.capacity > 0 else float("inf")


@dataclass(frozen=True, slots=True)
class BalanceSettings:
    """With a load every second, at most two seconds old, the defaults do not swing (tests/router/traffic/test_load.py)."""

    start_s: float = 1.0
    """expected wait from which requests begin to move"""
    all_s: float = 8.0
    """expected wait at which every request moves that may"""
    stop_s: float = 0.3
    """expected wait at which no request moves any more"""
    slew_per_s: float = 0.05
    """most that a share changes in a second"""
    idle: float = 0.5
    """share of taken places from which a tier begins to refuse moved requests"""
    most_extra: float = 0.25
    """most extra cost of all moves, as a share of the cost of all requests without them"""
    most_wait_s: float = 30.0
    """expected wait beyond which a tier is full"""
    most_queued: float = 4.0
    """waiting requests for each place beyond which a tier of unknown rate is full"""
    stale_s: float = 5.0
    """an older load is ignored"""


USUAL = BalanceSettings()


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as decided without load. p, cost: (n_tiers,), cheapest first; the top tier's mean cost = 1."""

    p: Floats | Sequence[float]
    cost: Floats | Sequence[float]
    rule: Rule | None
    """None: the client named the tier"""
    allowed: Sequence[int]
    """positions of the tiers that can take the request at all"""
    chosen: int


@dataclass(frozen=True, slots=True)
class Placed:
    """The tier that takes the request."""

    tier: int
    why: Why = ""
    """moved: by share; overflow: the chosen tier is full; empty: it stays on the chosen tier"""
    wait_s: float = 0.0
    """expected wait, as far as it is known"""


@dataclass(frozen=True, slots=True)
class Full:
    """Every qualifying tier is full or has no replica: answer 503 with Retry-After."""

    retry_after_s: float


@dataclass(slots=True)
class Share:
    """A share of requests, 0 to 1, that changes slowly and is dealt out evenly: 0.25 is every fourth request."""

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
class BalanceState:
    """What one ingress keeps between requests. The sums fade."""

    moving: dict[int, "Share"] = field(default_factory=dict)
    """tier -> share of its movable requests that move"""
    closed: dict[int, "Share"] = field(default_factory=dict)
    """tier -> share of moved requests that it refuses"""
    base: float = 0.0
    """cost of the requests without moves"""
    extra: float = 0.0
    """extra cost of the moves"""
    gained: float = 0.0
    """sum of the chance that moves gained, less what moves spent; never below 0"""


def adjust(
    asked: Asked, loads: Sequence[Load], state: BalanceState, now_s: float, settings: BalanceSettings | None = None
) -> Placed | Full:
    """The tier that takes the request. Changes `state`; the times in `loads` and `now_s` are of one clock."""
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


def full(load: Load, settings: BalanceSettings) -> bool:
    if load.rate:
        return load.wait_s > settings.most_wait_s
    return load.capacity <= 0 or load.waiting > settings.most_queued * load.capacity


def keeps_promise(asked: Asked, k: int, state: BalanceState) -> bool:
    """Whether tier k keeps what the request's target promises."""
    rule, p, own = asked.rule, asked.p, float(asked.p[asked.chosen])
    if rule is None or rule.kind == "tier":
        return False
    if rule.kind in ("utility", "cascade"):
        return bool(p[k] + state.gained >= own)
    bar = rule.value * (max(float(p[j]) for j in asked.allowed) if rule.kind == "relative" else 1.0)
    return bool(p[k] >= min(bar, own))


def worth_it(asked: Asked, k: int, fresh: dict[int, Load], state: BalanceState, settings: BalanceSettings) -> bool:
    """Whether tier k has a free place, a shorter wait, and a cost within the limit."""
    extra = float(asked.cost[k] - asked.cost[asked.chosen])
    affordable = extra <= 0 or state.extra + extra <= settings.most_extra * state.base
    return affordable and not fresh[k].cold and fresh[k].busy < 1.0 and fresh[k].wait_s < fresh[asked.chosen].wait_s


def leave(k: int, load: Load, state: BalanceState, now_s: float, settings: BalanceSettings) -> None:
    """Bring the share that moves off tier k nearer to the one that its wait calls for."""
    share = state.moving.setdefault(k, Share())
    starts = share.value > 0 or load.wait_s >= settings.start_s
    wanted = (min(load.wait_s, settings.all_s) - settings.stop_s) / (settings.all_s - settings.stop_s)
    share.toward(wanted if starts else 0.0, now_s, settings.slew_per_s)


def close(k: int, load: Load, state: BalanceState, now_s: float, settings: BalanceSettings) -> None:
    """Bring the share of moved requests that tier k refuses nearer to the one that its taken places call for."""
    wanted = (min(load.busy, 1.0) - settings.idle) / (1.0 - settings.idle)
    state.closed.setdefault(k, Share()).toward(wanted, now_s, settings.slew_per_s)


def move(asked: Asked, k: int, fresh: dict[int, Load], state: BalanceState, why: Why) -> Placed:
    state.extra += max(0.0, float(asked.cost[k] - asked.cost[asked.chosen]))
    state.gained = max(0.0, state.gained + float(asked.p[k] - asked.p[asked.chosen]))
    return Placed(k, why, fresh[k].wait_s)


def overflow(
    asked: Asked, fresh: dict[int, Load], others: list[int], state: BalanceState, settings: BalanceSettings
) -> Placed | Full:
    """The chosen tier is full: take the shortest queue that keeps the promise, whatever it costs, else `Full`."""
    if others:
        quickest = min(others, key=lambda k: (fresh[k].cold, fresh[k].wait_s, fresh[k].busy, float(asked.cost[k])))
        return move(asked, quickest, fresh, state, "overflow")
    could = [k for k in fresh if k == asked.chosen or keeps_promise(asked, k, state)]
    return Full(min(retry_after(fresh[k], settings) for k in could))


def retry_after(load: Load, settings: BalanceSettings) -> float:
    """Seconds until the tier may take requests again, 1 to 60; 10 where that is not known."""
    if not load.rate or load.capacity <= 0:
        return 10.0
    return min(60.0, max(1.0, load.wait_s - settings.most_wait_s))


def fade(state: BalanceState) -> None:
    state.base *= FADE
    state.extra *= FADE
    state.gained *= FADE
