"""Plays routing, cascading and both on prompts whose answers are all known, counting the cost of every call.

routing    the classifier alone decides, by expected quality less price times guessed cost
cascading  the cheapest tier first, then the next larger one until an answer's chance reaches a bar
both       cascade routing as it is served: router/cascade/next_step.py decides after each answer
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifiers.choose import Floats
from classifiers.replies.posterior import Posterior, fit_posterior
from classifiers.replies.signals import Answered, Seen
from router.cascade.next_step import NEVER, CascadePlan, PlanScope, make_plan, plan, values
from router.learn import evaluation as ev
from router.learn.evaluation import Frontier

Ints = NDArray[np.int64]
PRICES = np.concatenate([[-0.3, -0.1, 0.0], np.geomspace(0.003, 4, 90)])  # negative: quality above the top tier's own
BARS = np.concatenate([np.linspace(0, 0.95, 39), [0.97, 0.98, 0.99, 0.995, 1.01]])


@dataclass(frozen=True)
class Rows:
    """Prompts to play; all arrays (n, n_tiers), costs and guessed costs with the top tier's mean in training = 1."""

    prior: Floats
    guessed: Floats
    seen: Seen
    scores: Floats
    costs: Floats
    weights: Floats | None = None
    """(n,) with a mean of 1; None: all count alike"""

    def __len__(self) -> int:
        return len(self.prior)

    def take(self, rows: NDArray[np.bool_] | Ints) -> "Rows":
        """The rows selected by a mask or by positions."""
        arrays = (self.prior[rows], self.guessed[rows], self.seen.take(rows), self.scores[rows], self.costs[rows])
        return Rows(*arrays, None if self.weights is None else self.weights[rows])


@dataclass(frozen=True)
class Played:
    """The result for each prompt, all arrays (n,)."""

    tier: Ints  # whose answer was returned
    chance: Floats  # of that answer
    cost: Floats
    calls: Ints

    @classmethod
    def empty(cls, n: int) -> "Played":
        """All zeros, to be filled in."""
        return cls(np.zeros(n, dtype=np.int64), np.zeros(n), np.zeros(n), np.zeros(n, dtype=np.int64))

    def scores(self, rows: Rows) -> Floats:
        """(n,) scores of the returned answers."""
        return np.asarray(rows.scores[np.arange(len(rows)), self.tier])


class States:
    """Chances and costs of all rows, by the tiers that have answered; computed on first use.

    early: answers are streams under holdback, judged by their first tokens where they are longer than these.
    """

    def __init__(self, posterior: Posterior, rows: Rows, early: bool = False) -> None:
        self.posterior = posterior
        self.rows = rows
        self.early = early
        self.found: dict[Answered, tuple[Floats, Floats]] = {}

    def __getitem__(self, tiers: Answered) -> tuple[Floats, Floats]:
        if tiers not in self.found:
            self.found[tiers] = self.begun(tiers[-1]) if self.early and tiers else self.whole(tiers)
        return self.found[tiers]

    def whole(self, tiers: Answered) -> tuple[Floats, Floats]:
        rows = self.rows
        p = self.posterior.chances_of(rows.prior, rows.seen, tiers)
        return p, self.posterior.costs_of(rows.guessed, rows.seen, tiers)

    def begun(self, tier: int) -> tuple[Floats, Floats]:
        """After the first tokens of one tier's stream, as many as `cascade.judge` looks at."""
        rows, posterior = self.rows, self.posterior
        longer = rows.seen.longer_than(tier, posterior.prefix)[:, None]
        p, cost = self.whole((tier,))
        return (
            np.where(longer, posterior.prefix_chances_of(rows.prior, rows.seen, tier), p),
            np.where(longer, rows.guessed, cost),
        )


def play(states: States, decided: CascadePlan) -> Played:
    """Decide every row by a plan until an answer is accepted; for each row the same as next_step.step."""
    rows, ground = states.rows, decided.scope
    played = Played.empty(len(rows))
    waiting: dict[Answered, Ints] = {(): np.arange(len(rows))}
    while waiting:
        tiers = min(waiting, key=lambda s: max(s, default=-1))
        here = waiting.pop(tiers)
        p, guessed = (side[here] for side in states[tiers])
        candidates = list(ground.candidates(tiers))
        best = p[:, candidates].max(axis=1) if tiers else np.full(len(here), NEVER)
        worth = values(decided, tiers, p, guessed)
        at = worth.argmax(axis=1) if worth.shape[1] else np.zeros(len(here), dtype=np.int64)
        going = worth.max(axis=1, initial=NEVER) > best
        done = here[~going]
        if len(done):
            played.tier[done] = np.array(candidates)[p[~going][:, candidates].argmax(axis=1)]
            played.chance[done] = best[~going]
        for k, move in enumerate(decided.states[tiers].moves):
            sent = here[going & (at == k)]
            played.cost[sent] += rows.costs[sent][:, list(move.tiers)].sum(axis=1)
            played.calls[sent] += len(move.tiers)
            if len(sent):
                waiting[move.after] = np.concatenate([waiting.get(move.after, sent[:0]), sent])
    return played


def cascade(states: States, bar: float) -> Played:
    """One tier after the other, cheapest first, until an answer's own chance reaches the bar."""
    rows = states.rows
    played, here = Played.empty(len(rows)), np.arange(len(rows))
    for k in range(rows.prior.shape[1]):
        played.cost[here] += rows.costs[here, k]
        played.calls[here] += 1
        played.tier[here] = k
        played.chance[here] = states[(k,)][0][here, k]
        here = here[played.chance[here] < bar]
    return played


def routing(prior: Floats, guessed: Floats, costs: Floats, price: float) -> Played:
    """The classifier alone decides."""
    tier = (prior - price * guessed).argmax(axis=1)
    at = np.arange(len(prior))
    return Played(tier, prior[at, tier], costs[at, tier], np.ones(len(prior), dtype=np.int64))


def all_tiers(n_tiers: int, best_of: bool = True, comparable: bool = True) -> PlanScope:
    """The scope of a request that every tier may answer."""
    return PlanScope(tuple(range(n_tiers)), comparable, best_of)


def play_all(posterior: Posterior, rows: Rows, best_of: bool = True) -> dict[str, list[Played]]:
    """The three policies at every price or bar."""
    states, ground = States(posterior, rows), all_tiers(posterior.n_tiers, best_of)
    return {
        "routing": [routing(rows.prior, rows.guessed, rows.costs, price) for price in PRICES],
        "cascading": [cascade(states, bar) for bar in BARS],
        "both": [play(states, plan(posterior, price, ground)) for price in PRICES],
    }


def cross_play(rows: Rows, fold: Ints, prices: Sequence[float] | Floats, best_of: bool = True) -> list[Played]:
    """Every row played at every price, by a posterior and a plan that did not see its fold. Scores must be complete."""
    found = [Played.empty(len(rows)) for _ in prices]
    for k in np.unique(fold):
        seen, unseen = fold != k, np.flatnonzero(fold == k)
        part = rows.take(seen)
        posterior = fit_posterior(part.prior, part.guessed, part.seen, part.scores, part.costs, fold[seen], part.weights)
        states, ground = States(posterior, rows.take(unseen)), all_tiers(posterior.n_tiers, best_of)
        for whole, price in zip(found, prices, strict=True):
            played = play(states, make_plan(posterior, float(price), ground))
            for name in ("tier", "chance", "cost", "calls"):
                getattr(whole, name)[unseen] = getattr(played, name)
    return found


def frontier_of(played: Sequence[Played], rows: Rows, weights: Floats) -> Frontier:
    """Cost and quality of each policy by bootstrap draw, both as shares of always taking the top tier."""
    cost = np.stack([p.cost for p in played]) @ weights.T / (weights @ rows.costs[:, -1])
    quality = np.stack([p.scores(rows) for p in played]) @ weights.T / np.maximum(weights @ rows.scores[:, -1], 1e-9)
    return Frontier(cost.T, quality.T)


def costs_at(frontiers: Mapping[str, Frontier], shares: Sequence[float]) -> dict[str, dict[str, ev.Estimate]]:
    """The least cost at each share of the top tier's quality, by policy and by share in percent (`95`)."""
    return {name: {f"{share * 100:g}": ev.estimate(f.cost_at(share)) for share in shares} for name, f in frontiers.items()}
