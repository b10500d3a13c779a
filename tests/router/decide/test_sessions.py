"""Conversations: when they stay on their tier, and when they move."""

import numpy as np
import pytest

from classifiers import Rule
from router.decide.sessions import Sessions, history_share, key_of, name_of, stay
from router.types import Decision

NAMES = ["small", "medium", "large"]
LONG, SHORT = "x" * 1000, "next"
TALK = [{"role": "user", "content": LONG}, {"role": "assistant", "content": "yes"}, {"role": "user", "content": SHORT}]
LOOP = [*TALK[:1], {"role": "assistant", "content": None, "tool_calls": [{}]}, {"role": "tool", "content": "42"}]
FIRST = TALK[:1]


@pytest.mark.parametrize(
    "before, decided, messages, rule, tier, reason",
    [
        ("large", "medium", LOOP, Rule("chance", 0.9), "large", "kept in a tool loop"),
        ("medium", "large", LOOP, Rule("chance", 0.9), "large", "good enough"),
        ("medium", "large", TALK, Rule("chance", 0.9), "large", "good enough"),
        ("large", "medium", TALK, Rule("chance", 0.9), "large", "kept for its cache"),
        ("large", "medium", FIRST, Rule("chance", 0.9), "medium", "good enough"),
        ("large", "small", TALK, Rule("utility", 0.5), "small", "good enough"),
        ("large", "medium", TALK, Rule("utility", 0.5), "large", "kept for its cache"),
        ("large", "medium", FIRST, Rule("utility", 0.5), "medium", "good enough"),
        ("gone", "medium", TALK, Rule("utility", 0.5), "medium", "good enough"),
        ("large", "medium", TALK, Rule("tier", 1), "medium", "good enough"),
    ],
)
def test_a_conversation_stays_unless_moving_is_worth_it(before, decided, messages, rule, tier, reason):
    p, cost = np.array([0.93, 0.94, 0.95]), np.array([0.05, 0.62, 1.0])
    kept = stay(Decision(decided, "good enough", "balanced"), before, NAMES, p, cost, rule, messages)
    assert (kept.tier, kept.reason) == (tier, reason)


def test_a_tier_that_cannot_take_the_request_is_not_kept():
    decided = Decision("large", "good enough", "balanced", {}, {"medium": "takes no tools"})
    assert stay(decided, "medium", NAMES, np.ones(3), np.ones(3), Rule("chance", 0.9), LOOP) is decided


def test_a_conversation_is_known_by_its_header_or_its_first_messages_and_never_across_keys():
    first, later = {"messages": TALK[:1]}, {"messages": TALK}
    assert key_of(first, None, "a") == key_of(later, None, "a") != key_of(later, None, "b")
    assert key_of(first, "s1", "a") == key_of({"messages": [{"role": "user", "content": "other"}]}, "s1", "a")
    assert key_of({"messages": [{"role": "system", "content": "x"}]}, None, "a") is None


def test_a_long_first_message_is_known_by_its_beginning_and_length():
    def of(text):
        return key_of({"messages": [{"role": "user", "content": text}]}, None, "a")

    long = "x" * 100_000
    assert of(long) == of(long) and len({of(long), of(long + "x"), of("y" + long[1:]), of(long[:60_000])}) == 4


HEADERS = ("x-session-id", "x-session-affinity", "session-id", "x-claude-code-session-id")


@pytest.mark.parametrize("n", range(len(HEADERS)))
def test_the_first_header_that_names_a_conversation_counts(n):
    headers = {name: name for name in HEADERS[n:]}
    assert name_of(headers, {"prompt_cache_key": "field"}, {"user_id": "user"}) == HEADERS[n]


@pytest.mark.parametrize(
    "body, metadata, named",
    [
        ({"prompt_cache_key": "field"}, {"user_id": "user"}, "field"),
        ({}, {"user_id": "user"}, "user"),
        ({"prompt_cache_key": ""}, {"user_id": "user"}, "user"),
        ({"prompt_cache_key": 7}, {"user_id": ["user"]}, ""),
        ({"prompt_cache_key": None}, {}, ""),
    ],
)
def test_else_a_field_does_if_it_is_a_text(body, metadata, named):
    assert name_of({"x-session-id": ""}, body, metadata) == named


def test_what_was_sent_before_is_what_may_be_cached():
    assert history_share(FIRST) == 0 and history_share(TALK) > 0.99


def test_sessions_forget_the_oldest_and_the_old():
    now = [0.0]
    known = Sessions(most=2, ttl_s=10, clock=lambda: now[0])
    for name in "abc":
        known.remember(name, "small")
    assert [known.tier(n) for n in ("a", "b", "c", None)] == [None, "small", "small", None]
    now[0] = 11.0
    assert known.tier("c") is None
