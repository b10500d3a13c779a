"""What a client may ask for beyond OpenAI's fields: limits on its own request, and tools of the server."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from router.config import Delegation


class ClientLimits(BaseModel):
    """`parameters` of `stepdown:delegate`, or a body's `stepdown`. They tighten the server's own limits; a wider one changes
    nothing."""

    model_config = ConfigDict(title="Limits", frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    max_subtasks: Annotated[int, Field(ge=1)] | None = None
    max_cost_usd: Annotated[float, Field(ge=0)] | None = None
    """for the whole request"""
    deadline_s: Annotated[float, Field(gt=0)] | None = None
    """for the whole request"""
    max_calls: Annotated[int, Field(ge=1)] | None = None
    """of one delegation"""
    max_in_flight: Annotated[int, Field(ge=1)] | None = None

    def applied_to(self, settings: Delegation) -> Delegation:
        """The server's settings, each reduced to the client's limit where that is smaller."""
        given = {name: value for name, value in self if value is not None and name != "max_cost_usd"}
        return settings.model_copy(update={name: min(value, getattr(settings, name)) for name, value in given.items()})

    def combined_with(self, other: "ClientLimits") -> "ClientLimits":
        """The smaller value of each field."""
        pairs = {name: [v for v in (value, getattr(other, name)) if v is not None] for name, value in self}
        return ClientLimits.model_construct(**{name: min(values, default=None) for name, values in pairs.items()})

    def after_spending(self, usd: float) -> "ClientLimits":
        """The limits on the rest of a request that has cost `usd` so far."""
        return self if self.max_cost_usd is None else self.model_copy(update={"max_cost_usd": self.max_cost_usd - usd})


@dataclass(frozen=True, slots=True)
class OfferedTools:
    """The server tools that the client offers with a request."""

    delegate: ClientLimits | None = None
    escalate: bool = False
