"""The licence gate: whether a student may be trained on a teacher's answers. What nobody declared is not allowed.

A kept answer names the licence that its model had at that time, so each answer is judged by its own. This is no legal advice:
it enforces what the operator has declared in `tiers[].licence`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from router.errors import BadInput
from router.tier_settings import Licence, Tier

Permission = Literal["any", "same-family", "none", "unknown"]
UNKNOWN = frozenset(("", "unknown"))
STRICTNESS: Mapping[str, int] = {"any": 0, "same-family": 1, "unknown": 2, "none": 3}
CORRECTION = "correction"  # in place of a licence: what somebody said the answer should have been is no model's
NOT_KNOWN = "the licence of the teacher's answer is not known"
NOT_ALLOWED = "the licence of the teacher's answer does not allow training on it"


def permission(tier: Tier) -> Permission:
    """What a tier's licence allows. A remote tier allows nothing unless somebody declared it."""
    given = tier.licence.train_on_outputs
    return "none" if tier.engine == "remote" and given == "unknown" else given


@dataclass(frozen=True, slots=True)
class Permissions:
    """Which answers one student may be trained on, by the licences of the ladder's tiers."""

    allowed: Mapping[str, bool]
    """licence -> whether its answers may be learned from"""
    name_begins: Mapping[str, str]
    """licence -> what the name of a model must begin with that learned from it; only those that have such a rule"""

    def fault(self, licence: str) -> str:
        """Why an answer under this licence may not be learned; empty: it may."""
        if licence == CORRECTION:
            return ""
        if licence in UNKNOWN or licence not in self.allowed:
            return NOT_KNOWN
        return "" if self.allowed[licence] else NOT_ALLOWED

    def beginnings(self, licences: Iterable[str]) -> list[str]:
        """What a model's name must begin with that learned from answers under these licences. Raises BadInput where none can."""
        found = sorted({self.name_begins[licence] for licence in licences if licence in self.name_begins})
        longest = max(found, key=len, default="")
        if odd := [begin for begin in found if not longest.lower().startswith(begin.lower())]:
            raise BadInput(
                f"a model that learned from these answers would have to be called {longest}... and {odd[0]}...; "
                f"choose rows of one licence, with --since or --metadata"
            )
        return found


def permissions(student: Tier, teacher: Tier, tiers: Sequence[Tier]) -> Permissions:
    """What the student may learn from. Raises BadInput, which names the setting to write, where that is nothing of the teacher's.

    tiers: of the ladder. A kept answer under a licence that none of them has is not allowed; where several tiers have the same
    licence, the strictest counts.
    """
    if why := refusal(student, teacher):
        raise BadInput(why)
    allowed: dict[str, bool] = {}
    begins: dict[str, str] = {}
    for tier in (teacher, *(one for one in tiers if one.name != teacher.name)):
        name = tier.licence.id
        allowed[name] = allowed.get(name, True) and not refusal(student, tier)
        if tier.licence.name_begins:
            begins[name] = tier.licence.name_begins
    return Permissions({name: yes for name, yes in allowed.items() if name not in UNKNOWN}, begins)


def refusal(student: Tier, teacher: Tier) -> str:
    """Why the student may not be trained on the teacher's answers; empty: it may."""
    name, given, place = teacher.name, permission(teacher), f"tiers.{teacher.name}.licence"
    if teacher.licence.id in UNKNOWN:
        return (
            f"{place}.id: the licence of {name} is not declared, so nothing may be trained on its answers; write for example "
            f"`licence: {{id: apache-2.0, train_on_outputs: any}}`, if that is so"
        )
    if given == "any":
        return ""
    if given == "same-family":
        return family_refusal(student, teacher)
    if given == "unknown":
        return (
            f"{place}.train_on_outputs: not declared; read the licence {teacher.licence.id} and write `any`, `same-family` or "
            f"`none`"
        )
    remote = ", and a remote tier allows nothing unless it is declared" if teacher.licence.train_on_outputs != "none" else ""
    return (
        f"{place}.train_on_outputs is none{remote}: no model may be trained on answers of {name}; choose another --teacher, or "
        f"write `any` or `same-family` if its licence {teacher.licence.id} allows that"
    )


def family_refusal(student: Tier, teacher: Tier) -> str:
    """Why the two are not of one family; empty: they are."""
    for tier in (teacher, student):
        if not tier.licence.family:
            return (
                f"tiers.{tier.name}.licence.family: not declared; {teacher.name} may teach models of its own family only, so "
                f"write the family of both, such as `family: llama-3`"
            )
    own, theirs = student.licence.family, teacher.licence.family
    if own.casefold() != theirs.casefold():
        return (
            f"tiers.{teacher.name}.licence.train_on_outputs is same-family: {student.name} is of family {own}, {teacher.name} of "
            f"{theirs}; choose a teacher of {own}"
        )
    return ""


def strictest(licences: Iterable[Licence]) -> Licence:
    """The licence that allows least, which is what holds for a model that learned under all of them. There is at least one."""
    return max(licences, key=lambda one: STRICTNESS[one.train_on_outputs])


def checked_name(name: str, beginnings: Sequence[str]) -> str:
    """The model's name. Raises BadInput where a licence wants another one."""
    if odd := [begin for begin in beginnings if not name.lower().startswith(begin.lower())]:
        raise BadInput(
            f"the name {name[:80]!r}: a licence of what it learned from wants it to begin with {odd[0]!r}; give --name"
        )
    return name
