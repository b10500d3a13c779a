import random

import numpy as np
import pytest

from router.flywheel.rows.near_duplicates import LEAST, _grams, jaccard, near_duplicates, plain

LONG = "please write a short and friendly note to the neighbours about the party on the roof this summer"


def together(*texts):
    return len(set(near_duplicates(texts).tolist())) == 1


def test_texts_that_differ_in_space_and_case_alone_are_near_duplicates():
    assert together("What is  the capital of France?", "what is the capital of france?")


def test_a_long_text_with_one_word_changed_is_a_near_duplicate():
    assert together(LONG, LONG.replace("short", "brief"))


def test_other_texts_are_not():
    assert near_duplicates([LONG, "how do I sort a list in Python", "translate this letter"]).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("what is 12 plus 34, please answer with the number alone", "what is 13 plus 34, please answer with the number alone"),
        ('spell the word "house" letter by letter, in lower case', 'spell the word "horse" letter by letter, in lower case'),
        ("spell the word 'house' letter by letter, in lower case", "spell the word 'horse' letter by letter, in lower case"),
        ("explain what `sorted(a)` does in the program here", "explain what `sorted(b)` does in the program here"),
    ],
)
def test_other_numbers_or_quoted_strings_are_another_task(one, other):
    assert not together(one, other)


def test_an_apostrophe_inside_a_word_quotes_nothing():
    assert together(f"don't wait, {LONG}, it isn't far", f"don't wait, {LONG}, it isn't very far")


def test_a_group_is_named_by_its_first_member_and_joins_chains():
    texts = [LONG, "something else entirely", LONG + " again", LONG + " again and"]
    assert near_duplicates(texts).tolist() == [0, 1, 0, 0]


def test_short_and_empty_texts_have_groups_too():
    assert near_duplicates(["", "a", "", "b"]).tolist() == [0, 1, 0, 3]
    assert near_duplicates([]).tolist() == []


def test_hostile_texts_neither_raise_nor_take_long():
    texts = ["“" * 20_000, "'" * 20_000, "\ud800 half", "\x00" * 10, "a" * 100_000]
    assert len(near_duplicates(texts)) == 5


def mixed(n, seed):
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghij", k=draw.randint(3, 8))) for _ in range(200)]
    texts = []
    for _ in range(n):
        if texts and draw.random() < 0.4:
            parts = draw.choice(texts).split()
            parts[draw.randrange(len(parts))] = draw.choice(words)
            texts.append(" ".join(parts))
        else:
            texts.append(" ".join(draw.choices(words, k=draw.randint(4, 16))))
    return texts


@pytest.mark.slow
def test_nearly_every_pair_above_the_limit_is_found_and_none_below_it():
    texts = mixed(400, 3)
    grams = [frozenset(_grams(plain(text))) for text in texts]
    alike = np.array([[jaccard(a, b) >= LEAST for b in grams] for a in grams])
    reached = alike
    for _ in range(10):
        reached = reached @ reached
    found = near_duplicates(texts)
    same = found[:, None] == found[None, :]
    assert not (same & ~reached).any()
    assert (same & alike).sum() >= 0.99 * alike.sum()


@pytest.mark.slow
def test_the_same_texts_give_the_same_groups():
    texts = mixed(2_000, 4)
    assert (near_duplicates(texts) == near_duplicates(list(texts))).all()
