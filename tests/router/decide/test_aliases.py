"""Other names for models."""

import pytest

from router.decide.aliases import listed, resolved

ALIASES = {
    "claude-opus-*": "auto:quality",
    "claude-*": "auto",
    "gpt-5.5": "large",
    "small": "large",
    "auto*": "small",
    "a.c": "b",
}


@pytest.mark.parametrize(
    "name, stands_for",
    [
        ("claude-opus-4-8", "auto:quality"),  # the first that fits counts
        ("claude-haiku-4-5", "auto"),
        ("gpt-5.5", "large"),
        ("gpt-5.50", "gpt-5.50"),
        ("small", "small"),  # tiers and `auto` always stand for themselves
        ("auto", "auto"),
        ("auto:0.9", "auto:0.9"),
        ("automatic", "small"),
        ("abc", "abc"),  # only the star is special
        ("a.c", "b"),
    ],
)
def test_the_first_alias_that_fits_counts(name, stands_for):
    assert resolved(name, ALIASES, ["small", "large"]) == stands_for


def test_only_whole_names_are_listed():
    assert listed(ALIASES) == ["gpt-5.5", "small", "a.c"]
