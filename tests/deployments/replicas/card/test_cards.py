"""Which GPUs Ray would give, by the rule that was observed on pretended ones."""

import pytest

from deployments.replicas.card.cards import Need, fewest, needs, placed
from router.config import Config
from router.errors import BadConfig

PRICE = {"usd_per_accelerator_hour": 1}


def on(cards, *shares):
    return [its for _, its in placed([Need(str(n), share) for n, share in enumerate(shares)], cards)]


@pytest.mark.parametrize(
    "shares, its",
    [
        ((0.6, 0.6, 0.4, 0.4), [(0,), (1,), (0,), (1,)]),
        ((1 / 3, 1 / 3, 1 / 3), [(0,), (0,), (0,)]),
        ((1.0, 0.5, 0.5), [(0,), (1,), (1,)]),
        ((0.3, 0.8, 0.7), [(0,), (1,), (0,)]),
        ((0.5, 0.9, 0.1), [(0,), (1,), (1,)]),  # the fuller card that has room
    ],
)
def test_shares_go_where_ray_put_them(shares, its):
    assert on(2, *shares) == its


def test_the_smaller_first_leaves_no_place_for_the_larger():
    with pytest.raises(BadConfig) as stopped:
        on(2, 0.4, 0.4, 0.6, 0.6)
    said = str(stopped.value)
    assert said.startswith("3 needs 0.6 of 1 GPU, and has no place on a machine with 2 (placed before: 0 0.4 on 0; 1 0.4 on 0;")
    assert "or use 3 GPUs" in said


def test_two_parts_of_one_model_on_one_card_are_refused():
    with pytest.raises(BadConfig, match="Ray would put 2 parts of its model on the same GPU"):
        placed([Need("large", 0.5, 2)], 2)


def test_whole_cards_are_never_shared():
    found = placed([Need("large", 1.0, 2), Need("small", 0.5)], 3)
    assert [its for _, its in found] == [(0, 1), (2,)]
    with pytest.raises(BadConfig, match="large needs 1 of 2 GPUs, and has no place on a machine with 2"):
        placed([Need("small", 0.1), Need("large", 1.0, 2)], 2)


def tier(name, **more):
    return {"name": name, "engine": "vllm", "source": "x/y", "context": 99, "accelerator": "H100", "price": PRICE, **more}


def test_a_ladder_places_its_largest_first_and_sleepers_too():
    tiers = [
        tier("small", gpu=0.3, replicas=2, price={"usd_per_accelerator_hour": 0.1}),
        tier("asleep", gpu=0.5, replicas=0, max_replicas=1),
        tier("large", tensor_parallel=2),
    ]
    wanted = needs(Config.model_validate({"tiers": tiers}).tiers)
    assert [(need.name, need.share, need.cards) for need in wanted] == [
        ("large", 1.0, 2),
        ("asleep", 0.5, 1),
        ("small", 0.3, 1),
        ("small", 0.3, 1),
    ]
    assert fewest(wanted) == 4
    assert needs([]) == [] and placed([], 1) == [] and fewest([]) == 0
