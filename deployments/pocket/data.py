"""Training text: endless, seeded, without held-out prompts, cut into batches of rows of similar length."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer

from deployments.distil.batching import Batch, EncodedRow, Position, cut, padded
from deployments.pocket import tasks, tokenizer

POOL = 6_000  # rows that are drawn, sorted by length and cut into batches together
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


def training_task(rng: random.Random, mix: Mapping[str, float] = MIX) -> tasks.Task:
    """Draw until the task, and the task it is about, are not held out."""
    shape = rng.choices(list(mix), list(mix.values()))[0]
    while True:
        task, about = draw(shape, rng)
        if not tasks.held_out(about.prompt):
            return task


class Encoder:
    def __init__(self) -> None:
        self.tokenizer: Tokenizer = tokenizer.build()
        ids = self.tokenizer.get_vocab()
        self.pad, self.user, self.assistant, self.end = (ids[token] for token in tokenizer.SPECIAL)

    def rows(self, drawn: list[tasks.Task]) -> list[EncodedRow]:
        prompts = self.tokenizer.encode_batch([t.prompt for t in drawn])
        answers = self.tokenizer.encode_batch([t.answer for t in drawn])
        return [self.row(prompt.ids, answer.ids) for prompt, answer in zip(prompts, answers, strict=True)]

    def row(self, prompt: list[int], answer: list[int]) -> EncodedRow:
        ids = [self.user, *prompt, self.end, self.assistant, *answer, self.end]
        return EncodedRow(np.array(ids, np.int32), len(prompt) + 3)


@dataclass(frozen=True, slots=True)
class GeneratedRows:
    """An endless source of generated rows: each round draws new ones. The same seed gives the same steps."""

    seed: int
    tokens: int
    """of a step, at most, padding included"""
    mix: Mapping[str, float] = field(default_factory=lambda: MIX)

    def steps(self, at: Position) -> Iterator[tuple[Position, Sequence[Batch]]]:
        encoder = Encoder()
        number, first = at
        while True:
            rng = random.Random(f"train/{self.seed}/{number}")
            rows = encoder.rows([training_task(rng, self.mix) for _ in range(POOL)])
            groups = cut(
                sorted(((i, len(row.ids)) for i, row in enumerate(rows)), key=lambda r: (r[1], rng.random())), self.tokens
            )
            rng.shuffle(groups)
            for i in range(first, len(groups)):
                yield Position(number, i + 1), [padded([rows[row] for row in groups[i]], encoder.pad)]
            number, first = number + 1, 0
