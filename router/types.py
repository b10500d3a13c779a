"""The values that travel between reading a request and answering it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Path = Literal["chat/completions", "completions"]
Reason = Literal["asked for", "only one fits", "good enough", "best we have", "worth its cost", "fixed"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What deciding needs to know of a request, and nothing else."""

    text: str
    """what the classifier sees: `classifiers.prompt_text`"""
    counted: str
    """all text that takes up context: messages and tool definitions"""
    wanted: str
    """the request's `model`"""
    answer_tokens: int
    """tokens asked for the answer, at least 1"""
    needs: frozenset[str] = frozenset()
    """of `tools`, `json`, `images`"""


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a request goes and why; every step is in it."""

    tier: str
    reason: Reason
    target: str
    """`balanced`, `0.97`, ..., or the tier that was asked for"""
    p: Mapping[str, float] = field(default_factory=dict)
    """the chance of each permitted tier that its answer is good enough, each in [0, 1]; empty when nobody asked"""
    excluded: Mapping[str, str] = field(default_factory=dict)
    """tiers ruled out before the classifier was asked, each with the reason"""
    unfamiliar: float | None = None
    """how unlike the prompts of training, 0 (alike) to 1 (nothing seen is like it); None when nobody asked"""

    @property
    def confidence(self) -> float | None:
        """The chance of the tier taken, in [0, 1]; None when the client chose it."""
        return self.p.get(self.tier)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the client sent it, checked where we read it and untouched elsewhere."""

    path: Path
    body: Mapping[str, Any]

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream"))


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the tier counted them; usages add up."""

    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)
