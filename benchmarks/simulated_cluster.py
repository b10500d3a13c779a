"""A cluster as queues: requests in order of arrival, replicas with places, the better of two random replicas for each.

The simulation is exact for first-come-first-served. Which place a request gets, and when, depends only on earlier requests, so
there is no event list; a place is represented by the time at which it is free again.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heapreplace

import numpy as np
from numpy.typing import NDArray

from router.traffic.load import Load

Floats = NDArray[np.float64]
Choose = Callable[[int, float, int], int]
"""(prompt, seconds, second of the newest news) -> tier, or -1 for a request that is refused"""


@dataclass(frozen=True)
class Kind:
    """What one replica of a tier can do. The rates hold with all places taken, which errs towards slow."""

    name: str
    accelerators: int
    places: int
    """requests decoded at once"""
    prefill: float
    """prompt tokens a second, of one request"""
    decode: float
    """tokens a second, of one request"""

    def service_s(self, tokens_in: Floats, tokens_out: Floats) -> Floats:
        return tokens_in / self.prefill + np.maximum(tokens_out, 1) / self.decode


@dataclass
class Pool:
    """The replicas of one tier, and by the second how many requests came, began and ended."""

    kind: Kind
    replicas: int
    seconds: int
    places: list[list[float]] = field(init=False)
    came: list[int] = field(init=False)
    began: list[int] = field(init=False)
    ended: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.places = [[0.0] * self.kind.places for _ in range(self.replicas)]
        self.came, self.began, self.ended = ([0] * (self.seconds + 1) for _ in range(3))

    def take(self, now: float, service_s: float, draw: int) -> float:
        """Seconds the request waits; draw: a random number below replicas ** 2."""
        one, other = self.places[draw % self.replicas], self.places[draw // self.replicas]
        queue = one if one[0] <= other[0] else other
        start = now if queue[0] <= now else queue[0]
        heapreplace(queue, start + service_s)
        self.came[int(now)] += 1
        self.began[min(self.seconds, int(start))] += 1
        self.ended[min(self.seconds, int(start + service_s))] += 1
        return start - now


class News:
    """What ingresses know of each tier: as of the last whole second, made from the sums up to it."""

    def __init__(self, pools: Sequence[Pool]) -> None:
        self.pools, self.second = pools, -1
        self.sums = np.zeros((len(pools), 3))
        self.loads = [Load(0.0, 0.0, p.replicas * p.kind.places, None, 0.0) for p in pools]

    def at(self, second: int) -> list[Load]:
        while self.second < second - 1:
            self.second += 1
            for k, pool in enumerate(self.pools):
                self.sums[k] += (pool.came[self.second], pool.began[self.second], pool.ended[self.second])
                self.loads[k] = self.load(k, pool.ended[self.second])
        return self.loads

    def load(self, k: int, ended: int) -> Load:
        came, began, done = self.sums[k]
        running, places = max(0.0, began - done), self.loads[k].capacity
        seen = ended * places / running if running else None  # Little's law, scaled to all places taken
        before = self.loads[k].rate
        rate = seen if before is None or seen is None else 0.9 * before + 0.1 * seen
        return Load(float(came - began), running, places, rate, self.second + 1.0)


@dataclass(frozen=True)
class Day:
    """Arrivals of one simulated day: when, and which prompt."""

    at_s: Floats
    prompt: NDArray[np.int64]
    seconds: int


def day(tasks: NDArray[np.str_], per_s: float, seconds: int, seed: int = 0) -> Day:
    """A day squeezed into `seconds`: peak `per_s` in its middle, a quarter of it at night, and the mix of tasks changes."""
    rng = np.random.default_rng(seed)
    names = sorted(set(tasks))
    rows = [np.flatnonzero(tasks == name) for name in names]
    times, prompts = [], []
    for second in range(seconds):
        angle = 2 * np.pi * second / seconds
        n = rng.poisson(per_s * (0.625 - 0.375 * np.cos(angle)))
        weight = np.array([len(r) * (1 + 0.5 * np.sin(angle + 2 * np.pi * i / len(names))) for i, r in enumerate(rows)])
        which = rng.choice(len(names), size=n, p=weight / weight.sum())
        drawn = [rng.choice(rows[i], size=int((which == i).sum())) for i in range(len(names))]
        times.append(np.sort(second + rng.random(n)))
        prompts.append(rng.permutation(np.concatenate(drawn)))
    return Day(np.concatenate(times), np.concatenate(prompts), seconds)


def steady(prompts: int, per_s: float, seconds: int, seed: int = 0) -> Day:
    """The same load all the time, all prompts alike likely."""
    rng = np.random.default_rng(seed)
    n = rng.poisson(per_s * seconds)
    return Day(np.sort(rng.random(n) * seconds), rng.integers(prompts, size=n), seconds)


@dataclass(frozen=True)
class Ran:
    """What became of each request: tier (-1: refused) and seconds waited."""

    tier: NDArray[np.int64]
    wait_s: Floats
    pools: Sequence[Pool]


def run(day: Day, pools: Sequence[Pool], service_s: Floats, choose: Choose, seed: int = 0) -> Ran:
    """service_s: (n_prompts, n_tiers)."""
    draw, table = random.Random(seed).randrange, service_s.tolist()
    squares = [pool.replicas**2 for pool in pools]
    tiers, waits = [], []
    for now, prompt in zip(day.at_s.tolist(), day.prompt.tolist(), strict=True):
        tier = choose(prompt, now, int(now))
        tiers.append(tier)
        waits.append(pools[tier].take(now, table[prompt][tier], draw(squares[tier])) if tier >= 0 else 0.0)
    return Ran(np.array(tiers), np.array(waits), pools)
