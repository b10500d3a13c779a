"""What all steps of one delegation share: the request, the ladder, the books, and how backends are asked for JSON."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from router.cascade.call_outcomes import CallOutcomes
from router.config import Delegation
from router.delegate.gates import Route
from router.delegate.memory import Memory
from router.errors import NoReplica, RequestFailed
from router.limits.delegation_budget import Budget, Rung, rung_of
from router.types import Reply

Accept = Callable[[str, str, Reply], str | None]
"""(tier, what the worker was told, its reply) -> None if it is good, else why it should go up"""
FORMATS = ("json_schema", "structured_outputs", "prompt")  # ways to ask for JSON, the best first


@dataclass(slots=True)
class Desk:
    """What all steps of one request share, and its books."""

    body: Mapping[str, Any]
    ladder: Sequence[Rung]
    settings: Delegation
    route: Route
    accept: Accept
    memory: Memory
    budget: Budget
    special: Sequence[str] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    """added to the body of every worker, such as a wish for log-probabilities"""
    now_s: float = 0.0
    """seconds since the request, as far as replies told"""
    outcomes: CallOutcomes = field(default_factory=CallOutcomes)
    used: set[str] = field(default_factory=set)
    """ids of calls"""

    @property
    def top(self) -> Rung:
        return self.ladder[-1]

    @property
    def work_until_s(self) -> float:
        """When the final call must begin."""
        return self.settings.deadline_s * (1 - self.settings.final_reserve)

    def above(self, tier: str) -> Rung | None:
        i = self.ladder.index(rung_of(self.ladder, tier)) + 1
        return self.ladder[i] if i < len(self.ladder) else None

    def name(self, wanted: str) -> str:
        """An id for a call that no other has."""
        n, name = 1, wanted
        while name in self.used:
            n += 1
            name = f"{wanted}-{n}"
        self.used.add(name)
        return name

    def pay(self, reply: Reply) -> None:
        """Book what a call cost. One that failed says nothing: what was set aside for it counts as spent."""
        if reply.error is not None and not reply.usage.input_tokens:
            self.budget.forfeit(reply.call.id)
        else:
            self.budget.commit(reply.call.id, rung_of(self.ladder, reply.call.tier).paid(reply.usage))


def structured(name: str, schema: Mapping[str, Any], way: int) -> dict[str, Any]:
    """What asks a backend for JSON of that schema, in one of FORMATS; nothing where the prompt alone must do."""
    if FORMATS[min(way, 2)] == "json_schema":
        return {"response_format": {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}}
    return {"structured_outputs": {"json": schema}} if FORMATS[min(way, 2)] == "structured_outputs" else {}


def way_asked(body: Mapping[str, Any]) -> bool:
    return "response_format" in body or "structured_outputs" in body


def way_of(body: Mapping[str, Any]) -> int:
    return 0 if "response_format" in body else 1 if "structured_outputs" in body else 2


def failure(error: RequestFailed) -> str:
    """An error of a tier as a code."""
    if isinstance(error, NoReplica):
        return "timeout"
    return "backend_error" if error.status >= 500 or error.status in (408, 429) else "request_refused"
