"""Routing and cascading as one decision: given what has been answered so far, accept an answer or ask further tiers.

With nothing answered it is routing. The best step is the one of highest expected quality less the price times all cost
still to come (cascade routing, arXiv 2410.10347). What a probe is worth beyond that is learned from the training rows, by
backward induction from the states of the largest tiers to that of no answer: what came of the rows, truly, when they
went on by the plan, less what chances alone would have promised; a ridge regression on the state gives its mean. Chances
alone promise too much, the best of several guesses being the luckiest; true scores and costs do not (docs/cascade.md).
Pure: no clock, no files, no network.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import log

import numpy as np
from numpy.typing import NDArray

from classifiers.choose import Rule
from classifiers.replies.posterior import Posterior, key
from classifiers.replies.signals import Answered, Evidence

Floats = NDArray[np.float64]
RIDGE = 300.0  # on standardised features: with few rows a probe is worth its mean in training
COST_WEIGHT = 0.3
NEVER = -1e9


@dataclass(frozen=True, slots=True)
class AcceptTier:
    """Return this tier's answer."""

    tier: int
    chance: float
    """that it is good enough, in [0, 1]"""
    certain: bool = True
    """false: no usable answer can be had any more, this is the last resort"""


@dataclass(frozen=True, slots=True)
class AskTiers:
    """Ask these tiers, side by side where there are two."""

    tiers: tuple[int, ...]
    chance: float
    """of the best answer so far or, before any, of the tier asked, in [0, 1]"""


NextStep = AcceptTier | AskTiers


@dataclass(frozen=True)
class Move:
    """One way to go on from a state: ask `tiers`, which leads to the state `after`."""

    tiers: Answered
    after: Answered
    weights: Floats  # (n_features,): what it is worth beyond `outlook`


@dataclass(frozen=True)
class State:
    """The moves that one set of answered tiers leaves, and how its features are scaled."""

    mean: Floats
    scale: Floats
    moves: tuple[Move, ...]

    @cached_property
    def one(self) -> tuple[list[float], list[float], list[list[float]]]:
        """mean, scale and the moves' weights as lists: for one request plain numbers are six times faster than arrays."""
        return self.mean.tolist(), self.scale.tolist(), [move.weights.tolist() for move in self.moves]


@dataclass(frozen=True)
class Ground:
    """Where a plan holds. Requests of one kind share it."""

    allowed: Answered
    """tiers that may be asked, rising"""
    comparable: bool = True
    """whether answers can be compared: if not, only the largest one counts"""
    best_of: bool = True
    """whether a smaller tier's answer may still win once the top tier has answered (not where that streams at once)"""

    def after(self, tiers: Answered, asked: Answered, posterior: Posterior) -> Answered:
        """The state that follows from asking."""
        joined = tuple(sorted({*tiers, *asked}))
        return posterior.reduce(joined) if self.comparable else joined[-1:]

    def candidates(self, tiers: Answered) -> Answered:
        """The tiers whose answer may be accepted when `tiers` have answered."""
        return tiers[-1:] if not self.best_of and tiers[-1:] == self.allowed[-1:] else tiers

    def moves(self, tiers: Answered) -> Iterator[Answered]:
        """What can be asked next: any larger tier; before any answer also two below the top side by side.

        Asking a smaller tier after a larger one was tried and saved nothing.
        """
        rest = [k for k in self.allowed if k > max(tiers, default=-1)]
        yield from ((k,) for k in rest)
        if not tiers and self.comparable:
            yield from combinations(rest[:-1], 2)


@dataclass(frozen=True)
class Plan:
    """What to do in every state at one price of cost."""

    price: float
    ground: Ground
    states: Mapping[Answered, State]

    @cached_property
    def looks(self) -> Mapping[Answered, list[tuple[Answered, list[tuple[Answered, int]]]]]:
        """By state, for each of its moves what `outlook` looks at: whom to accept then, and whom with one more tier."""
        joined = {tiers: [(*tiers, *move.tiers) for move in state.moves] for tiers, state in self.states.items()}
        return {tiers: [self.look(after) for after in every] for tiers, every in joined.items()}

    def look(self, tiers: Answered) -> tuple[Answered, list[tuple[Answered, int]]]:
        larger = [k for k in self.ground.allowed if k > max(tiers)]
        return self.ground.candidates(tiers), [(self.ground.candidates((*tiers, k)), k) for k in larger]


def features(p: Floats, cost: Floats) -> Floats:
    """(n, 2 n_tiers): chances and logarithmic costs, which together are the state of a request. p, cost: (n, n_tiers)."""
    return np.concatenate([p, COST_WEIGHT * np.log(np.maximum(cost, 1e-9))], axis=1)


def plan(posterior: Posterior, price: float, ground: Ground) -> Plan:
    """Backward induction over the training rows; kept for the next request of the same kind."""
    name = ("plan", float(price), ground)
    if name not in posterior.memo:
        posterior.memo[name] = make_plan(posterior, price, ground)
    found: Plan = posterior.memo[name]
    return found


def make_plan(posterior: Posterior, price: float, ground: Ground) -> Plan:
    """The plan for one price, from the training rows that the posterior knows."""
    truth, worth = posterior.truth, dict[Answered, Floats]()
    states: dict[Answered, State] = {}
    sets = [s for s in (*posterior.sets, ()) if ground.comparable or len(s) < 2]
    for tiers in sorted(sets, key=lambda s: max(s, default=-1), reverse=True):  # every move leads to a larger largest tier
        p, cost = posterior.known[key(tiers)].p, posterior.known[key(tiers)].cost
        x = features(p, cost)
        mean, scale = x.mean(0), x.std(0) + 1e-6
        scaled = _scaled(x, mean, scale)
        solve = _solver(scaled)
        best = _best(p, ground.candidates(tiers))  # as far as is known
        came = _accepted(truth.p, p, ground.candidates(tiers))  # in truth
        moves = []
        for asked in ground.moves(tiers):
            following, money = ground.after(tiers, asked, posterior), price * truth.cost[:, list(asked)].sum(1)
            hope = outlook(p, cost, (*tiers, *asked), ground, price)
            weights = solve @ (worth[following] - hope)
            value = hope + scaled @ weights - price * cost[:, list(asked)].sum(1)
            came = np.where(value > best, worth[following] - money, came)
            best = np.maximum(best, value)
            moves.append(Move(asked, following, weights))
        worth[tiers] = came
        states[tiers] = State(mean, scale, tuple(moves))
    return Plan(price, ground, states)


def outlook(p: Floats, cost: Floats, tiers: Answered, ground: Ground, price: float) -> Floats:
    """(n,) what is expected, without learning more, once `tiers` have answered: accept the best or ask one larger tier."""
    best = _best(p, ground.candidates(tiers))
    for k in ground.allowed:
        if k > max(tiers):
            best = np.maximum(best, _best(p, ground.candidates((*tiers, k))) - price * cost[:, k])
    return best


def _accepted(scores: Floats, p: Floats, tiers: Answered) -> Floats:
    """(n,) true scores of the answers that would be accepted now; NEVER where there is none."""
    if not tiers:
        return np.full(len(p), NEVER)
    best = np.array(tiers)[p[:, list(tiers)].argmax(axis=1)]
    return np.asarray(scores[np.arange(len(p)), best])


def _scaled(x: Floats, mean: Floats, scale: Floats) -> Floats:
    return np.concatenate([np.ones((len(x), 1)), np.clip((x - mean) / scale, -4, 4)], axis=1)


def _solver(x: Floats) -> Floats:
    """(n_features, n): times the targets gives the ridge weights; the constant is not held back."""
    ridge = RIDGE * np.eye(x.shape[1])
    ridge[0, 0] = 1e-6
    return np.asarray(np.linalg.solve(x.T @ x + ridge, x.T))


def _best(p: Floats, tiers: Answered) -> Floats:
    """(n,) the chance of the best of these tiers; NEVER where there is none. p: (n, n_tiers)."""
    return np.asarray(p[:, list(tiers)].max(axis=1)) if tiers else np.full(len(p), NEVER)


def values(plan: Plan, tiers: Answered, p: Floats, cost: Floats) -> Floats:
    """(n, n_moves) expected quality less price times expected cost of each move of a state. p, cost: (n, n_tiers)."""
    state = plan.states[tiers]
    if not state.moves:
        return np.zeros((len(p), 0))
    scaled = _scaled(features(p, cost), state.mean, state.scale)
    return np.stack([_value(plan, tiers, move, p, cost, scaled) for move in state.moves], axis=1)


def _value(plan: Plan, tiers: Answered, move: Move, p: Floats, cost: Floats, scaled: Floats) -> Floats:
    hope = outlook(p, cost, (*tiers, *move.tiers), plan.ground, plan.price)
    return np.asarray(hope + scaled @ move.weights - plan.price * cost[:, list(move.tiers)].sum(1))


def values_of_one(plan: Plan, tiers: Answered, p: list[float], cost: list[float]) -> list[float]:
    """`values` of one request: the same numbers (tests/router/cascade/test_next_step.py)."""
    state, price = plan.states[tiers], plan.price
    mean, scale, weights = state.one
    raw = [*p, *(COST_WEIGHT * log(max(c, 1e-9)) for c in cost)]
    x = [1.0, *(min(max((v - m) / s, -4.0), 4.0) for v, m, s in zip(raw, mean, scale, strict=True))]
    found = []
    for move, slopes, (now, later) in zip(state.moves, weights, plan.looks[tiers], strict=True):
        best = max([p[k] for k in now], default=NEVER)
        for then, k in later:
            best = max(best, max([p[j] for j in then]) - price * cost[k])
        learned = sum([a * b for a, b in zip(x, slopes, strict=True)])
        found.append(best + learned - price * sum([cost[k] for k in move.tiers]))
    return found


def step(
    prior: Floats,
    cost: Floats,
    answered: Mapping[int, Evidence],
    rule: Rule,
    posterior: Posterior,
    allowed: Collection[int],
    comparable: bool = True,
    best_of: bool = True,
    prefix: int | None = None,
) -> NextStep:
    """What to do next for one request; with nothing answered it is the first decision.

    prior, cost: (n_tiers,) as `Artifact.guess_one` gives them. answered: by tier. rule: of kind `cascade`: value is the
    price of cost, threshold the least chance at which a smaller tier's answer is accepted (NaN: any; above 1: none).
    allowed: tiers that may still be asked or accepted. comparable, best_of: see Ground. prefix: what is there are the
    first tokens of an answer still being written (holdback), then AcceptTier means commit.
    """
    ground = Ground(tuple(sorted({*allowed} | {*answered})), comparable, best_of)
    top = ground.allowed[-1]
    if rule.threshold > 1 and not answered:  # nothing below the top could be accepted
        return AskTiers((top,), float(prior[top]))
    state = _state(answered, posterior, comparable)
    seen = {k: answered[k] for k in state}
    p = posterior.chances(prior, seen, prefix) if state else prior
    if answered:
        p = np.where([k in answered and not answered[k].usable for k in range(len(p))], 0.0, p)
    cost = posterior.costs(cost, seen) if state and prefix is None else cost
    best = max(_acceptable(answered, ground), key=lambda k: float(p[k]), default=None)
    here = NEVER if best is None else float(p[best])
    move = _best_move(plan(posterior, rule.value, ground), state, p, cost, here)
    if move is not None:
        return AskTiers(move, float(p[list(move)].max()) if best is None else here)
    if best is None:
        return AcceptTier(max(answered), float(p[max(answered)]), False)
    return AskTiers((top,), here) if top not in answered and below(rule, here) else AcceptTier(best, here)


def below(rule: Rule, chance: float) -> bool:
    """Whether a smaller tier's answer of that chance may not be accepted, whatever the price."""
    return not np.isnan(rule.threshold) and not chance >= rule.threshold


def _state(answered: Mapping[int, Evidence], posterior: Posterior, comparable: bool) -> Answered:
    return posterior.comparable(answered) if comparable else tuple(sorted(answered))[-1:]


def _acceptable(answered: Mapping[int, Evidence], ground: Ground) -> Answered:
    """Tiers whose answer can be returned."""
    usable = tuple(k for k in sorted(answered) if answered[k].usable)
    return ground.candidates(usable if ground.comparable else usable[-1:])


def _best_move(plan: Plan, state: Answered, p: Floats, cost: Floats, here: float) -> Answered | None:
    """The move worth more than accepting now; None: accept."""
    moves = plan.states[state].moves
    if not moves:
        return None
    found = values_of_one(plan, state, p.tolist(), cost.tolist())
    at = max(range(len(found)), key=found.__getitem__)
    return moves[at].tiers if found[at] > here else None
