"""From chances and costs to a tier."""

import numpy as np
import pytest

from classifiers import ClassifierError, Rule, choose, choose_many, explicit

COST = np.array([0.1, 0.4, 1.0])


@pytest.mark.parametrize(
    "rule, p, tier, reason",
    [
        (explicit(0.9), [0.95, 0.96, 0.97], 0, "good enough"),
        (explicit(0.9), [0.20, 0.91, 0.97], 1, "good enough"),
        (explicit(0.9), [0.20, 0.50, 0.40], 1, "best we have"),
        (explicit(0.9), [0.50, 0.50, 0.50], 0, "best we have"),
        (Rule("relative", 0.9), [0.46, 0.48, 0.50], 0, "good enough"),
        (Rule("relative", 0.9), [0.30, 0.48, 0.50], 1, "good enough"),
        (Rule("utility", 0.0), [0.5, 0.6, 0.7], 2, "worth its cost"),
        (Rule("utility", 0.5), [0.5, 0.6, 0.7], 0, "worth its cost"),
        (Rule("utility", 0.5), [0.1, 0.6, 0.7], 1, "worth its cost"),
        (Rule("tier", 2), [1.0, 0.0, 0.0], 2, "fixed"),
    ],
)
def test_one_request(rule, p, tier, reason):
    assert choose(np.array(p), COST, rule) == (tier, reason)


def test_hopeless_prompts_are_not_sent_up():
    assert choose(np.array([0.02, 0.03, 0.04]), COST, Rule("utility", 0.2))[0] == 0


def test_many_requests_as_one_by_one():
    p = np.random.default_rng(0).random((50, 3))
    for rule in (explicit(0.8), Rule("relative", 0.9), Rule("utility", 0.3), Rule("tier", 1)):
        assert choose_many(p, COST, rule).tolist() == [choose(row, COST, rule)[0] for row in p]


@pytest.mark.parametrize("target", [-0.1, 1.01, float("nan")])
def test_a_target_is_a_chance(target):
    with pytest.raises(ClassifierError, match="between 0 and 1"):
        explicit(target)


def test_rules_survive_json():
    rule = Rule("utility", 0.25, 0.4, 0.99)
    assert repr(Rule.from_dict(rule.to_dict())) == repr(rule)
