"""Decides a stored log again by another artefact, target or prices, and estimates the cost and quality of that. Pure.

The answer to a request that is decided differently is unknown, so both sides are estimated by the same rule. A call costs
the tokens that the log has for the tier (else those of the call that answered) at the new prices. Where answers are
judged, a request goes up to the top tier with the chance that the first tier's answer is not good enough. The log's real
sum is known, so the estimate is scaled by its error on the log, which is reported.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from classifiers import Artifact
from classifiers.choose import Floats
from router.config import Config
from router.costs.counterfactual import ANSWERED_WHOLE
from router.costs.prices import per_token, prices, token_cost_usd
from router.decide.targets import as_chance
from router.engine import Router
from router.errors import BadInput, BadRequest, UnknownModel
from router.tier_settings import Price
from router.trace import UNASKED
from router.types import Decision, Facts, Usage

NO_PROMPT = "no prompt stored"
NO_ANSWER = "no answer in the log"
IN_PARTS = "answered in parts (delegation, tools)"
SERVICE = "asked a service, which no tier can stand for"
OTHER_LADDER = "a tier that the ladder lacks"
REFUSED = "refused by the ladder"
MEANS = {
    "paid_usd": "what the replayed requests cost when they were served, without audits and calls to learn from",
    "log_usd": "the same calls at the new prices",
    "new_usd": "expected: log_usd x the estimate for the new decisions / the estimate for the log's own decisions",
    "estimate": "how far the estimate is off on the log itself, where the cost is known; trust only a larger change",
    "quality": "mean chance that the answer is good enough; where answers are judged, the better of first tier and top tier",
    "left out": "each turn is decided without the conversation's earlier tier; temperature and tools are not in the log",
}


Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=2**53)]


class LoggedCall(BaseModel):
    """What replay reads of a call in a line of the log."""

    tier: str
    role: str
    input_tokens: Count
    output_tokens: Count
    cached_tokens: Count


class LoggedRow(BaseModel):
    """What replay reads of a line of the log."""

    began_s: Amount = 0.0
    """Unix time"""
    key_id: str = ""
    wanted: str
    prompt: str | None
    flow: str
    cost_usd: Amount
    p: Mapping[str, Annotated[float, Field(ge=0, le=1)]]
    calls: list[LoggedCall]


def logged_row(row: Any) -> LoggedRow:
    """Raises BadInput that names the field, what was found, and what was expected."""
    try:
        return LoggedRow.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the line"
        found = "missing" if first["type"] == "missing" else f"{first['input']!r:.60}"
        more = f"; {error.error_count() - 1} more fields are wrong" if error.error_count() > 1 else ""
        raise BadInput(f"not a request of a log: {field} is {found} ({first['msg']}){more}") from None


@dataclass(frozen=True, slots=True)
class Logged:
    """One request of the log without the calls that no client asked for."""

    wanted: str
    prompt: str | None
    flow: str
    cost_usd: float
    p: Mapping[str, float]
    calls: Sequence[tuple[str, Usage, int]]
    """(tier, tokens, cached input tokens), in the order they began"""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Logged":
        """From a line of `stepdown costs --export`. Raises BadInput."""
        read = logged_row(row)
        calls = tuple(
            (call.tier, Usage(call.input_tokens, call.output_tokens), call.cached_tokens)
            for call in read.calls
            if call.role not in UNASKED
        )
        return cls(read.wanted, read.prompt, read.flow, read.cost_usd, read.p, calls)

    @property
    def first(self) -> str:
        return self.calls[0][0]

    @property
    def looked_at(self) -> bool:
        return self.flow == "cascade"

    def usage(self, tier: str) -> Usage:
        """The tokens of the tier's last call, else those of the call that answered."""
        return next((usage for name, usage, _ in reversed(self.calls) if name == tier), self.calls[-1][1])


class Repriced(Artifact):
    """An artefact whose guessed costs are adjusted to other prices than those it was trained with."""

    factors: Floats  # (n_tiers,) new price over old, the top tier's = 1

    @classmethod
    def at_prices(cls, artefact: Artifact, old: Config, new: Config) -> "Repriced":
        made = cls(**{name: getattr(artefact, name) for name in artefact.__dataclass_fields__})
        was, now = (np.array([sum(per_token(tier)) for tier in config.tiers]) for config in (old, new))
        changed = np.divide(now, was, out=np.ones_like(now), where=was > 0)
        object.__setattr__(made, "factors", changed / changed[-1] if changed[-1] > 0 else changed)
        return made

    def guess_one(self, prompt: str) -> tuple[Floats, Floats, float]:
        p, cost, unfamiliar = super().guess_one(prompt)
        return p, cost * self.factors, unfamiliar


def repriced(config: Config, given: Mapping[str, Price]) -> Config:
    """The configuration with other prices, checked again. Raises BadInput."""
    unknown = sorted(given.keys() - set(config.names))
    if unknown:
        raise BadInput(f"--price {unknown[0]}: no such tier; the ladder has {', '.join(config.names)}")
    tiers = [tier.model_copy(update={"price": given.get(tier.name, tier.price)}) for tier in config.tiers]
    try:
        return Config.model_validate(config.model_dump() | {"tiers": [tier.model_dump() for tier in tiers]})
    except ValueError as error:
        raise BadInput(f"--price: {' '.join(str(error).split())}") from None


@dataclass(slots=True)
class Side:
    """Sums over the replayed requests, as decided in the log or anew."""

    first: dict[str, int] = field(default_factory=dict)
    """tier -> requests that it was asked first"""
    usd: float = 0.0
    quality: float = 0.0

    def add(self, tier: str, usd: float, quality: float) -> None:
        self.first[tier] = self.first.get(tier, 0) + 1
        self.usd += usd
        self.quality += quality


class Replay:
    """Replays logged requests. router: has the new prices, and counts characters as tokens on every tier; see `facts`."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.top = router.names[-1]
        self.prices = {tier.name: prices(tier) for tier in router.tiers}
        self.log, self.new = Side(), Side()
        self.rows = self.judged = self.up = self.down = 0
        self.paid_usd = self.log_usd = 0.0
        self.then = 0.0  # sum of the quality by the chances in the log
        self.skipped: dict[str, int] = {}

    def run(self, rows: Iterable[Logged]) -> "Replay":
        for row in rows:
            self.rows += 1
            if reason := self.unusable(row) or self.decide(row):
                self.skipped[reason] = self.skipped.get(reason, 0) + 1
        return self

    def unusable(self, row: Logged) -> str:
        if row.flow == "service":
            return SERVICE
        if row.prompt is None:
            return NO_PROMPT
        if row.flow not in ANSWERED_WHOLE:
            return IN_PARTS
        if not row.calls or not row.calls[-1][1].output_tokens:
            return NO_ANSWER
        return "" if all(tier in self.prices for tier, _, _ in row.calls) else OTHER_LADDER

    def decide(self, row: Logged) -> str:
        """Decide and count the row. Returns why it cannot be decided, or an empty text."""
        try:
            decided = self.router.decide_facts(facts(row))
        except (BadRequest, UnknownModel) as error:
            return f"{REFUSED} ({error.code})"
        self.count(row, decided, decided.first or (decided.tier,))
        return ""

    def count(self, row: Logged, decided: Decision, first: Sequence[str]) -> None:
        self.paid_usd += row.cost_usd
        self.log_usd += sum(token_cost_usd(usage, self.prices[tier], cached) for tier, usage, cached in row.calls)
        # Both sides use the new chances: the chances of two artefacts cannot be compared.
        self.log.add(row.first, *self.expected(row, decided.p, (row.first,), row.looked_at))
        self.new.add(decided.tier, *self.expected(row, decided.p, first, decided.judge is not None))
        self.judged += bool(decided.p)
        self.then += self.quality(row.p, row.first, row.looked_at) if decided.p else 0.0
        order = self.router.names.index
        self.up += order(decided.tier) > order(row.first)
        self.down += order(decided.tier) < order(row.first)

    def expected(self, row: Logged, p: Mapping[str, float], first: Sequence[str], looked_at: bool) -> tuple[float, float]:
        """USD, and the chance that the answer is good enough: 0 where the classifier was not asked."""
        usd = sum(token_cost_usd(row.usage(tier), self.prices[tier]) for tier in first)
        best = max(first, key=lambda tier: p.get(tier, 0.0))
        if looked_at and self.top not in first and p:
            usd += (1 - p.get(best, 0.0)) * token_cost_usd(row.usage(self.top), self.prices[self.top])
        return usd, self.quality(p, best, looked_at)

    def quality(self, p: Mapping[str, float], tier: str, looked_at: bool) -> float:
        mine = p.get(tier, 0.0)
        return max(mine, p.get(self.top, 0.0)) if looked_at else mine

    def report(self) -> dict[str, Any]:
        """Plain JSON; None where nothing was replayed."""
        new = self.log_usd * self.new.usd / self.log.usd if self.log.usd else None
        was, now = self.log.first, self.new.first
        return {
            "rows": self.rows,
            "replayed": self.rows - sum(self.skipped.values()),
            "skipped": dict(sorted(self.skipped.items(), key=lambda item: -item[1])),
            "paid_usd": self.paid_usd,
            "log_usd": self.log_usd,
            "new_usd": new,
            "change_usd": None if new is None else new - self.log_usd,
            "change_share": None if not new or not self.log_usd else new / self.log_usd - 1,
            "tiers": {name: {"log": was.get(name, 0), "new": now.get(name, 0)} for name in self.router.names},
            "moved": {"up": self.up, "down": self.down},
            "quality": self.qualities(),
            "estimate": {"of_log_usd": self.log.usd, "off": self.log.usd / self.log_usd - 1 if self.log_usd else None},
            "means": MEANS,
        }

    def qualities(self) -> dict[str, Any]:
        """then: by the chances in the log; log: the log's decisions by the new chances; new: the new decisions by the same."""
        n = self.judged
        values = {"then": self.then, "log": self.log.quality, "new": self.new.quality}
        return {"rows": n, **{name: value / n if n else None for name, value in values.items()}}


def facts(row: Logged) -> Facts:
    """The facts for deciding. The counted text is a placeholder with as many characters as the calls had input tokens."""
    usage = row.calls[-1][1]
    counted = "x" * max(call[1].input_tokens for call in row.calls)
    return Facts(row.prompt or "", counted, row.wanted, max(1, usage.output_tokens))


def router_for(config: Config, artefact: Artifact | None, old: Config, fingerprints: Mapping[str, Any]) -> Router:
    """A router for `config` whose guessed costs are adjusted from the prices of `old`."""
    if artefact is not None and [t.price for t in config.tiers] != [t.price for t in old.tiers]:
        artefact = Repriced.at_prices(artefact, old, config)
    return Router(config, artefact, dict.fromkeys(config.names, len), fingerprints=fingerprints)


def retargeted(config: Config, artefact: str | None, target: str | None) -> Config:
    """The configuration with another artefact and another target behind `auto`. Raises BadInput."""
    routing = config.routing.model_dump() | ({"artefact": artefact} if artefact else {})
    if target is not None:
        chance = as_chance(target)
        routing["target"] = target if chance is None else chance
    try:
        return config.model_copy(update={"routing": type(config.routing).model_validate(routing)})
    except ValueError as error:
        raise BadInput(f"--target {target!r}: give cheap, balanced, quality, or a chance from 0 to 1") from error
