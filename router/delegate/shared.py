"""What all steps of one delegation share: the request, the ladder, the budget, and how tiers are asked for JSON."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from router.cascade.call_outcomes import CallOutcomes
from router.cascade.checks import refuses_field
from router.cascade.other_tiers import another_may_answer
from router.config import Delegation
from router.delegate.gates import Route
from router.delegate.memory import Memory
from router.delegate.splice import clients_own
from router.errors import NoReplica, RequestFailed, TierBusy, WindowExceeded
from router.limits.delegation_budget import Budget, Rung, rung_of
from router.types import Reply, Step

T = TypeVar("T")
Steps = Generator[Step, Sequence[Reply], T]
"""A part of a flow: it yields steps, is sent replies, and returns T."""
JudgeSubtask = Callable[[str, str, Reply], str | None]
"""(tier, worker's prompt, its reply) -> None if the answer is good enough, else why a larger tier should be asked"""
# Body fields that ask for JSON, the better one first. A backend that refuses both is asked by the prompt alone.
JSON_FIELDS = ("response_format", "structured_outputs")


@dataclass(slots=True)
class Shared:
    """Passed to every step of one delegation."""

    body: Mapping[str, Any]
    ladder: Sequence[Rung]
    settings: Delegation
    route: Route
    judge: JudgeSubtask
    memory: Memory
    budget: Budget
    special: Sequence[str] = ()
    """all special tokens of the tiers' tokenizers"""
    worker_fields: Mapping[str, Any] = field(default_factory=dict)
    """added to the body of every worker's call, such as a request for log-probabilities"""
    now_s: float = 0.0
    """seconds since the request, as of the latest reply"""
    outcomes: CallOutcomes = field(default_factory=CallOutcomes)
    call_ids: set[str] = field(default_factory=set)
    kept: frozenset[str] = field(init=False)
    """what looks like references to results, but is the client's own text"""

    def __post_init__(self) -> None:
        self.kept = clients_own(self.body.get("messages") or ())

    @property
    def top(self) -> Rung:
        return self.ladder[-1]

    @property
    def work_until_s(self) -> float:
        """When the final call must begin, in seconds since the request."""
        return self.settings.deadline_s * (1 - self.settings.final_reserve)

    def next_larger(self, tier: str) -> Rung | None:
        i = self.ladder.index(rung_of(self.ladder, tier)) + 1
        return self.ladder[i] if i < len(self.ladder) else None

    def next_wider(self, tier: str) -> Rung | None:
        """The next larger tier with a larger window."""
        at = self.ladder.index(rung_of(self.ladder, tier))
        return next((rung for rung in self.ladder[at + 1 :] if rung.context > self.ladder[at].context), None)

    def new_call_id(self, wanted: str) -> str:
        """The wanted id, with a number behind it if a call has it already."""
        n, name = 1, wanted
        while name in self.call_ids:
            n += 1
            name = f"{wanted}-{n}"
        self.call_ids.add(name)
        return name

    def book(self, reply: Reply) -> None:
        """Book the cost of a call. A failed call does not report its usage, so its whole reservation counts as spent."""
        if reply.error is not None and not reply.usage.input_tokens:
            self.budget.forfeit(reply.call.id)
        else:
            self.budget.commit(reply.call.id, rung_of(self.ladder, reply.call.tier).paid(reply.usage))

    def json_field(self, tier: str, name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        """The field that asks the tier for JSON of this schema; none if its backend has refused all of JSON_FIELDS."""
        refused = self.memory.refused.get(tier, 0)
        if refused == 0:
            return {"response_format": {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}}
        return {"structured_outputs": {"json": schema}} if refused == 1 else {}

    def refused_json_field(self, reply: Reply) -> bool:
        """Whether the backend seems to refuse the field that asked for JSON. If so, the tier's next call uses the next one."""
        used = next((i for i, name in enumerate(JSON_FIELDS) if name in reply.call.body), None)
        if used is None or not refuses_field(reply):
            return False
        self.memory.refuse(reply.call.tier, used)
        self.outcomes.set(reply.call.id, "format refused")
        return True


def failure_code(error: RequestFailed) -> str:
    """A tier's error as a code: `timeout`, `busy`, `backend_error`, `too_long` or `request_refused`."""
    if isinstance(error, NoReplica):
        return "busy" if isinstance(error, TierBusy) else "timeout"
    if not another_may_answer(error):
        return "request_refused"
    return "too_long" if isinstance(error, WindowExceeded) else "backend_error"
