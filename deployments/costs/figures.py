"""The figures of one group of requests and calls. Groups add up to the whole."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deployments.ledger.machine_time_sums import MACHINE
from router.costs import counterfactual

MICRO = 6
NANO = 9  # decimals of USD; sums in another order differ beyond
# As the report has them.
COUNTS = (
    *("requests", "failed", "calls", "attempts", "escalations", "delegations", "audits", "learning_calls"),
    *("input_tokens", "output_tokens", "cached_tokens", "tokens"),
)
USD = ("cost_usd", "audit_usd", "learning_usd", "covered_usd", "counterfactual_usd", "saving_usd")


@dataclass(slots=True)
class Figures:
    """Counts, tokens, USD and accelerator-seconds. A request belongs to the tier that answered, a call to the tier called."""

    requests: int = 0
    failed: int = 0
    delegations: int = 0
    accepted: int = 0
    """requests that a cascade ended below the top tier"""
    calls: int = 0
    attempts: int = 0
    """calls whose answer was looked at before it was accepted or rejected"""
    audits: int = 0
    learning_calls: int = 0
    """calls to learn from: answers of tiers that were not asked, and the judge's"""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    """of all calls by token price, audits and calls to learn from included"""
    audit_usd: float = 0.0
    learning_usd: float = 0.0
    requests_usd: float = 0.0
    """of all requests to tiers, without audits and calls to learn from"""
    covered_usd: float = 0.0
    """of requests whose counterfactual is known, without these too"""
    counterfactual_usd: float = 0.0
    busy_s: float = 0.0
    idle_s: float = 0.0
    nobody_s: float = 0.0
    over_s: float = 0.0
    busy_usd: float = 0.0
    idle_usd: float = 0.0
    nobody_usd: float = 0.0
    over_usd: float = 0.0

    def grow(self, row: Mapping[str, Any], names: Iterable[str]) -> None:
        for name in names:
            setattr(self, name, getattr(self, name) + row[name])

    def add_calls(self, row: Mapping[str, Any]) -> None:
        """Add sums of calls that share a role."""
        self.grow(row, ("calls", "input_tokens", "output_tokens", "cached_tokens", "cost_usd"))
        if row["role"] == "audit":
            self.audits += row["calls"]
            self.audit_usd += row["cost_usd"]
        if row["role"] in ("fill", "judge"):
            self.learning_calls += row["calls"]
            self.learning_usd += row["cost_usd"]
        if row["role"] == "attempt":
            self.attempts += row["calls"]

    def add_requests(self, row: Mapping[str, Any], top: str) -> None:
        """Add sums of requests that share flow and answering tier. top: the largest tier."""
        self.grow(row, ("requests", "failed", "counterfactual_usd"))
        if row["flow"] != "service":  # there is no other tier that could have answered
            self.requests_usd += row["cost_all_usd"]
        self.covered_usd += row["cost_usd"]
        if row["flow"] in ("delegation", "tools"):
            self.delegations += row["requests"]
        if row["flow"] in ("cascade", "race") and row["tier"] not in ("", top):
            self.accepted += row["requests"]

    def add_machine_time(self, row: Mapping[str, Any]) -> None:
        self.grow(row, MACHINE)

    def add(self, other: "Figures") -> None:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def escalations(self) -> int:
        return max(0, self.attempts - self.accepted)

    @property
    def saving_usd(self) -> float:
        return counterfactual.saving(self.counterfactual_usd, self.covered_usd, self.audit_usd, self.learning_usd)

    @property
    def held_s(self) -> float:
        """For a key: what it used and bears. For tiers and days: all that was held, used or not."""
        return self.busy_s + self.idle_s + self.nobody_s + self.over_s

    @property
    def held_usd(self) -> float:
        return self.busy_usd + self.idle_usd + self.nobody_usd + self.over_usd

    def as_json(self) -> dict[str, Any]:
        """The share is null where there is nothing to divide by."""
        return {
            **{name: getattr(self, name) for name in COUNTS},
            **{name: round(getattr(self, name), NANO) for name in USD},
            "saving_share": share(self.saving_usd, self.counterfactual_usd),
            **self.machine(),
        }

    def machine(self) -> dict[str, float]:
        names = (*MACHINE, "held_s", "held_usd")
        return {name: round(getattr(self, name), MICRO if name.endswith("_s") else NANO) for name in names}

    def brief(self) -> dict[str, Any]:
        """The figures that charts draw."""
        return {
            "cost_usd": round(self.cost_usd, NANO),
            "tokens": self.tokens,
            "requests": self.requests,
            "busy_s": round(self.busy_s + self.over_s, MICRO),
            "idle_s": round(self.idle_s + self.nobody_s, MICRO),
        }


def share(part: float, whole: float) -> float | None:
    return round(part / whole, NANO) if whole > 0 else None
