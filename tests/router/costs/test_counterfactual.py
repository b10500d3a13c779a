"""What a call costs, and what the top tier alone would have cost."""

import pytest

from router import config
from router.costs import prices
from router.costs.counterfactual import PRIOR_REQUESTS, Lengths, counterfactual, error
from router.trace import CallRow
from router.types import Usage


def tier(name="large", accelerator=None, tensor_parallel=1, **price) -> config.VllmTier:
    return config.VllmTier(
        name=name, engine="vllm", source="x", context=100, price=price, accelerator=accelerator, tensor_parallel=tensor_parallel
    )


LARGE = tier(usd_per_1m_input=2, usd_per_1m_output=10)


def row(tier="large", role="final", tokens=(100, 50), cached=0, estimated=False) -> CallRow:
    return CallRow("t/1", "t", "k", role, tier, "answered", 0.0, 1.0, *tokens, cached_tokens=cached, estimated=estimated)


def test_cached_input_costs_what_its_own_price_says():
    dear, cheap = prices.prices(LARGE), prices.prices(tier(usd_per_1m_input=2, usd_per_1m_output=10, usd_per_1m_cached_input=0.5))
    usage = Usage(1_000_000, 100_000)
    assert (
        prices.token_cost_usd(usage, dear, 400_000)
        == prices.token_cost_usd(usage, dear)
        == prices.token_cost_usd(usage, prices.per_token(LARGE))
        == pytest.approx(3)
    )
    assert prices.token_cost_usd(usage, cheap) == pytest.approx(3)
    assert prices.token_cost_usd(usage, cheap, 400_000) == pytest.approx(1.2 + 0.2 + 1)


def test_no_more_is_cached_than_was_sent():
    cheap = prices.prices(tier(usd_per_1m_input=2, usd_per_1m_output=10, usd_per_1m_cached_input=1))
    assert prices.token_cost_usd(Usage(100, 0), cheap, 1000) == pytest.approx(100 * 1e-6)


@pytest.mark.parametrize("accelerator, parallel, usd", [(None, 1, 3.6), ("H100", 1, 3.6), ("H100", 4, 14.4)])
def test_an_hour_of_a_replica_costs_all_its_accelerators_and_a_cpu_machine_one(accelerator, parallel, usd):
    assert prices.gpu_usd(3600, tier(accelerator=accelerator, tensor_parallel=parallel, usd_per_accelerator_hour=3.6)) == usd


def test_without_a_price_by_the_hour_nobody_knows():
    assert prices.gpu_usd(3600, LARGE) is None


@pytest.mark.parametrize("flow, calls", [("direct", [row()]), ("cascade", [row("small", "attempt", (100, 30)), row()])])
def test_where_the_top_tier_answered_the_prompt_its_own_cost_is_the_figure(flow, calls):
    found = counterfactual(LARGE, calls, flow, Usage(1, 1), Lengths(), "large")
    assert (found.usd, found.estimated) == (pytest.approx(100 * 2e-6 + 50 * 1e-5), False)


@pytest.mark.parametrize(
    "flow, calls",
    [
        ("cascade", [row("small", "attempt", (100, 30))]),
        ("delegation", [row("large", "plan"), row("small", "subtask"), row("large", "final", (900, 5))]),
        ("direct", [row(estimated=True)]),
    ],
)
def test_else_it_is_the_clients_prompt_and_the_answers_length(flow, calls):
    found = counterfactual(LARGE, calls, flow, Usage(80, 40), Lengths(), "small")
    assert (found.usd, found.estimated) == (pytest.approx(80 * 2e-6 + 40 * 1e-5), True)


def test_an_answer_is_not_predicted_longer_than_the_client_allowed():
    lengths = Lengths()
    for _ in range(1000):
        lengths.audited("small", 10, 100)
    assert counterfactual(LARGE, [], "cascade", Usage(0, 40), lengths, "small").usage.output_tokens == pytest.approx(393, abs=3)
    assert counterfactual(LARGE, [], "cascade", Usage(0, 40), lengths, "small", most=64).usage.output_tokens == 64


def test_lengths_add_up_to_what_was_seen():
    lengths, seen = Lengths(), [(10, 30), (40, 20), (5, 80)] * 1000
    for small, top in seen:
        lengths.audited("small", small, top)
    predicted = lengths.ratio("small") * sum(small for small, _ in seen)
    assert predicted == pytest.approx(sum(top for _, top in seen), rel=0.01)


def test_a_few_odd_requests_do_not_set_the_ratio_and_audits_go_before_escalations():
    lengths = Lengths()
    assert lengths.ratio("small") == 1
    lengths.escalated("small", 10, 100)
    assert lengths.ratio("small") == pytest.approx((100 + 200) / (10 + 200))
    for _ in range(PRIOR_REQUESTS):
        lengths.audited("small", 10, 10)
    assert lengths.ratio("small") == 1


def test_empty_answers_tell_nothing():
    lengths = Lengths()
    lengths.audited("small", 0, 0)
    assert lengths.ratio("small") == 1


def test_the_error_tells_bias_and_distance():
    found = error([(1.5, 1.0), (0.5, 1.0)])
    assert (found.requests, found.bias, found.mean_absolute) == (2, 0, 50)
    assert error([(2.0, 1.0)]).bias == 100
    assert error([]).bias is None
