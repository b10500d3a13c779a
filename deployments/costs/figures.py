"""What one group of requests and calls comes to; groups add up to the whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from router.costs import counterfactual
from router.types import Role

LOOKED_AT: tuple[Role, ...] = ("attempt",)  # calls whose answer is looked at before it is accepted
MICRO = 6
MACHINE = ("busy_s", "idle_s", "nobody_s", "over_s", "busy_usd", "idle_usd", "nobody_usd", "over_usd")
NANO = 9  # decimals of USD that are told: sums in another order differ beyond


@dataclass(slots=True)
class Figures:
    """Counts, tokens, USD and accelerator-seconds. A request belongs to the tier that answered, a call to the tier called."""

    requests: int = 0
    failed: int = 0
    delegated: int = 0
    accepted: int = 0
    """requests that a cascade ended below the top tier"""
    calls: int = 0
    attempts: int = 0
    audits: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    """of all calls, by token price, audits included"""
    audit_usd: float = 0.0
    requests_usd: float = 0.0
    """of all requests, audits left out"""
    covered_usd: float = 0.0
    """of requests whose counterfactual is known, audits left out"""
    counterfactual_usd: float = 0.0
    busy_s: float = 0.0
    idle_s: float = 0.0
    nobody_s: float = 0.0
    over_s: float = 0.0
    busy_usd: float = 0.0
    idle_usd: float = 0.0
    nobody_usd: float = 0.0
    over_usd: float = 0.0

    def called(self, row: Mapping[str, Any]) -> None:
        """Add sums of calls that share a role."""
        self.calls += row["calls"]
        self.input_tokens += row["input_tokens"]
        self.output_tokens += row["output_tokens"]
        self.cached_tokens += row["cached_tokens"]
        self.cost_usd += row["cost_usd"]
        if row["role"] == "audit":
            self.audits += row["calls"]
            self.audit_usd += row["cost_usd"]
        if row["role"] in LOOKED_AT:
            self.attempts += row["calls"]

    def asked(self, row: Mapping[str, Any], top: str) -> None:
        """Add sums of requests that share flow and answering tier. top: the largest tier."""
        self.requests += row["requests"]
        self.failed += row["failed"]
        self.requests_usd += row["cost_all_usd"]
        self.covered_usd += row["cost_usd"]
        self.counterfactual_usd += row["counterfactual_usd"]
        if row["flow"] in ("delegation", "tools"):
            self.delegated += row["requests"]
        if row["flow"] in ("cascade", "race") and row["tier"] not in ("", top):
            self.accepted += row["requests"]

    def used(self, row: Mapping[str, Any]) -> None:
        """Add accelerator time."""
        for name in MACHINE:
            setattr(self, name, getattr(self, name) + row[name])

    def add(self, other: "Figures") -> None:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def saving_usd(self) -> float:
        return counterfactual.saving(self.counterfactual_usd, self.covered_usd, self.audit_usd)

    def told(self) -> dict[str, Any]:
        """As JSON. The share is null where there is nothing to divide by."""
        return {
            "requests": self.requests,
            "failed": self.failed,
            "calls": self.calls,
            "attempts": self.attempts,
            "escalations": max(0, self.attempts - self.accepted),
            "delegations": self.delegated,
            "audits": self.audits,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cached_tokens": self.cached_tokens,
            "tokens": self.tokens,
            "cost_usd": round(self.cost_usd, NANO),
            "audit_usd": round(self.audit_usd, NANO),
            "covered_usd": round(self.covered_usd, NANO),
            "counterfactual_usd": round(self.counterfactual_usd, NANO),
            "saving_usd": round(self.saving_usd, NANO),
            "saving_share": share(self.saving_usd, self.counterfactual_usd),
            **self.machine(),
        }

    @property
    def held_s(self) -> float:
        """Of a key: what it used and bears. Of tiers and days: all that was held, used or not."""
        return self.busy_s + self.idle_s + self.nobody_s + self.over_s

    @property
    def held_usd(self) -> float:
        return self.busy_usd + self.idle_usd + self.nobody_usd + self.over_usd

    def machine(self) -> dict[str, float]:
        found = {name: round(getattr(self, name), MICRO if name.endswith("_s") else NANO) for name in MACHINE}
        return {**found, "held_s": round(self.held_s, MICRO), "held_usd": round(self.held_usd, NANO)}

    def brief(self) -> dict[str, Any]:
        """What charts draw."""
        return {
            "cost_usd": round(self.cost_usd, NANO),
            "tokens": self.tokens,
            "requests": self.requests,
            "busy_s": round(self.busy_s + self.over_s, MICRO),
            "idle_s": round(self.idle_s + self.nobody_s, MICRO),
        }


def share(part: float, whole: float) -> float | None:
    return round(part / whole, NANO) if whole > 0 else None
