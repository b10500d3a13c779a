"""One row of a data folder: a kept request, the answer to learn, and what the student answers to it today."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from router.errors import BadInput

Kind = Literal["failure", "success", "correction"]
"""failure: the student's answer is worse than the teacher's. success: it is as good. correction: somebody said what the answer
should have been, and that is learned"""
Side = Literal["train", "dev", "test"]
KINDS: tuple[str, ...] = get_args(Kind)
SIDES: tuple[str, ...] = get_args(Side)


@dataclass(frozen=True, slots=True)
class Student:
    """What a student answers, and what that is worth."""

    message: Mapping[str, Any]
    """OpenAI's"""
    finish: str
    score: float | None
    """in [0, 1], beside the answer to learn; None: they cannot be compared"""
    output_tokens: int = 0
    cost_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """One row. It is written as one line of JSON."""

    id: str
    """the trace's"""
    messages: tuple[Mapping[str, Any], ...]
    answer: Mapping[str, Any]
    """the assistant's message to learn: role, content, tool_calls"""
    kind: Kind
    student: Student
    tools: tuple[Mapping[str, Any], ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """the other fields of the body that a tier reads"""
    weight: float = 1.0
    """requests that it stands for: 1 / its chance of inclusion"""
    drawn: bool = False
    """it was drawn at random: only such rows are a fair sample"""
    group: str = ""
    """conversation and near-duplicates; no group stands on two sides"""
    conversation: str = ""
    key_id: str = ""
    at_s: float = 0.0
    """Unix time"""
    slices: Mapping[str, str] = field(default_factory=dict)
    """by which results are looked at apart: metadata, language, whether tools were offered"""
    licence: str = ""
    """of the teacher's model"""
    teacher_tokens: int = 0
    """of the teacher's answer"""
    teacher_usd: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Row":
        """What `as_json` gave. Raises BadInput."""
        try:
            plain = {name: value for name, value in data.items() if name != "student"}
            found = cls(**plain, student=Student(**data["student"]))
        except (TypeError, KeyError) as error:
            raise BadInput(f"not a row of a data folder: {error}; `stepdown distil data` writes them") from None
        if found.kind not in KINDS:
            raise BadInput(f"row {found.id}: kind {found.kind!r}, expected one of {', '.join(KINDS)}")
        return found
