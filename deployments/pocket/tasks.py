"""The family of short text tasks that the pocket models are made for, with graded difficulty and checked answers.

A *single* task has a kind (add, reverse, sort, ...) and a difficulty from 1 to 5 that is visible in its text: digits,
letters, items, or how rare a fact is. A *composite* lists three to eight unrelated singles. A *chain* computes step
by step, each step from the result of the one before. Answers are graded by exact match. The same seed gives the same tasks.
"""

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from router.delegate.blocks import head

Kind = Literal["single", "composite", "chain"]
SPLIT = '{"plan": [{"each": "c1"}]}'  # a planner's answer, spaced as vLLM's grammar for JSON writes it
DIRECT = '{"plan": []}'  # likewise
LEVELS = range(1, 6)
HELD_OUT_SHARE = 8  # one prompt in eight, by hash, is never trained on


@dataclass(frozen=True, slots=True)
class Task:
    prompt: str
    answer: str
    kind: str
    """`composite`, `chain`, `plan`, or the name of a single kind"""
    difficulty: int
    """1 (easiest) to 5 for singles; the number of parts or steps for composites and chains"""


def held_out(prompt: str) -> bool:
    """Whether training must never see the prompt. Its text alone decides, so no list is needed."""
    return hashlib.sha256(prompt.encode()).digest()[0] % HELD_OUT_SHARE == 0


def a_word(rng: random.Random, letters: int) -> str:
    """A pronounceable made-up word: it can only be worked on, not remembered."""
    start = rng.random() < 0.7
    return "".join(rng.choice("bcdfghklmnprstvwz" if (i % 2 == 0) == start else "aeiou") for i in range(letters))


def a_number(rng: random.Random, digits: int) -> int:
    return rng.randrange(0 if digits == 1 else 10 ** (digits - 1), 10**digits)


def listed(items: list[str], last: str = "and") -> str:
    return ", ".join(items[:-1]) + f" {last} {items[-1]}"


def say(rng: random.Random, template: str, **slots: object) -> str:
    return rng.choice(TEMPLATES[template]).format(**slots)


ADD_DIGITS = {1: (1, 1), 2: (2, 1), 3: (2, 2), 4: (3, 2), 5: (3, 3)}
WORD_LETTERS = {1: (3, 3), 2: (4, 5), 3: (6, 7), 4: (8, 9), 5: (10, 11)}
TEMPLATES: dict[str, list[str]] = json.loads((Path(__file__).parent / "templates.json").read_text("utf-8"))
"""by kind of task, and further lists of words that tasks are made of"""
FACTS: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "facts.json").read_text("utf-8"))
"""`capitals` and `symbols`, most common first: how common a fact is decides how often training shows it"""


def add(rng: random.Random, level: int) -> tuple[str, str]:
    a, b = (a_number(rng, digits) for digits in ADD_DIGITS[level])
    if rng.random() < 0.5:
        a, b = b, a
    return say(rng, "add", a=a, b=b), str(a + b)


def subtract(rng: random.Random, level: int) -> tuple[str, str]:
    b, a = sorted(a_number(rng, digits) for digits in ADD_DIGITS[level])
    return say(rng, "subtract", a=a, b=b), str(a - b)


def some_word(rng: random.Random, level: int) -> str:
    return a_word(rng, rng.randint(*WORD_LETTERS[level]))


WORD_TASKS: dict[str, Callable[[str], str]] = {
    "reverse": lambda word: word[::-1],
    "spell": "-".join,
    "upper": str.upper,
    "count": lambda word: str(len(word)),
}
"""kind -> the answer for a word"""


def on_word(kind: str, rng: random.Random, level: int) -> tuple[str, str]:
    word = some_word(rng, level)
    return say(rng, kind, w=word), WORD_TASKS[kind](word)


def letter(rng: random.Random, level: int) -> tuple[str, str]:
    word = some_word(rng, level)
    place = rng.randrange(len(word))
    return say(rng, "letter", w=word, n=TEMPLATES["ordinals"][place]), word[place]


def numbers(rng: random.Random, level: int) -> list[int]:
    return rng.sample(range(1, 100), level + 1)


def sort(rng: random.Random, level: int) -> tuple[str, str]:
    items = numbers(rng, level)
    return say(rng, "sort", x=listed([str(i) for i in items])), ", ".join(str(i) for i in sorted(items))


def largest(rng: random.Random, level: int) -> tuple[str, str]:
    items, up = numbers(rng, level), rng.random() < 0.5
    shown = listed([str(i) for i in items], "or")
    return say(rng, "largest" if up else "smallest", x=shown), str(max(items) if up else min(items))


def fact(rng: random.Random, level: int) -> tuple[str, str]:
    table, template = rng.choice([(FACTS["capitals"], "capital"), (FACTS["symbols"], "symbol")])
    subjects = list(table)
    band = len(subjects) / 5
    subject = rng.choice(subjects[round(band * (level - 1)) : round(band * level)])
    return say(rng, template, s=subject), table[subject]


SINGLES: dict[str, Callable[[random.Random, int], tuple[str, str]]] = {
    "add": add,
    "subtract": subtract,
    **{kind: partial(on_word, kind) for kind in WORD_TASKS},
    "letter": letter,
    "sort": sort,
    "largest": largest,
    "fact": fact,
}


Draw = Callable[[random.Random], tuple[str, int]]
"""Draws a kind of single task and its level."""


def evenly(rng: random.Random) -> tuple[str, int]:
    return rng.choice(list(SINGLES)), rng.choice(LEVELS)


def single(rng: random.Random, draw: Draw = evenly) -> Task:
    kind, level = draw(rng)
    prompt, answer = SINGLES[kind](rng, level)
    return Task(rng.choice(TEMPLATES["polite"]) + prompt, answer, kind, level)


def composite(rng: random.Random, draw: Draw = evenly) -> Task:
    """Three to eight unrelated singles, numbered; the answer has the same numbers."""
    drawn = [draw(rng) for _ in range(rng.randint(3, 8))]
    done = [SINGLES[kind](rng, level) for kind, level in drawn]
    asked = "".join(f"\n{i}. {prompt}" for i, (prompt, _) in enumerate(done, 1))
    answer = "\n".join(f"{i}. {answer}" for i, (_, answer) in enumerate(done, 1))
    return Task(rng.choice(TEMPLATES["intro"]) + asked, answer, "composite", len(done))


def one_step(rng: random.Random, value: int) -> tuple[str, int]:
    n = rng.randint(1, 9)
    ways = [(f"Add {n}.", value + n)]
    if value > n:
        ways.append((f"Subtract {n}.", value - n))
    if value < 50:
        ways.append(("Double it.", value * 2))
    return rng.choice(ways)


def chain(rng: random.Random) -> Task:
    """Two to six steps of arithmetic, each on the result of the one before; the answer lists every result."""
    value, text, results = rng.randint(1, 20), [], []
    start = rng.choice([f"Start with {value}.", f"Begin with {value}.", f"Take the number {value}."])
    count = rng.randint(2, 6)
    for _ in range(count):
        step, value = one_step(rng, value)
        text.append(step)
        results.append(str(value))
    ask = rng.choice(["Give the result of every step.", "Write the result after each step."])
    return Task(" ".join([start, *text, ask]), ", ".join(results), "chain", count)


def plan(rng: random.Random, draw: Draw = evenly) -> tuple[Task, Task]:
    """A planner's question about a task, and that task. It splits a composite into its parts, and does anything else directly."""
    kind = rng.choices(["composite", "chain", "single"], [6, 2, 2])[0]
    about = chain(rng) if kind == "chain" else {"composite": composite, "single": single}[kind](rng, draw)
    shown = head(about.prompt, rng.randint(16, 100))
    return Task(f"plan {shown}", SPLIT if kind == "composite" else DIRECT, "plan", about.difficulty), about


KINDS: dict[Kind, Callable[[random.Random], Task]] = {"single": single, "composite": composite, "chain": chain}


def fresh(kind: Kind, n: int, seed: int) -> list[Task]:
    """`n` different tasks that no training ever saw, the same for the same seed."""
    rng = random.Random(f"{seed}/{kind}")
    found: dict[str, Task] = {}
    while len(found) < n:
        task = KINDS[kind](rng)
        if held_out(task.prompt):
            found[task.prompt] = task
    return list(found.values())
