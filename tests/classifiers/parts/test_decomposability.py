"""Texts with visible, independent parts are offered to a planner; chains, single questions and one whole are not."""

import random

import pytest

from classifiers.parts.decomposability import FEATURES, features, shipped, splits
from deployments.pocket.tasks import fresh

BOOK = "\n\n".join(f"## Chapter {i}\n" + "The harbour was quiet and the boats lay still in the fog. " * 12 for i in range(1, 6))
FILES = "\n".join(f"--- part_{i}.py\ndef run_{i}(x):\n    return x + {i}\n" for i in range(5))
QUESTIONS = "\n".join(
    f"{i}. {q}"
    for i, q in enumerate(
        ["Who painted the Mona Lisa?", "What is 17 * 3?", "When did the wall fall?", "What does fjord mean?"], 1
    )
)
REVIEWS = "\n".join(f"- {r}" for r in ["Loud but works.", "Broke on day one.", "Great value.", "My kids love it.", "It is fine."])

APART = [
    "Please answer these questions:\n" + QUESTIONS,
    "For each of the customer reviews below give the sentiment.\n" + REVIEWS,
    "Translate the following product reviews into German and French:\n" + REVIEWS,
    "Write product descriptions of 50 words for:\n1. Trail shoes\n2. Camping stove\n3. Headlamp\n4. Water filter",
    "Summarise each chapter in two sentences.\n\n" + BOOK,
    "Write a docstring for the function in each file.\n\n" + FILES,
    "Do all of these, in any order:\n" + QUESTIONS,
    QUESTIONS.join(["Quick quiz:\n", "\n\nKeep answers short."]),
]
TOGETHER = [
    "What is the capital of France?",
    "Hello!",
    "",
    "I have 3 boxes. Each box has 4 apples. I eat 2 of them. How many are left?",
    "Start with 4. Add 3. Double it. Give the result of every step.",
    "Solve step by step:\n1. Compute 3 + 4\n2. Multiply the result by 5\n3. Subtract 6 from that",
    "Write a sorting function. Requirements:\n1. It must be generic\n2. It must be stable\n3. No allocations\n4. It has docs",
    "Which of these is the most helpful review?\n" + REVIEWS,
    "Rank the following reviews and pick the best one:\n" + REVIEWS,
    "Fix the failing test and explain the root cause.\n\n" + FILES,
    "Why does the captain leave at the end?\n\n" + BOOK,
    "Summarise the book in one paragraph.\n\n" + BOOK,
    "Prove that for all integers n the number n * n + n is even.",
    "Which statement is true?\nA. Cats bark\nB. Dogs bark\nC. Fish bark\nD. Birds bark\nAnswer:",
    "Plan five days in Rome for 500 euros. For each day list activities that fit what is left of the budget.",
    "1. Get the list of users\n2. For each user, fetch the orders\n3. Sum the totals\n4. Sort them\n\nImplement this in Python.",
]


@pytest.mark.parametrize("text", APART)
def test_independent_parts_are_offered(text):
    assert splits(text), shipped().chance(text)


@pytest.mark.parametrize("text", TOGETHER)
def test_chains_and_single_questions_are_not(text):
    assert not splits(text), shipped().chance(text)


@pytest.mark.parametrize("kind, least, most", [("composite", 297, 300), ("chain", 0, 0), ("single", 0, 0)])
def test_of_300_pocket_prompts_composites_pass_and_no_other(kind, least, most):
    passed = sum(splits(task.prompt) for task in fresh(kind, 300, seed=7))
    assert least <= passed <= most


def test_every_feature_has_a_finite_value_on_any_text():
    rng = random.Random(0)
    signs = "a b1 \n-*#`?.:()[]{}<>|~\t"
    for _ in range(200):
        found = features("".join(rng.choice(signs) for _ in range(rng.randint(0, 400))))
        assert len(found) == len(FEATURES) and all(0 <= x < 20 for x in found)
