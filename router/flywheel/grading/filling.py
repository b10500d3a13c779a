"""Which tiers are asked afterwards for a kept request, with which body, and about what that costs."""

from collections.abc import Mapping, Sequence
from typing import Any

from router.costs.prices import token_cost_usd
from router.flywheel.served import Answer, Served
from router.limits.key_limits import USUAL_ANSWER
from router.request import wire
from router.request.body import answer_limit
from router.types import Usage

# Fields of the client's request that are not the tier's business any more, or that we set ourselves.
NOT_SENT = frozenset(
    "stream stream_options store metadata n best_of logprobs top_logprobs prompt_logprobs stepdown user safety_identifier "
    "prompt_cache_key prompt_cache_retention service_tier".split()
)
SAMPLERS = ("top_p", "top_k", "min_p")  # may leave one choice of each token, so that every sample is the same
SECOND_TEMPERATURE = 0.7  # of a second sample where the client's answer was not sampled


def comparable_answers(served: Served, as_sent: bool) -> dict[str, Answer]:
    """The answers to the very conversation that is kept. as_sent: the client's own answer is one of them."""
    return {tier: answer for tier, answer in served.answers.items() if as_sent or answer.role == "fill"}


def to_ask(tiers: Sequence[str], answers: Mapping[str, Answer], cannot: Mapping[str, str]) -> list[str]:
    """The tiers that are to be asked, cheapest first. cannot: tiers that may not or cannot answer, each with the reason."""
    return [tier for tier in tiers if tier not in answers and tier not in cannot]


def plain_body(served: Served) -> dict[str, Any]:
    """The client's request as any tier gets it, answered in one piece."""
    body = {name: value for name, value in served.body.items() if name not in NOT_SENT}
    return wire.forwarded({**body, "stream": False}, served.wanted)


def tests_of(served: Served) -> str:
    """The tests that came with the request; empty: none, or they were not kept."""
    own = served.sampling.get("stepdown")
    tests = own.get("tests") if isinstance(own, Mapping) else None
    return tests if isinstance(tests, str) else ""


def second_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """The same request for a second sample, which must not be the first one again."""
    heat = body.get("temperature")
    if isinstance(heat, int | float) and heat > 0:
        return {name: value for name, value in body.items() if name != "seed"}
    rest = {name: value for name, value in body.items() if name not in ("seed", *SAMPLERS)}
    return {**rest, "temperature": SECOND_TEMPERATURE}


def expected_usd(prices: Sequence[float], input_tokens: int, body: Mapping[str, Any], answers: Mapping[str, Answer]) -> float:
    """About what an answer will cost: it is taken to be as long as the longest that is known, within the client's limit."""
    known = max((answer.output_tokens for answer in answers.values()), default=0) or USUAL_ANSWER
    return token_cost_usd(Usage(input_tokens, min(known, answer_limit(body) or known)), prices)


def mean_logprob(answer: Answer | None) -> float | None:
    """Mean log-probability of an answer's tokens; None: not known."""
    found = answer.signals.get("mean_logprob") if answer else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
