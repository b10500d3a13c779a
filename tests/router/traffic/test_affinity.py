"""A conversation comes back to the replica that has read it; new ones spread; nobody waits behind a crowd for a cache."""

import random
from collections import Counter

import pytest

from router.traffic.affinity import HEAD, LONGEST, Affinity, beginning, hint_of

FOUR = ["r1", "r2", "r3", "r4"]
LONG = "You answer questions about the manual. " * 40


def chat(*texts, system=""):
    roles = ["user", "assistant"] * len(texts)
    said = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return {"messages": ([{"role": "system", "content": system}] if system else []) + said}


def idle(name):
    return 0.0


def went(affinity, body, session="", how="prefix", replicas=FOUR, queue=idle):
    hint = hint_of(body, session, how)
    replica = affinity.preferred(hint, replicas, queue)[0]
    affinity.answered(hint, replica)
    return replica


@pytest.mark.parametrize("how", ["prefix", "session"])
def test_a_conversation_stays_whatever_is_said_in_it(how):
    affinity = Affinity()
    turns = [chat("hello"), chat("hello", "yes?", "and now"), chat("hello", "yes?", "and now", "so", "bye")]
    assert len({went(affinity, turn, how=how) for turn in turns}) == 1


@pytest.mark.parametrize("how", ["prefix", "session"])
def test_different_conversations_spread_evenly(how):
    counts = Counter(went(Affinity(), chat(f"question {n}"), how=how) for n in range(2_000))
    assert set(counts) == set(FOUR) and max(counts.values()) < 1.2 * 500


def test_one_long_beginning_belongs_to_one_replica_and_to_all_where_only_conversations_count():
    bodies = [chat(f"question {n}", system=LONG) for n in range(100)]
    assert len({went(Affinity(), body) for body in bodies}) == 1
    assert {went(Affinity(), body, how="session") for body in bodies} == set(FOUR)


@pytest.mark.parametrize("how", ["prefix", "session"])
def test_a_conversation_that_the_client_names_stays_although_its_beginning_is_cut_off(how):
    affinity = Affinity()
    went(affinity, chat("hello"), session="s1", how=how)
    places = {went(affinity, chat(f"window {n}"), session="s1", how=how) for n in range(30)}
    places |= {went(Affinity(), chat(f"window {n}"), session="s1", how=how) for n in range(30)}  # of other ingresses
    assert len(places) == 1


def test_every_ingress_finds_the_same_place_without_asking():
    bodies = [chat(f"question {n}") for n in range(50)]
    one, other = Affinity(), Affinity()
    assert [went(one, body) for body in bodies] == [went(other, body, replicas=FOUR[::-1]) for body in bodies]


def test_what_belonged_to_a_replica_that_went_is_all_that_moves():
    affinity, bodies = Affinity(), [chat(f"question {n}") for n in range(400)]
    before = [went(affinity, body) for body in bodies]
    after = [went(affinity, body, replicas=FOUR[:3]) for body in bodies]
    assert all(new == old for old, new in zip(before, after, strict=True) if old != "r4")
    assert set(after) == set(FOUR[:3])
    back = [went(Affinity(), body) for body in bodies]
    assert back == before


def test_a_crowd_is_left_for_a_shorter_queue_and_the_conversation_is_at_home_there():
    affinity = Affinity(slack=4)
    home = went(affinity, chat("hello"))
    busy = {home: 9.0}
    queue = lambda name: busy.get(name, 0.0)  # noqa: E731
    moved = went(affinity, chat("hello"), queue=queue)
    assert moved != home
    assert went(affinity, chat("hello"), queue=idle) == moved


def test_a_queue_that_is_a_little_longer_is_worth_the_cache():
    affinity = Affinity(slack=4)
    home = went(affinity, chat("hello"))
    assert went(affinity, chat("hello"), queue=lambda name: 4.0 if name == home else 0.0) == home


@pytest.mark.parametrize(("many", "most"), [(2, 4), (4, 4), (16, 12)])
def test_no_replica_is_crowded_when_everybody_sends_the_same(many, most):
    """Of few replicas by no more than the slack and one; of many about that."""
    affinity, queues = Affinity(slack=3, pick=random.Random(1).choice), dict.fromkeys(map(str, range(many)), 0.0)
    for n in range(20 * many):
        queues[went(affinity, chat(f"{n}", system=LONG), replicas=list(queues), queue=queues.__getitem__)] += 1
    assert max(queues.values()) - min(queues.values()) <= most


def test_the_others_come_after_the_preferred_one_for_when_it_is_full_or_dead():
    order = Affinity().preferred(hint_of(chat("hello"), "", "prefix"), FOUR, idle)
    assert set(order) == set(FOUR) and len(order) == 4
    many = [f"r{n}" for n in range(1_000)]
    assert len(set(Affinity().preferred(hint_of(chat("hello"), "", "prefix"), many, idle))) in (2, 3, 4)
    assert Affinity().preferred(hint_of(chat("hello"), "", "prefix"), ["r1"], idle) == ["r1"]


def test_what_is_remembered_is_bounded():
    affinity = Affinity(most=10)
    for n in range(100):
        went(affinity, chat(f"question {n}"))
    assert len(affinity.homes) == 10


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]}, "user\0a"),
        (
            {
                "messages": [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": "a"},
                    {"role": "user", "content": "b"},
                ]
            },
            "system\0s\0user\0a",
        ),
        ({"messages": [{"role": "assistant", "content": None}]}, "assistant\0"),
        ({"prompt": "once"}, "once"),
        ({"prompt": [1, 2]}, "[1, 2]"),
        ({}, ""),
    ],
)
def test_what_a_beginning_is(body, text):
    assert beginning(body) == text


def test_a_beginning_is_read_to_a_limit():
    assert len(beginning(chat("x" * 10 * LONGEST))) <= LONGEST + 10
    first, second = chat("x" * HEAD + "a"), chat("x" * HEAD + "b")
    assert hint_of(first, "", "prefix").split()[1] == hint_of(second, "", "prefix").split()[1]
    assert hint_of(first, "", "none") == ""
