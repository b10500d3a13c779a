"""The licence gate: what is not declared is not allowed, and the message says what to write."""

import pytest
from student_rows import config_of

from router.distil.licences import CORRECTION, NOT_ALLOWED, NOT_KNOWN, checked_name, permissions, strictest
from router.errors import BadInput
from router.tier_settings import Licence

REMOTE = {"engine": "remote", "url": "https://example.com/v1", "model": "m"}


def gate(tmp_path, teacher, student=None, remote=False):
    """Of a ladder whose tiers have these licences."""
    given = config_of(tmp_path, student={"licence": student or {}}, teacher={"licence": teacher})
    small, large = given.tiers
    if remote:
        plain = {"name": "large", "context": 400, "price": {"usd_per_1m_input": 9, "usd_per_1m_output": 9}}
        large = type(given).model_validate({"tiers": [{**plain, **REMOTE, "licence": teacher}]}).tiers[0]
    return permissions(small, large, [small, large])


OPEN = {"id": "mit", "train_on_outputs": "any"}
FAMILY = {"id": "llama3.1", "train_on_outputs": "same-family", "family": "Llama-3"}


@pytest.mark.parametrize(
    ("teacher", "student", "remote"),
    [(OPEN, None, False), (OPEN, None, True), (FAMILY, {"family": "llama-3"}, False), (FAMILY, {"family": "llama-3"}, True)],
)
def test_what_is_declared_trainable_may_teach(tmp_path, teacher, student, remote):
    found = gate(tmp_path, teacher, student, remote)
    assert found.fault(teacher["id"]) == "" and found.fault("unknown") == NOT_KNOWN and found.fault("") == NOT_KNOWN


@pytest.mark.parametrize(
    ("teacher", "student", "remote", "setting"),
    [
        ({}, None, False, "tiers.large.licence.id"),
        ({"train_on_outputs": "any"}, None, False, "tiers.large.licence.id"),
        ({"id": "mit"}, None, False, "tiers.large.licence.train_on_outputs"),
        ({"id": "mit"}, None, True, "a remote tier allows nothing unless it is declared"),
        ({"id": "closed", "train_on_outputs": "none"}, None, False, "train_on_outputs is none"),
        ({**FAMILY, "family": ""}, {"family": "llama-3"}, False, "tiers.large.licence.family"),
        (FAMILY, {}, False, "tiers.small.licence.family"),
        (FAMILY, {"family": "qwen"}, False, "small is of family qwen, large of Llama-3"),
    ],
)
def test_what_is_not_is_refused_and_the_message_names_the_setting(tmp_path, teacher, student, remote, setting):
    with pytest.raises(BadInput, match=setting.replace(".", r"\.")):
        gate(tmp_path, teacher, student, remote)


def test_an_answer_is_judged_by_the_licence_that_it_was_given_under(tmp_path):
    given = config_of(tmp_path, student={"licence": {"id": "closed", "train_on_outputs": "none"}})
    found = permissions(given.tiers[0], given.tiers[1], given.tiers)
    assert found.fault("apache-2.0") == "" and found.fault("closed") == NOT_ALLOWED and found.fault("mit") == NOT_KNOWN
    assert found.fault(CORRECTION) == ""


def test_of_two_tiers_with_one_licence_the_stricter_counts(tmp_path):
    given = config_of(tmp_path, student={"licence": {"id": "apache-2.0", "train_on_outputs": "none"}})
    assert permissions(given.tiers[0], given.tiers[1], given.tiers).fault("apache-2.0") == NOT_ALLOWED


def test_a_naming_rule_holds_for_models_that_learned_from_such_answers(tmp_path):
    found = gate(tmp_path, {**FAMILY, "name_begins": "Llama"}, {"family": "llama-3"})
    assert found.beginnings(["llama3.1"]) == ["Llama"] and found.beginnings([CORRECTION]) == []
    assert checked_name("Llama-mail", ["Llama"]) == "Llama-mail" and checked_name("mail", []) == "mail"
    with pytest.raises(BadInput, match="to begin with 'Llama'; give --name"):
        checked_name("mail", ["Llama"])


def test_two_naming_rules_that_no_name_keeps_are_refused(tmp_path):
    given = config_of(
        tmp_path,
        student={"licence": {**OPEN, "name_begins": "Qwen"}},
        teacher={"licence": {"id": "llama3.1", "train_on_outputs": "any", "name_begins": "Llama"}},
    )
    found = permissions(given.tiers[0], given.tiers[1], given.tiers)
    with pytest.raises(BadInput, match=r"Llama\.\.\. and Qwen|Qwen\.\.\. and Llama"):
        found.beginnings(["mit", "llama3.1"])


def test_the_strictest_licence_decides():
    some = [Licence(id="a", train_on_outputs="any"), Licence(id="b", train_on_outputs="same-family")]
    assert strictest(some).id == "b" and strictest([*some, Licence()]).id == "unknown"
