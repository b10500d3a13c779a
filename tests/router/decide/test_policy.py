"""Hard constraints first, then chances and costs."""

import numpy as np
import pytest

from classifiers import Rule
from router.config import EchoTier, Price
from router.decide import policy
from router.errors import ContextTooLong, NoTierFits
from router.types import Facts

NAMES = ["small", "medium", "large"]
COST = np.array([0.04, 0.2, 1.0])


def tier(name, context=1000, **can):
    return EchoTier(name=name, engine="echo", context=context, price=Price(usd_per_accelerator_hour=1), **can)


def facts(words=0, answer=1, *needs):
    text = "word " * words
    return Facts(text, text, "auto", answer, frozenset(needs))


def words_of(text):
    return len(text.split())


def counting(tiers):
    return {t.name: words_of for t in tiers}


PLAIN, TOOLLESS, NO_JSON, SEEING = tier("a"), tier("a", tools=False), tier("a", json_mode=False), tier("a", images=True)


@pytest.mark.parametrize(
    "one, asked, reason",
    [
        (PLAIN, facts(10), None),
        (PLAIN, facts(10, 1, "tools", "json"), None),
        (TOOLLESS, facts(10, 1, "tools"), "takes no tools"),
        (TOOLLESS, facts(10, 1, "json"), None),
        (NO_JSON, facts(10, 1, "json"), "has no JSON mode"),
        (PLAIN, facts(10, 1, "images"), "takes no images"),
        (SEEING, facts(10, 1, "images"), None),
        (PLAIN, facts(999, 1), None),
        (PLAIN, facts(1000, 1), "takes 1000 tokens, this needs 1001"),
        (PLAIN, facts(900, 101), None),  # no other window is wider, and the prompt fits
        (PLAIN, facts(0, 1000), None),
        (PLAIN, facts(10, 128_000), None),  # a limit is no need
        (TOOLLESS, facts(2000, 1, "tools"), "takes no tools"),
    ],
)
def test_a_tier_is_ruled_out_for_a_reason(one, asked, reason):
    assert policy.exclude(asked, [one], counting([one])) == ({one.name: reason} if reason else {})


@pytest.mark.parametrize(
    "answer, reserve, narrow",
    [(1, 2048, ""), (100, 2048, ""), (101, 2048, "this needs 1001"), (32_000, 100, ""), (32_000, 2048, "1150")],
)
def test_a_window_keeps_room_for_an_answer_where_a_wider_one_does(answer, reserve, narrow):
    """The limit, the reserve or a quarter of the window, whichever is least: 101, 100, 250."""
    tiers = [tier("narrow", 1000), tier("wide", 2000)]
    found = policy.exclude(facts(900, answer), tiers, counting(tiers), None, reserve)
    assert set(found) == ({"narrow"} if narrow else set())
    assert narrow in found.get("narrow", "")


def test_tokens_are_counted_only_where_they_might_not_fit():
    def never(text):
        raise AssertionError("counted without need")

    assert policy.exclude(facts(10), [tier("a", 1000)], {"a": never}) == {}


def test_each_tier_counts_in_its_own_tokens():
    tiers = [tier("words", 100), tier("letters", 100)]
    assert list(policy.exclude(facts(50), tiers, {"words": words_of, "letters": len})) == ["letters"]


@pytest.mark.parametrize(
    "tiers, asked, error, says",
    [
        ([tier("a", 10), tier("b", 20)], facts(30), ContextTooLong, ["30 tokens", "20 tokens"]),
        ([tier("a", 10), tier("b", 20, tools=False)], facts(15, 1, "tools"), ContextTooLong, ["15 tokens", "10 tokens"]),
        ([tier("a", 10), tier("b", 20)], facts(20, 40), ContextTooLong, ["20 tokens"]),
        ([tier("a"), tier("b")], facts(5, 1, "images"), NoTierFits, ["a: takes no images", "b: takes no images"]),
    ],
)
def test_when_no_tier_is_left_the_error_says_why(tiers, asked, error, says):
    excluded = policy.exclude(asked, tiers, counting(tiers))
    assert len(excluded) == len(tiers)
    with pytest.raises(error) as caught:
        policy.refuse(asked, tiers, counting(tiers), excluded)
    assert [part for part in says if part not in str(caught.value)] == []


CHANCE, RELATIVE, UTILITY = Rule("chance", 0.9), Rule("relative", 0.9), Rule("utility", 0.5)


@pytest.mark.parametrize(
    "p, rule, without, taken, reason",
    [
        ([0.95, 0.97, 0.99], CHANCE, "", "small", "good enough"),
        ([0.20, 0.90, 0.99], CHANCE, "", "medium", "good enough"),
        ([0.20, 0.30, 0.99], CHANCE, "", "large", "good enough"),
        ([0.20, 0.30, 0.50], CHANCE, "", "large", "best we have"),
        ([0.20, 0.60, 0.50], CHANCE, "", "medium", "best we have"),
        ([0.95, 0.97, 0.99], CHANCE, "small", "medium", "good enough"),
        ([0.95, 0.30, 0.20], CHANCE, "small", "medium", "best we have"),
        ([0.95, 0.10, 0.20], CHANCE, "small medium", "large", "only one fits"),
        ([0.20, 0.46, 0.50], RELATIVE, "", "medium", "good enough"),
        ([0.20, 0.46, 0.90], RELATIVE, "large", "medium", "good enough"),
        ([0.50, 0.60, 0.90], UTILITY, "", "medium", "worth its cost"),
        ([0.50, 0.50, 0.50], UTILITY, "", "small", "worth its cost"),
        ([0.50, 0.60, 0.90], UTILITY, "medium", "small", "worth its cost"),
        ([0.99, 0.99, 0.99], Rule("tier", 2), "", "large", "fixed"),
        ([0.99, 0.99, 0.99], Rule("tier", 0), "small", "medium", "fixed"),
        ([0.99, 0.99, 0.99], Rule("tier", 2), "large", "medium", "fixed"),
    ],
)
def test_takes_the_cheapest_permitted_that_should_do(p, rule, without, taken, reason):
    excluded = dict.fromkeys(without.split(), "takes no tools")
    decision = policy.pick(NAMES, np.array(p), COST, rule, "balanced", excluded)
    assert (decision.tier, decision.reason, decision.target) == (taken, reason, "balanced")


def test_a_decision_shows_every_step():
    decision = policy.pick(NAMES, np.array([0.2, 0.5, 0.95]), COST, CHANCE, "0.9", {"small": "takes no tools"})
    assert decision.p == {"medium": 0.5, "large": 0.95}
    assert decision.excluded == {"small": "takes no tools"}
    assert decision.confidence == 0.95
