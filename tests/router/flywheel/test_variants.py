"""Names of weights, and a request as certain weights have answered it."""

from router.flywheel.served import Answer, Grade, Served
from router.flywheel.variants import Version, Versions, in_order, names_on, tier_of, variant

NEW, NEWER = "a" * 64, "b" * 64
SMALL_NEW, SMALL_NEWER = "small@" + "a" * 12, "small@" + "b" * 12


def test_weights_have_a_name_and_the_configured_ones_go_by_the_tiers():
    assert variant("small", NEW) == SMALL_NEW and variant("small", "") == "small"
    assert tier_of(SMALL_NEW) == tier_of("small") == "small"
    assert names_on(("small", "large"), {"small": NEW}) == (SMALL_NEW, "large")
    assert Version("small", NEW).name == SMALL_NEW and Version("small").short == "configured"


def test_names_are_in_the_ladders_order_each_once():
    assert in_order(["small", "large"], ["large", SMALL_NEW, "small", SMALL_NEW, "gone"]) == (SMALL_NEW, "small", "large")


def test_an_answer_is_told_by_its_fingerprint():
    known = Versions.of({"small": "f-old", "large": "f-large"}, {"small": {NEW: "f-new"}})
    assert known.name("small", "f-new") == known.name(SMALL_NEW, "f-new") == SMALL_NEW
    assert known.name("small", "f-old") == known.name("small", "") == "small"
    assert known.name("small", "f-other") is None  # an operator changed the model
    assert known.name("small", "f-large") is None  # another tier's
    assert known.name(SMALL_NEW, "") == SMALL_NEW


def test_weights_that_are_the_configured_ones_go_by_the_tiers_name():
    """As where an operator has configured what was learned."""
    assert Versions.of({"small": "f"}, {"small": {NEW: "f"}}).name("small", "f") == "small"


def served(**other):
    said = {name: Answer(name, "fill", {"content": name}) for name in ("small", SMALL_NEW, "large")}
    grades = {name: Grade(score, "agreement") for name, score in (("small", 0.0), (SMALL_NEW, 1.0), ("large", 1.0))}
    return Served("t", 1.0, "key", "", ({"role": "user"},), SMALL_NEW, said, grades, **other)


def test_a_view_has_what_these_weights_have_said_under_the_tiers_names():
    new, old = served().on({"small": NEW}), served().on({})
    assert (new.answers["small"].text, new.grades["small"].score, new.answered_by) == (SMALL_NEW, 1.0, "small")
    assert (old.answers["small"].text, old.grades["small"].score, old.answered_by) == ("small", 0.0, "")
    assert new.answers["small"].tier == "small" and new.answers.keys() == old.answers.keys() == {"small", "large"}
    assert new.complete(("small", "large")) and old.complete(("small", "large"))


def test_weights_that_were_not_asked_have_no_answer():
    other = served().on({"small": NEWER})
    assert other.answers.keys() == other.grades.keys() == {"large"} and not other.complete(("small", "large"))
