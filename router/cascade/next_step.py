"""Routing and cascading as one decision: given the answers so far, accept one of them or ask further tiers.

With nothing answered it is routing. The best step has the highest expected quality minus the price times all remaining cost
(cascade routing, arXiv 2410.10347). The predicted chances alone promise too much, because the best of several guesses tends to
be a lucky one. So the value of a probe is corrected by what the training rows really earned: by backward induction, from the
states of the largest tiers to the state of no answer, a ridge regression on the state predicts the gap between the true score
and cost of continuing by the plan and what the chances promised (docs/cascade.md). Pure: no clock, no files, no network.
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
COST_WEIGHT = 0.3  # of the log costs among a state's features
NEVER = -1e9  # the value of a choice that does not exist


@dataclass(frozen=True, slots=True)
class AcceptTier:
    """Return this tier's answer."""

    tier: int
    chance: float
    """that the answer is good enough, in [0, 1]"""
    certain: bool = True
    """false: no usable answer is left, this one is the last resort"""


@dataclass(frozen=True, slots=True)
class AskTiers:
    """Ask these tiers, in parallel if there are two."""

    tiers: tuple[int, ...]
    chance: float
    """of the best answer so far; before any answer, of the best tier asked, in [0, 1]"""


NextStep = AcceptTier | AskTiers


@dataclass(frozen=True)
class Move:
    """One way to continue from a state: ask `tiers`, which leads to the state `after`."""

    tiers: Answered
    after: Answered
    weights: Floats
    """(n_features,): of the regression that predicts its value beyond `outlook`"""


@dataclass(frozen=True)
class PlanState:
    """The moves that remain when one set of tiers has answered, and the scaling of its features."""

    mean: Floats
    scale: Floats
    moves: tuple[Move, ...]

    @cached_property
    def as_lists(self) -> tuple[list[float], list[float], list[list[float]]]:
        """mean, scale and the moves' weights: for one request plain numbers are six times faster than arrays."""
        return self.mean.tolist(), self.scale.tolist(), [move.weights.tolist() for move in self.moves]


@dataclass(frozen=True)
class PlanScope:
    """The conditions that a plan is made for. All requests under the same conditions share the plan."""

    allowed: Answered
    """tiers that may be asked, ascending"""
    comparable: bool = True
    """whether answers can be compared; if not, only the largest tier's counts"""
    best_of: bool = True
    """whether a smaller tier's answer may be accepted once the top tier has answered (not if that streams at once)"""

    def after(self, tiers: Answered, asked: Answered, posterior: Posterior) -> Answered:
        """The state once `asked` have answered, too."""
        joined = tuple(sorted({*tiers, *asked}))
        return posterior.reduce(joined) if self.comparable else joined[-1:]

    def candidates(self, tiers: Answered) -> Answered:
        """The tiers whose answer may be accepted when `tiers` have answered."""
        return tiers[-1:] if not self.best_of and tiers[-1:] == self.allowed[-1:] else tiers

    def moves(self, tiers: Answered) -> Iterator[Answered]:
        """What can be asked next: any larger tier or, before any answer, two tiers below the top in parallel.

        In experiments, asking a smaller tier after a larger one saved nothing.
        """
        rest = [k for k in self.allowed if k > max(tiers, default=-1)]
        yield from ((k,) for k in rest)
        if not tiers and self.comparable:
            yield from combinations(rest[:-1], 2)


@dataclass(frozen=True)
class CascadePlan:
    """The moves of every state, valued at one price of cost."""

    price: float
    scope: PlanScope
    states: Mapping[Answered, PlanState]

    @cached_property
    def candidates(self) -> Mapping[Answered, list[tuple[Answered, list[tuple[Answered, int]]]]]:
        """By state, for each of its moves: the candidates after it, and those after one more tier, with that tier."""
        after = {tiers: [(*tiers, *move.tiers) for move in state.moves] for tiers, state in self.states.items()}
        return {tiers: [(self.scope.candidates(t), self.one_more(t)) for t in every] for tiers, every in after.items()}

    def one_more(self, tiers: Answered) -> list[tuple[Answered, int]]:
        return [(self.scope.candidates((*tiers, k)), k) for k in self.scope.allowed if k > max(tiers)]


def features(p: Floats, cost: Floats) -> Floats:
    """(n, 2 n_tiers): chances and logarithms of costs, from which a move's value is predicted. p, cost: (n, n_tiers)."""
    return np.concatenate([p, COST_WEIGHT * np.log(np.maximum(cost, 1e-9))], axis=1)


def plan(posterior: Posterior, price: float, scope: PlanScope) -> CascadePlan:
    """The plan for one price and scope; cached on the posterior."""
    name = ("plan", float(price), scope)
    if name not in posterior.memo:
        posterior.memo[name] = make_plan(posterior, price, scope)
    found: CascadePlan = posterior.memo[name]
    return found


def make_plan(posterior: Posterior, price: float, scope: PlanScope) -> CascadePlan:
    """Backward induction over the posterior's training rows."""
    truth, worth = posterior.truth, dict[Answered, Floats]()
    states: dict[Answered, PlanState] = {}
    sets = [s for s in (*posterior.sets, ()) if scope.comparable or len(s) < 2]
    for tiers in sorted(sets, key=lambda s: max(s, default=-1), reverse=True):  # every move raises the largest tier
        p, cost = posterior.known[key(tiers)].p, posterior.known[key(tiers)].cost
        x = features(p, cost)
        mean, scale = x.mean(0), x.std(0) + 1e-6
        scaled = _scaled(x, mean, scale)
        solve = _solver(scaled)
        best = _best(p, scope.candidates(tiers))  # as predicted
        earned = _accepted(truth.p, p, scope.candidates(tiers))  # in truth
        moves = []
        for asked in scope.moves(tiers):
            following, money = scope.after(tiers, asked, posterior), price * truth.cost[:, list(asked)].sum(1)
            promised = outlook(p, cost, (*tiers, *asked), scope, price)
            weights = solve @ (worth[following] - promised)
            value = promised + scaled @ weights - price * cost[:, list(asked)].sum(1)
            earned = np.where(value > best, worth[following] - money, earned)
            best = np.maximum(best, value)
            moves.append(Move(asked, following, weights))
        worth[tiers] = earned
        states[tiers] = PlanState(mean, scale, tuple(moves))
    return CascadePlan(price, scope, states)


def outlook(p: Floats, cost: Floats, tiers: Answered, scope: PlanScope, price: float) -> Floats:
    """(n,) value once `tiers` have answered if the chances stay as they are: accept the best answer or ask one larger tier."""
    best = _best(p, scope.candidates(tiers))
    for k in scope.allowed:
        if k > max(tiers):
            best = np.maximum(best, _best(p, scope.candidates((*tiers, k))) - price * cost[:, k])
    return best


def _accepted(scores: Floats, p: Floats, tiers: Answered) -> Floats:
    """(n,) true scores of the answers that would be accepted now; NEVER: there is none."""
    if not tiers:
        return np.full(len(p), NEVER)
    best = np.array(tiers)[p[:, list(tiers)].argmax(axis=1)]
    return np.asarray(scores[np.arange(len(p)), best])


def _scaled(x: Floats, mean: Floats, scale: Floats) -> Floats:
    return np.concatenate([np.ones((len(x), 1)), np.clip((x - mean) / scale, -4, 4)], axis=1)


def _solver(x: Floats) -> Floats:
    """(n_features, n): its product with the targets is the ridge weights; the constant is not penalised."""
    ridge = RIDGE * np.eye(x.shape[1])
    ridge[0, 0] = 1e-6
    return np.asarray(np.linalg.solve(x.T @ x + ridge, x.T))


def _best(p: Floats, tiers: Answered) -> Floats:
    """(n,) the chance of the best of these tiers; NEVER: there is none. p: (n, n_tiers)."""
    return np.asarray(p[:, list(tiers)].max(axis=1)) if tiers else np.full(len(p), NEVER)


def values(plan: CascadePlan, tiers: Answered, p: Floats, cost: Floats) -> Floats:
    """(n, n_moves) expected quality minus price times expected cost, of each move of a state. p, cost: (n, n_tiers)."""
    state = plan.states[tiers]
    if not state.moves:
        return np.zeros((len(p), 0))
    scaled = _scaled(features(p, cost), state.mean, state.scale)
    found = []
    for move in state.moves:
        promised = outlook(p, cost, (*tiers, *move.tiers), plan.scope, plan.price)
        found.append(promised + scaled @ move.weights - plan.price * cost[:, list(move.tiers)].sum(1))
    return np.stack(found, axis=1)


def values_of_one(plan: CascadePlan, tiers: Answered, p: list[float], cost: list[float]) -> list[float]:
    """The same numbers as `values`, of one request (tests/router/cascade/test_next_step.py compares them)."""
    state, price = plan.states[tiers], plan.price
    mean, scale, weights = state.as_lists
    raw = [*p, *(COST_WEIGHT * log(max(c, 1e-9)) for c in cost)]
    x = [1.0, *(min(max((v - m) / s, -4.0), 4.0) for v, m, s in zip(raw, mean, scale, strict=True))]
    found = []
    for move, slopes, (now, later) in zip(state.moves, weights, plan.candidates[tiers], strict=True):
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
    allowed: tiers that may still be asked or accepted. comparable, best_of: see PlanScope. prefix: the evidence is that many
    first tokens of an answer still being written (holdback); AcceptTier then means commit.
    """
    scope = PlanScope(tuple(sorted({*allowed} | {*answered})), comparable, best_of)
    top = scope.allowed[-1]
    if rule.threshold > 1 and not answered:  # nothing below the top could be accepted
        return AskTiers((top,), float(prior[top]))
    state = posterior.comparable(answered) if comparable else tuple(sorted(answered))[-1:]
    evidence = {k: answered[k] for k in state}
    p = posterior.chances(prior, evidence, prefix) if state else prior
    if answered:
        p = np.where([k in answered and not answered[k].usable for k in range(len(p))], 0.0, p)
    cost = posterior.costs(cost, evidence) if state and prefix is None else cost
    best = max(_acceptable(answered, scope), key=lambda k: float(p[k]), default=None)
    here = NEVER if best is None else float(p[best])
    move = _best_move(plan(posterior, rule.value, scope), state, p, cost, here)
    if move is not None:
        return AskTiers(move, float(p[list(move)].max()) if best is None else here)
    if best is None:
        return AcceptTier(max(answered), float(p[max(answered)]), False)
    forbidden = not (np.isnan(rule.threshold) or here >= rule.threshold)
    return AskTiers((top,), here) if forbidden and top not in answered else AcceptTier(best, here)


def _acceptable(answered: Mapping[int, Evidence], scope: PlanScope) -> Answered:
    """The tiers whose answer may be returned."""
    usable = tuple(k for k in sorted(answered) if answered[k].usable)
    return scope.candidates(usable if scope.comparable else usable[-1:])


def _best_move(plan: CascadePlan, state: Answered, p: Floats, cost: Floats, here: float) -> Answered | None:
    """The best move, if it is worth more than accepting now; None: accept."""
    moves = plan.states[state].moves
    if not moves:
        return None
    found = values_of_one(plan, state, p.tolist(), cost.tolist())
    at = max(range(len(found)), key=found.__getitem__)
    return moves[at].tiers if found[at] > here else None
