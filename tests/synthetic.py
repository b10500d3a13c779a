"""A ladder that never existed: prompts of known difficulty, with answers that carry evidence of being right."""

from dataclasses import dataclass

import numpy as np

from classifiers.replies.posterior import fit_posterior
from classifiers.replies.signals import Evidence, Seen, agreement, signals

COSTS = (0.05, 0.07, 1.0)


@dataclass(frozen=True)
class Ladder:
    prior: np.ndarray
    guessed: np.ndarray
    y: np.ndarray
    costs: np.ndarray
    answers: list  # a list of Evidence a row
    seen: Seen
    fold: np.ndarray

    def posterior(self, rows=slice(None)):
        parts = (self.prior, self.guessed, self.seen.take(np.arange(len(self.y))[rows]), self.y, self.costs, self.fold)
        return fit_posterior(*(part if isinstance(part, Seen) else part[rows] for part in parts))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def make_ladder(n=600, seed=0, costs=COSTS, logprobs=True, spread=1.5):
    random = np.random.default_rng(seed)
    k = len(costs)
    ability = np.linspace(0.3, 1.8, k)
    hardness = random.normal(0, spread, n)
    y = (random.random((n, k)) < sigmoid(2 * (ability - hardness[:, None]))).astype(float)
    prior = sigmoid(1.3 * (ability - (hardness + random.normal(0, 1.5, n))[:, None]))
    length = np.exp(random.normal(3, 0.5, n))
    money = np.array(costs) * (length / length.mean())[:, None]
    answers = [[_answer(random, bool(y[i, j]), int(length[i]), logprobs) for j in range(k)] for i in range(n)]
    return Ladder(prior, np.broadcast_to(costs, (n, k)).copy(), y, money, answers, seen_of(answers), np.arange(n) % 5)


def _answer(random, right, length, logprobs):
    answer = "42" if right else str(random.integers(50, 58))
    doubt = 0.1 if right else 0.8
    values = tuple(-random.exponential(doubt, max(2, length // 4))) if logprobs else ()
    return Evidence(length, answer=answer, logprobs=values, first_margin=random.exponential(1 / doubt) if logprobs else None)


def seen_of(answers):
    n, k = len(answers), len(answers[0])
    agree = np.full((n, k, k), np.nan)
    for row, told in zip(agree, answers, strict=True):
        for i in range(k):
            for j in range(i + 1, k):
                row[i, j] = agreement(told[i], told[j])
    found = np.array([[signals(e) for e in row] for row in answers])
    return Seen(found, agree, np.array([[signals(e, 16) for e in row] for row in answers]))
