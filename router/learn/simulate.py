"""Plays routing, cascading and both on prompts whose answers are all known, every probe paid for.

routing    the classifier alone decides, by expected quality less price times guessed cost
cascading  the cheapest tier first, then one tier after the other until an answer's chance reaches a bar
both       cascade routing as it is served: router/cascade/next_step.py decides after each answer
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from classifiers.replies.posterior import Posterior, fit_posterior
from classifiers.replies.signals import Answered, Seen
from router.cascade.next_step import NEVER, CascadePlan, PlanScope, make_plan, plan, values
from router.learn import evaluation as ev
from router.learn.measures import Frontier

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
PRICES = np.concatenate([[-0.3, -0.1, 0.0], np.geomspace(0.003, 4, 90)])  # negative: quality above the top tier's own
BARS = np.concatenate([np.linspace(0, 0.95, 39), [0.97, 0.98, 0.99, 0.995, 1.01]])


@dataclass(frozen=True)
class Rows:
    """Prompts to play, all arrays (n, n_tiers); costs and guesses with the top tier's mean in training = 1."""

    prior: Floats
    guessed: Floats
    seen: Seen
    scores: Floats
    costs: Floats

    def __len__(self) -> int:
        return len(self.prior)

    def take(self, rows: NDArray[np.bool_] | Ints) -> "Rows":
        """The rows given by a mask or by positions."""
        arrays = (self.prior[rows], self.guessed[rows], self.seen.take(rows), self.scores[rows], self.costs[rows])
        return Rows(*arrays)


@dataclass(frozen=True)
class Played:
    """What came of each prompt (n,): the tier whose answer was returned, its chance, what was spent, calls made."""

    tier: Ints
    chance: Floats
    cost: Floats
    calls: Ints

    def scores(self, rows: Rows) -> Floats:
        """(n,) of the answers returned."""
        return np.asarray(rows.scores[np.arange(len(rows)), self.tier])


class States:
    """Chances and costs of all rows in every state that can be reached; computed when asked for, once.

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
        """As much of one tier's stream is known as `judging.Ladder` looks at."""
        rows, posterior = self.rows, self.posterior
        longer = rows.seen.longer_than(tier, posterior.prefix)[:, None]
        p, cost = self.whole((tier,))
        return (
            np.where(longer, posterior.prefix_chances_of(rows.prior, rows.seen, tier), p),
            np.where(longer, rows.guessed, cost),
        )


def play(states: States, decided: CascadePlan) -> Played:
    """Decide every row by a plan until an answer is accepted; equal to cascading.step, row by row."""
    rows, ground = states.rows, decided.scope
    n = len(rows)
    tier, chance, cost, calls = np.zeros(n, dtype=np.int64), np.zeros(n), np.zeros(n), np.zeros(n, dtype=np.int64)
    waiting: dict[Answered, Ints] = {(): np.arange(n)}
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
            tier[done] = np.array(candidates)[p[~going][:, candidates].argmax(axis=1)]
            chance[done] = best[~going]
        for k, move in enumerate(decided.states[tiers].moves):
            sent = here[going & (at == k)]
            cost[sent] += rows.costs[sent][:, list(move.tiers)].sum(axis=1)
            calls[sent] += len(move.tiers)
            if len(sent):
                waiting[move.after] = np.concatenate([waiting.get(move.after, sent[:0]), sent])
    return Played(tier, chance, cost, calls)


def cascade(states: States, bar: float) -> Played:
    """One tier after the other, cheapest first, until an answer's own chance reaches the bar."""
    rows = states.rows
    n, n_tiers = rows.prior.shape
    tier, chance, cost, calls = np.zeros(n, dtype=np.int64), np.zeros(n), np.zeros(n), np.zeros(n, dtype=np.int64)
    here = np.arange(n)
    for k in range(n_tiers):
        cost[here] += rows.costs[here, k]
        calls[here] += 1
        tier[here] = k
        chance[here] = states[(k,)][0][here, k]
        here = here[chance[here] < bar]
    return Played(tier, chance, cost, calls)


def routing(prior: Floats, guessed: Floats, costs: Floats, price: float) -> Played:
    """The classifier alone."""
    tier = (prior - price * guessed).argmax(axis=1)
    at = np.arange(len(prior))
    return Played(tier, prior[at, tier], costs[at, tier], np.ones(len(prior), dtype=np.int64))


def everything(n_tiers: int, best_of: bool = True, comparable: bool = True) -> PlanScope:
    """All tiers allowed."""
    return PlanScope(tuple(range(n_tiers)), comparable, best_of)


def play_all(posterior: Posterior, rows: Rows, best_of: bool = True) -> dict[str, list[Played]]:
    """The three policies at every price or bar."""
    states, ground = States(posterior, rows), everything(posterior.n_tiers, best_of)
    return {
        "routing": [routing(rows.prior, rows.guessed, rows.costs, price) for price in PRICES],
        "cascading": [cascade(states, bar) for bar in BARS],
        "both": [play(states, plan(posterior, price, ground)) for price in PRICES],
    }


def cross_play(rows: Rows, fold: Ints, prices: Sequence[float] | Floats, best_of: bool = True) -> list[Played]:
    """Every row played at every price by a posterior and a plan that did not see its fold. Scores must be complete."""
    n = len(rows)
    found = [Played(np.zeros(n, dtype=np.int64), np.zeros(n), np.zeros(n), np.zeros(n, dtype=np.int64)) for _ in prices]
    for k in np.unique(fold):
        seen, unseen = fold != k, np.flatnonzero(fold == k)
        part = rows.take(seen)
        posterior = fit_posterior(part.prior, part.guessed, part.seen, part.scores, part.costs, fold[seen])
        states, ground = States(posterior, rows.take(unseen)), everything(posterior.n_tiers, best_of)
        for whole, price in zip(found, prices, strict=True):
            played = play(states, make_plan(posterior, float(price), ground))
            for name in ("tier", "chance", "cost", "calls"):
                getattr(whole, name)[unseen] = getattr(played, name)
    return found


def frontier_of(played: Sequence[Played], rows: Rows, weights: Floats) -> Frontier:
    """Cost and quality of each policy, both as shares of always taking the top tier's, by bootstrap draw."""
    cost = np.stack([p.cost for p in played]) @ weights.T / (weights @ rows.costs[:, -1])
    quality = np.stack([p.scores(rows) for p in played]) @ weights.T / np.maximum(weights @ rows.scores[:, -1], 1e-9)
    return Frontier(cost.T, quality.T)


def cost_at(f: Frontier, share: float) -> Floats:
    """(n_draws,) least cost at that share of the top tier's quality; NaN where it is never reached."""
    return np.array([ev.cost_at(c, q, share) for c, q in zip(f.cost, f.quality, strict=True)])


def costs_at(frontiers: Mapping[str, Frontier], shares: Sequence[float]) -> dict[str, dict[str, ev.Estimate]]:
    """By policy and by share (`95`): with bootstrap intervals."""
    return {name: {f"{share * 100:g}": ev.estimate(cost_at(f, share)) for share in shares} for name, f in frontiers.items()}
