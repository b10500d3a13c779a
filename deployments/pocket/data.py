"""Training text: endless, seeded, without held-out prompts, cut into batches of samples of similar length."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from deployments.pocket import tasks, tokenizer

POOL = 6_000  # samples that are drawn, sorted by length and cut into batches together
# Weights of the levels 1 to 5: rare facts are rare in training too, and long sums need more examples than short ones.
FACT_LEVELS = (8, 5, 3, 2, 1.4)
SUM_LEVELS = (1, 1, 2, 3, 4)
OTHER_LEVELS = (1, 1, 1.2, 1.4, 1.6)
KIND_WEIGHTS = {"add": 2.0, "subtract": 2.0, "sort": 1.3, "largest": 1.3, "fact": 1.5, "spell": 0.6, "upper": 0.7}
MIX = {"single": 0.80, "composite": 0.10, "chain": 0.10}
PLANNING_MIX = {"single": 0.55, "composite": 0.12, "chain": 0.08, "plan": 0.25}


def drawn_for_training(rng: random.Random) -> tuple[str, int]:
    kinds = list(tasks.SINGLES)
    kind = rng.choices(kinds, [KIND_WEIGHTS.get(k, 1.0) for k in kinds])[0]
    weights = {"fact": FACT_LEVELS, "add": SUM_LEVELS, "subtract": SUM_LEVELS}.get(kind, OTHER_LEVELS)
    return kind, rng.choices(tasks.LEVELS, weights)[0]


def draw(shape: str, rng: random.Random) -> tuple[tasks.Task, tasks.Task]:
    """A task of that shape, and the task it is about: for a plan the task to be planned, else the task itself."""
    if shape == "plan":
        return tasks.plan(rng, drawn_for_training)
    makers = {"single": tasks.single, "composite": tasks.composite}
    task = tasks.chain(rng) if shape == "chain" else makers[shape](rng, drawn_for_training)
    return task, task


def training_task(rng: random.Random, mix: dict[str, float] = MIX) -> tasks.Task:
    """Draw until the task, and the task it is about, are not held out."""
    shape = rng.choices(list(mix), list(mix.values()))[0]
    while True:
        task, about = draw(shape, rng)
        if not tasks.held_out(about.prompt):
            return task


@dataclass(frozen=True, slots=True)
class Batch:
    ids: torch.Tensor
    """shape (samples, length), int64, padded on the right"""
    answer: torch.Tensor
    """the same shape, bool: True for the tokens of the answer and the one that ends it, which the loss counts"""


class Encoder:
    def __init__(self) -> None:
        self.tokenizer: Tokenizer = tokenizer.build()
        ids = self.tokenizer.get_vocab()
        self.pad, self.user, self.assistant, self.end = (ids[token] for token in tokenizer.SPECIAL)

    def rows(self, drawn: list[tasks.Task]) -> list[tuple[list[int], int]]:
        """Each task as (ids, length of the prompt part)."""
        prompts = self.tokenizer.encode_batch([t.prompt for t in drawn])
        answers = self.tokenizer.encode_batch([t.answer for t in drawn])
        return [
            ([self.user, *p.ids, self.end, self.assistant, *a.ids, self.end], len(p.ids) + 3)
            for p, a in zip(prompts, answers, strict=True)
        ]

    def pad_up(self, rows: list[tuple[list[int], int]]) -> Batch:
        length = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), length), self.pad)
        answer = torch.zeros((len(rows), length), dtype=torch.bool)
        for i, (row, prompt) in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            answer[i, prompt : len(row)] = True
        return Batch(ids, answer)


def cut(rows: list[tuple[list[int], int]], tokens: int, rng: random.Random) -> list[list[tuple[list[int], int]]]:
    """Batches of at most `tokens` tokens, padding included, of rows of similar length, in random order."""
    batches: list[list[tuple[list[int], int]]] = [[]]
    for row in sorted(rows, key=lambda r: (len(r[0]), rng.random())):
        if batches[-1] and (len(batches[-1]) + 1) * len(row[0]) > tokens:
            batches.append([])
        batches[-1].append(row)
    rng.shuffle(batches)
    return batches


def batches(seed: int, tokens: int, start_pool: int = 0, mix: dict[str, float] = MIX) -> Iterator[tuple[int, Batch]]:
    """Endless (pool number, batch); the same for the same seed, and can resume at any pool."""
    encoder, pool = Encoder(), start_pool
    while True:
        rng = random.Random(f"train/{seed}/{pool}")
        rows = encoder.rows([training_task(rng, mix) for _ in range(POOL)])
        for rows_of_batch in cut(rows, tokens, rng):
            yield pool, encoder.pad_up(rows_of_batch)
        pool += 1
