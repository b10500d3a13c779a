"""What a run for a student is asked: which tier learns from which, from what traffic, and how."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from deployments.learning.live.weights import DIGEST
from router.config import Config, VllmTier
from router.distil.licences import refusal
from router.errors import BadInput


@dataclass(frozen=True, slots=True)
class StudentAsked:
    """One student and its workload."""

    tier: str
    teacher: str
    """a larger tier"""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """only requests with all of these pairs teach; empty: all do"""
    adopt: str = ""
    """digest of weights that were trained elsewhere and adopted; empty: they are trained here"""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """wishes of the training, as `router.distil.recipe.Asked` has them: tokens, lora, rank, ..."""

    @property
    def workload(self) -> str:
        """For people: `small from large (app=mail)`."""
        pairs = ", ".join(f"{name}={value}" for name, value in sorted(self.metadata.items()))
        return f"{self.tier} from {self.teacher}" + (f" ({pairs})" if pairs else "")

    def same_workload(self, settings: Mapping[str, Any]) -> bool:
        """Whether a run with these settings was for the same student, teacher and requests."""
        other = settings.get("student") or {}
        return all(other.get(name) == value for name, value in asdict(self).items() if name in ("tier", "teacher", "metadata"))

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "StudentAsked":
        """What `as_json` gave."""
        return cls(**dict(data))


def checked(config: Config, asked: StudentAsked) -> StudentAsked:
    """The same, if this ladder can do it. Raises BadInput."""
    names, tiers = config.names, {tier.name: tier for tier in config.tiers}
    for what, name in (("student", asked.tier), ("teacher", asked.teacher)):
        if name not in tiers:
            raise BadInput(f"--{what} {name}: no such tier; there are {', '.join(names)}")
    student, teacher = tiers[asked.tier], tiers[asked.teacher]
    if names.index(teacher.name) <= names.index(student.name):
        raise BadInput(f"--teacher {teacher.name} is not above --student {student.name}; a student learns from a larger tier")
    if not isinstance(student, VllmTier):
        raise BadInput(
            f"--student {student.name}: its engine is {student.engine}; only a tier on vllm has weights that can be trained here"
        )
    if why := refusal(student, teacher):
        raise BadInput(why)
    if asked.adopt and not DIGEST.fullmatch(asked.adopt):
        raise BadInput(f"--adopt {asked.adopt[:80]}: expected 64 hexadecimal digits, as `stepdown distil adopt` prints them")
    return asked
