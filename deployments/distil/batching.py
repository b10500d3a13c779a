"""Batches of encoded rows, and sources of them whose order is a function of seed and position: a training resumes exactly."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

Ints = NDArray[np.int32]
POOL = 6_000  # rows that are sorted by length and cut into passes together


class Position(NamedTuple):
    """Where a source is: steps done of a round."""

    round: int = 0
    step: int = 0


@dataclass(frozen=True, slots=True)
class RowScores:
    """A teacher's highest log-probabilities at each answer token of a row."""

    ids: Ints
    """(answer tokens, K)"""
    logprobs: NDArray[np.float32]
    """the same shape; natural logarithms"""


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """A row as a model sees it."""

    ids: Ints
    """(tokens,): prompt, answer and the token that ends it"""
    prompt: int
    """tokens of the prompt, at least 1"""
    id: str = ""
    scores: RowScores | None = None

    @property
    def answer(self) -> Ints:
        return self.ids[self.prompt :]


@dataclass(frozen=True, slots=True)
class Scores:
    """A teacher's highest log-probabilities at each answer token of a batch, row after row."""

    ids: torch.Tensor
    """(answer tokens, K), int64"""
    logprobs: torch.Tensor
    """the same shape, float32"""


@dataclass(frozen=True, slots=True)
class Batch:
    """What passes through the model at once."""

    ids: torch.Tensor
    """(rows, length), int64, padded on the right"""
    answer: torch.Tensor
    """the same shape, bool: True for the tokens of the answer and the one that ends it, which the loss counts"""
    scores: Scores | None = None

    @property
    def tokens(self) -> int:
        """Padding included."""
        return self.ids.numel()

    @property
    def answer_tokens(self) -> int:
        return int(self.answer.sum())

    def on(self, device: torch.device) -> "Batch":
        scores = self.scores and Scores(self.scores.ids.to(device), self.scores.logprobs.to(device))
        return Batch(self.ids.to(device), self.answer.to(device), scores)


class Source(Protocol):
    """Endless steps of a training."""

    def steps(self, at: Position) -> Iterator[tuple[Position, Sequence[Batch]]]:
        """(position after it, batches of one optimiser step), from a position on; the same for the same position, always."""


def padded(rows: Sequence[EncodedRow], pad: int) -> Batch:
    """One batch of rows. All of them have scores, or none."""
    length = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), pad)
    answer = torch.zeros((len(rows), length), dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.from_numpy(row.ids)
        answer[i, row.prompt : len(row.ids)] = True
    scored = [row.scores for row in rows if row.scores is not None]
    if len(scored) < len(rows):
        return Batch(ids, answer)
    top = torch.from_numpy(np.concatenate([s.ids for s in scored])).long()
    return Batch(ids, answer, Scores(top, torch.from_numpy(np.concatenate([s.logprobs for s in scored])).float()))


def cut(lengths: Sequence[tuple[int, int]], tokens: int) -> list[list[int]]:
    """Groups of at most `tokens` tokens, padding included, of rows in the order given. lengths: (row, its tokens), rising."""
    groups: list[list[int]] = [[]]
    for row, length in lengths:
        if groups[-1] and (len(groups[-1]) + 1) * length > tokens:
            groups.append([])
        groups[-1].append(row)
    return groups


@dataclass(frozen=True, slots=True)
class RowSource:
    """All rows in each round, in passes of rows of similar length, in random order."""

    rows: Sequence[EncodedRow]
    """at least one"""
    seed: int
    micro_tokens: int
    """of one pass, at most, padding included"""
    batch_tokens: int
    """of one step, at most; a step has at least one pass"""
    pad: int

    def planned(self, number: int) -> list[list[list[int]]]:
        """The steps of a round, each as passes of row numbers."""
        rng = random.Random(f"round/{self.seed}/{number}")
        order = list(range(len(self.rows)))
        rng.shuffle(order)
        passes: list[list[int]] = []
        for start in range(0, len(order), POOL):
            passes += cut(
                sorted(((i, len(self.rows[i].ids)) for i in order[start : start + POOL]), key=by_length), self.micro_tokens
            )
        rng.shuffle(passes)
        steps: list[list[list[int]]] = [[]]
        room = self.batch_tokens
        for one in passes:
            size = len(one) * len(self.rows[one[-1]].ids)
            if steps[-1] and size > room:
                steps.append([])
                room = self.batch_tokens
            steps[-1].append(one)
            room -= size
        return steps

    def steps(self, at: Position) -> Iterator[tuple[Position, Sequence[Batch]]]:
        number, first = at
        while True:
            planned = self.planned(number)
            for i in range(first, len(planned)):
                yield Position(number, i + 1), [padded([self.rows[row] for row in one], self.pad) for one in planned[i]]
            number, first = number + 1, 0

    def tokens_a_round(self) -> int:
        """Of the first round, padding included; the others differ by little."""
        return sum(len(one) * len(self.rows[one[-1]].ids) for step in self.planned(0) for one in step)


def by_length(row: tuple[int, int]) -> int:
    return row[1]


def in_order(rows: Sequence[EncodedRow], tokens: int, pad: int) -> list[Batch]:
    """Batches of all rows once, shortest first, as for the loss on dev rows."""
    if not rows:
        return []
    lengths = sorted(enumerate(len(row.ids) for row in rows), key=by_length)
    return [padded([rows[i] for i in group], pad) for group in cut(lengths, tokens)]
