"""Estimates what the top tier alone would have cost, and how far that estimate is off."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from router.costs.prices import prices, token_cost_usd
from router.tier_settings import Tier
from router.trace import CallRow, FlowKind
from router.types import Usage

PRIOR_REQUESTS = 20  # the prior ratio of 1 counts as this many requests, so that a few odd ones do not set the figure


# Kinds of flow in which one tier answers the client's own prompt whole.
ANSWERED_WHOLE: tuple[FlowKind, ...] = ("direct", "cascade", "race")


@dataclass(slots=True)
class Pairs:
    """Output tokens summed over requests that both a smaller tier and the top tier answered."""

    requests: int = 0
    small: int = 0
    top: int = 0

    def add(self, small: int, top: int) -> None:
        self.requests, self.small, self.top = self.requests + 1, self.small + small, self.top + top

    def ratio(self) -> float:
        """A ratio of sums, so that predictions add up to what was seen; drawn towards 1 while there are few requests."""
        if not self.small:
            return 1.0
        prior = PRIOR_REQUESTS * self.small / self.requests
        return (self.top + prior) / (self.small + prior)


@dataclass(slots=True)
class Lengths:
    """How many tokens the top tier writes for each token of a smaller tier, learned from requests that both answered.

    Audits are a random sample of accepted answers, the very answers that need a prediction. Escalations are requests that
    the smaller tier failed, so they are used only until there are PRIOR_REQUESTS audits.
    """

    audits: dict[str, Pairs] = field(default_factory=dict)
    escalations: dict[str, Pairs] = field(default_factory=dict)

    def audited(self, tier: str, small: int, top: int) -> None:
        """Add the output tokens of an accepted answer and of the top tier's answer to the same prompt."""
        self.audits.setdefault(tier, Pairs()).add(small, top)

    def escalated(self, tier: str, small: int, top: int) -> None:
        """Add the output tokens of a rejected answer and of the top tier's answer that replaced it."""
        self.escalations.setdefault(tier, Pairs()).add(small, top)

    def ratio(self, tier: str) -> float:
        """1 for a tier without any data."""
        audits = self.audits.get(tier, Pairs())
        found = audits if audits.requests >= PRIOR_REQUESTS else self.escalations.get(tier, audits)
        return found.ratio()


@dataclass(frozen=True, slots=True)
class Alone:
    """What the top tier alone would have cost. estimated: False where it did answer this prompt by itself."""

    usd: float
    usage: Usage
    estimated: bool
    cached_tokens: int = 0


def counterfactual(
    top: Tier, calls: Sequence[CallRow], flow: FlowKind, asked: Usage, lengths: Lengths, answered: str, most: int | None = None
) -> Alone:
    """The cost by token prices. Where the top tier answered the client's own prompt, directly, after an escalation or in a
    race, it is the cost of that call.

    asked: input tokens of the client's prompt as the top tier counts them, output tokens of the answer that the client got
    (joined from parts where there were parts). answered: the tier that wrote it. most: the client's limit of output tokens.
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
    """How far predictions are off, in percent; above 0 means too high. None: not measured.

    bias, mean_absolute: summed errors in percent of the summed actual costs, which is how far savings are off.
    each_signed, each_absolute: means over requests of the error in percent of the request's own actual cost.
    """

    requests: int
    bias: float | None
    mean_absolute: float | None
    each_signed: float | None = None
    each_absolute: float | None = None


def error(pairs: Iterable[tuple[float, float]]) -> Error:
    """pairs: (predicted, actual) cost of requests that the top tier answered after the prediction.

    The means over requests leave out requests that cost nothing.
    """
    rows = list(pairs)
    total = sum(actual for _, actual in rows)
    if total <= 0:
        return Error(len(rows), None, None)
    off = [predicted - actual for predicted, actual in rows]
    each = [100 * (predicted / actual - 1) for predicted, actual in rows if actual > 0]
    means = sum(each) / len(each), sum(map(abs, each)) / len(each)
    return Error(len(rows), 100 * sum(off) / total, 100 * sum(map(abs, off)) / total, *means)


def saving(counterfactual_usd: float, compared_usd: float, audit_usd: float, learning_usd: float) -> float:
    """USD that routing saved: the one definition, for every report. compared: the cost of the requests whose counterfactual
    is known. Audits, and what is asked and judged to learn from, are paid out of the saving."""
    return counterfactual_usd - compared_usd - audit_usd - learning_usd
