"""What the largest tier alone would have cost, and how far that estimate is off."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from router.config import Tier
from router.costs.prices import prices, token_cost_usd
from router.trace import CallRow, FlowKind
from router.types import Usage

# Lengths are held at 1:1 as if so many requests had shown that: a handful of odd ones must not set the figure.
PRIOR_REQUESTS = 20


# Kinds of flow in which one tier answers the client's own prompt whole.
ANSWERED_WHOLE: tuple[FlowKind, ...] = ("direct", "cascade", "race")


@dataclass(slots=True)
class Pairs:
    """Sums over requests that both a smaller tier and the top tier answered."""

    requests: int = 0
    small: int = 0
    top: int = 0

    def add(self, small: int, top: int) -> None:
        self.requests, self.small, self.top = self.requests + 1, self.small + small, self.top + top

    def ratio(self) -> float:
        """Of the sums, so that predictions add up to what was seen; drawn to 1 while little was."""
        if not self.small:
            return 1.0
        prior = PRIOR_REQUESTS * self.small / self.requests
        return (self.top + prior) / (self.small + prior)


@dataclass(slots=True)
class Lengths:
    """How many tokens the top tier writes for each that a smaller tier wrote, learned from requests that both answered.

    Audits are drawn by chance from what was accepted, which is what is predicted. Escalations are the requests that the
    smaller tier could not do: they serve only until there are as many audits as PRIOR_REQUESTS.
    """

    audits: dict[str, Pairs] = field(default_factory=dict)
    escalations: dict[str, Pairs] = field(default_factory=dict)

    def audited(self, tier: str, small: int, top: int) -> None:
        """Output tokens of an accepted answer and of the top tier's to the same prompt."""
        self.audits.setdefault(tier, Pairs()).add(small, top)

    def escalated(self, tier: str, small: int, top: int) -> None:
        """Output tokens of a rejected answer and of the top tier's that replaced it."""
        self.escalations.setdefault(tier, Pairs()).add(small, top)

    def ratio(self, tier: str) -> float:
        """1 for a tier of which nothing is known."""
        audits = self.audits.get(tier, Pairs())
        found = audits if audits.requests >= PRIOR_REQUESTS else self.escalations.get(tier, audits)
        return found.ratio()


@dataclass(frozen=True, slots=True)
class Alone:
    """What the top tier alone would have cost; `estimated`: it did not answer this prompt by itself."""

    usd: float
    usage: Usage
    estimated: bool
    cached_tokens: int = 0


def counterfactual(
    top: Tier, calls: Sequence[CallRow], flow: FlowKind, asked: Usage, lengths: Lengths, answered: str, most: int | None = None
) -> Alone:
    """By token prices.

    asked: input tokens of the client's own prompt as the top tier counts them, output tokens of the answer that the client
    got (joined from parts, if it was). answered: the tier that wrote it. most: output tokens that the client allowed.
    Where the top tier answered the client's prompt itself, directly, after an escalation or in a race, that call's cost is the
    figure.
    """
    own = [call for call in calls if call.tier == top.name and call.role == "final" and not call.estimated]
    if flow in ANSWERED_WHOLE and own:
        used = Usage(own[-1].input_tokens, own[-1].output_tokens)
        cached = own[-1].cached_tokens
        return Alone(token_cost_usd(used, prices(top), cached), used, False, cached)
    output = round(asked.output_tokens * (1.0 if answered == top.name else lengths.ratio(answered)))
    used = Usage(asked.input_tokens, output if most is None else min(output, most))
    return Alone(token_cost_usd(used, prices(top)), used, True)


@dataclass(frozen=True, slots=True)
class Error:
    """How far predictions are off, in percent; above 0 means too high. None: nothing tells.

    bias, mean_absolute: of the sums, in percent of the mean of the facts: what savings are off by.
    each_signed, each_absolute: means over requests, each in percent of its own fact.
    """

    requests: int
    bias: float | None
    mean_absolute: float | None
    each_signed: float | None = None
    each_absolute: float | None = None


def error(pairs: Iterable[tuple[float, float]]) -> Error:
    """pairs: (predicted, fact), of requests that the top tier answered after they had been predicted.

    In the means over requests those that cost nothing are left out.
    """
    rows = list(pairs)
    fact = sum(row[1] for row in rows)
    if fact <= 0:
        return Error(len(rows), None, None)
    bias = sum(row[0] - row[1] for row in rows)
    absolute = sum(abs(row[0] - row[1]) for row in rows)
    each = [100 * (row[0] / row[1] - 1) for row in rows if row[1] > 0]
    means = sum(each) / len(each), sum(map(abs, each)) / len(each)
    return Error(len(rows), 100 * bias / fact, 100 * absolute / fact, *means)


def saving(counterfactual_usd: float, compared_usd: float, audit_usd: float) -> float:
    """What routing saved, wherever it is told. compared: paid for the requests whose counterfactual is known; audits are
    paid for out of what is saved."""
    return counterfactual_usd - compared_usd - audit_usd


def predicted(top: Tier, small: CallRow, ratio: float, most: int | None = None) -> float:
    """USD that would have been told for a smaller tier's answer had the top tier not been asked too: for `error`."""
    output = round(small.output_tokens * ratio)
    return token_cost_usd(Usage(small.input_tokens, output if most is None else min(output, most)), prices(top))
