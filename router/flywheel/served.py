"""One request as it was served and kept: what was asked, what each tier answered, and how good that was."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from router.flywheel.variants import tier_of, variant
from router.request.thoughts import spoken

GradeSource = Literal["feedback", "tests", "agreement", "judge", "top"]
"""feedback: somebody said so. tests: the client's own tests ran. agreement: it is the same as, or differs from, the top tier's
sure answer. judge: the top tier compared them blindly, in both orders. top: it is the top tier's own answer, 1 by definition"""
AnswerRole = Literal["answer", "draft", "audit", "fill"]
"""answer: the client got it. draft: it was looked at and rejected. audit: the top tier was asked too, to look after a promise.
fill: the tier was asked afterwards, to learn from"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one tier answered."""

    tier: str
    role: AnswerRole
    message: Mapping[str, Any]
    """OpenAI's: role, content, tool_calls, refusal, reasoning"""
    finish: str = "stop"
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    signals: Mapping[str, Any] = field(default_factory=dict)
    """statistics of its log-probabilities: `classifiers.replies.signals.statistics`, and `first_logprobs`; empty: not known"""
    model: str = ""
    """the tier's fingerprint"""

    @property
    def text(self) -> str:
        """The answer's text without its thought, empty where it only calls tools."""
        return spoken(self.message).text

    @property
    def thought(self) -> str:
        return spoken(self.message).thought


@dataclass(frozen=True, slots=True)
class Grade:
    """How good a tier's answer was."""

    score: float | None
    """in [0, 1]; None: it could not be graded"""
    source: GradeSource
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Served:
    """One kept request."""

    trace_id: str
    at_s: float
    """Unix time"""
    key_id: str
    conversation: str
    """digest; empty: it belongs to none"""
    messages: tuple[Mapping[str, Any], ...]
    """as kept: redacted"""
    answered_by: str
    """the tier whose answer the client got; empty: it ran on other weights than are looked at"""
    answers: Mapping[str, Answer]
    """by tier, or by the name of its weights where those are told apart (router/flywheel/variants.py); of one that was asked
    several times, the answer that the client got, else the first"""
    grades: Mapping[str, Grade] = field(default_factory=dict)
    """likewise"""
    tools: tuple[Mapping[str, Any], ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """the other fields of the body that a tier reads: temperature, max_tokens, response_format, ..."""
    wanted: str = "auto"
    """the request's `model`"""
    metadata: Mapping[str, str] = field(default_factory=dict)
    chance: float = 1.0
    """with which it was drawn, in (0, 1]; a drawn request stands for 1 / chance requests"""
    drawn: bool = False
    """it was drawn to be filled in: only such requests are a fair sample"""
    router: str = ""
    """digest of the artefact that decided; empty: none did"""
    flow: str = "direct"
    certificate: str = ""
    status: int = 200
    degraded: bool = False

    @property
    def body(self) -> dict[str, Any]:
        """The request as a chat body."""
        tools = {"tools": list(self.tools)} if self.tools else {}
        return {**self.sampling, **tools, "model": self.wanted, "messages": list(self.messages)}

    def on(self, weights: Mapping[str, str]) -> "Served":
        """The same by tier, as these weights have answered it; a tier whose weights were not asked has no answer.

        weights: tier -> digest; a tier that is missing has its configured weights.
        """

        def seen(name: str) -> bool:
            tier = tier_of(name)
            return name == variant(tier, weights.get(tier, ""))

        answers = {tier_of(name): replace(answer, tier=tier_of(name)) for name, answer in self.answers.items() if seen(name)}
        grades = {tier_of(name): grade for name, grade in self.grades.items() if seen(name)}
        by = tier_of(self.answered_by) if seen(self.answered_by) else ""
        return replace(self, answered_by=by, answers=answers, grades=grades)

    def complete(self, tiers: tuple[str, ...]) -> bool:
        """Whether every tier has an answer and a score."""
        scored = (self.grades.get(tier) for tier in tiers)
        return all(tier in self.answers for tier in tiers) and all(g is not None and g.score is not None for g in scored)
